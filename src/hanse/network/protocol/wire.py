"""The messages between client and server, version 7. Each message is JSON within a limit of this file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from hanse.core import value

__all__ = [
    "CHUNK_BYTES",
    "INVITATION",
    "JSON_BYTES",
    "LIST_BYTES",
    "PLANS_BYTES",
    "WIRE",
    "About",
    "AuditHead",
    "Code",
    "Decision",
    "Doing",
    "Failure",
    "Invitation",
    "Invited",
    "Join",
    "Joined",
    "KeptHead",
    "News",
    "Plan",
    "PlanImport",
    "Plans",
    "Poll",
    "Problem",
    "Receipt",
    "Received",
    "Rekey",
    "Rotated",
    "Rotation",
    "WorkOrder",
    "cut",
    "printable",
]

WIRE = 7
"""The version of the wire. A server lists those that it speaks; a client takes the newest common one.

7: an invitation is proven, not sent; an answer is signed only to a verified request, over all of its parts.
   A client of version 6 takes such an answer for a stranger's.
6: a task may hold tensors for one client alone, which then downloads it; a member may play a named party;
   a client may answer that a result does not exist yet, or that it keeps a promise. A client of version 5
   can't.
5: plans are sealed, and name the modules that a run imports. A client of version 4 can't read them.
"""

CHUNK_BYTES = 8 << 20
"""A message is uploaded in chunks of this size, the last of which may be shorter."""

JSON_BYTES = 1 << 20
"""The largest body of any other request, and the largest answer but for those of the next two limits."""

PLANS_BYTES = 4 << 20
"""The largest answer that holds plans."""

LIST_BYTES = 16 << 20
"""The largest list of clients or events for an operator."""

INVITATION = "Invitation"
"""The header that proves an invitation: its public key, a dot, its signature of the request."""

WAIT_S = 25.0
"""The seconds for which a poll is held open: fewer than 60, after which proxies cut it by default."""


@value
class PlanImport:
    """A module of users' own code that a run imports, as its clients hear of it: no code, and no path.

    Args:
      name: "my_module.py" or "my_package".
      kind, digest, files: see `hanse.imports.Import`.
    """

    name: str
    kind: str
    digest: str
    files: Mapping[str, str]


@value
class Plan:
    """A run as its clients need to know it, to bind the model and to decide whether they take part.

    Args:
      run: the name of the run.
      settings: of the experiment, in JSON.
      model: the value that binds to examples.
      feature_shape, num_classes: of the examples.
      classes: the names of the classes, if they have names.
      encoder: makes such examples of a table's columns; None: they are numbers already.
      imports: the modules whose values the run may send.
      envelopes: all that the run may ask of its members, in JSON: see `hanse.network.protocol.envelope`.
    """

    run: str
    settings: str
    model: Any
    feature_shape: tuple[int, ...]
    num_classes: int | None
    classes: tuple[str, ...] = ()
    encoder: Any = None
    imports: tuple[PlanImport, ...] = ()
    envelopes: str = "[]"


T = TypeVar("T")


def cut(items: Sequence[T], limit: int, count_bytes: Callable[[T], int]) -> list[T]:
    """Returns the first items that fit into so many bytes together, and at least one.

    >>> cut(["ab", "c", "de"], 4, len), cut(["abcde"], 4, len)
    (['ab', 'c'], ['abcde'])
    """
    size, fitting = 0, list[T]()
    for item in items:
        size += count_bytes(item)
        if fitting and size > limit:
            break
        fitting.append(item)
    return fitting


def printable(text: str) -> str:
    """Makes a stranger's text safe to print on somebody's screen.

    >>> printable("no\\x1b[2J\\nmore")
    'no\\\\x1b[2J\\nmore'
    """
    if text.isprintable():
        return text
    plain = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    return "".join(plain)


Words: TypeAlias = Annotated[str, AfterValidator(printable)]
"""Text of the other side, made safe to print when it arrives."""


def _hold_words(given: Any) -> Any:
    if isinstance(given, dict) and not all(isinstance(text, str) for text in given.values()):
        raise ValueError("it must hold text alone")
    return given


Dictionary: TypeAlias = Annotated[dict[Words, Words], BeforeValidator(_hold_words)]
"""Words by words, which are read until the first that is none, as `Each` is."""

Line: TypeAlias = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
"""Text of one line that can't steer a terminal."""


Each: TypeAlias = Annotated[list[T], FailFast()]
"""A list that is read until its first wrong item: errors take far more memory than the items."""


RunName: TypeAlias = Annotated[str, Field(pattern="^[0-9A-Za-z]{1,64}$")]
"""The name of a run, of which paths and addresses are made."""


MemberId: TypeAlias = Annotated[str, Field(pattern="^[0-9A-Za-z_-]{1,64}$")]
"""The name by which a server knows a member, which signs with it."""

Time: TypeAlias = Annotated[float, Field(ge=0, le=1e11)]
"""A second of a clock, such as can be shown as a date."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)  # a newer side may send more fields


class Problem(_Model):
    """The reason why a request was refused. `time`: of the server's clock, if the client's differs."""

    code: Words
    why: Words
    offset: int | None = None
    time: Time | None = None


class About(_Model):
    """The server's versions and clock."""

    wire: Each[int]
    hanse: Words
    time: float


class Join(_Model):
    """A request to join. It is signed with the key that it announces, and an invitation permits it."""

    name: Line = Field(default="", max_length=100)


class Joined(_Model):
    """A membership. `party`: the name of the party that it plays, if it has no number."""

    id: MemberId
    role: Literal["operator", "client", "observer"]
    number: Annotated[int, Field(ge=0)] | None
    name: Words
    party: Words = ""


class Plans(_Model):
    """The plans of the runs that a server leads, packed, in hexadecimal; and the number of the client."""

    plans: Each[str]
    number: int | None


Doing: TypeAlias = Literal["", "waiting", "checking", "downloading", "computing", "uploading", "resting"]
"""A client's progress in one word. The list is closed, so that nothing of its data can be in it."""


class AuditHead(_Model):
    """The end of a client's audit log: its number of lines, and the hash of the last one.

    `begun`: the number of lines before its first one, if its owner has begun a new log.
    """

    lines: int = Field(default=0, ge=0, le=2**53)
    hash: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    begun: int = Field(default=0, ge=0, le=2**53)


class KeptHead(AuditHead):
    """The head of a client's audit log that the server has kept last, and when; no lines: it keeps none."""

    at: Time = 0.0


class Poll(_Model):
    """A poll, by which a client says what it knows and waits for news.

    `have`: tickets that it works on, by run. `know`: tickets whose outcome is on its disk. `doing`: its
    progress. `expects`: the fingerprint of the certificate that the server has announced to it. `audit`: the
    head of its audit log.
    """

    wire: int = WIRE
    wait_s: float = Field(default=WAIT_S, ge=0, le=WAIT_S)
    have: dict[str, Each[int]] = {}
    know: dict[str, Each[int]] = {}
    doing: Doing = ""
    expects: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    audit: AuditHead | None = None


class WorkOrder(_Model):
    """One ticket. `task` is packed, in hexadecimal; `payload` and `plan` are the SHA-256 of objects.

    `own`: the SHA-256 of the packed task, if it holds tensors for this client alone. Then `task` is empty,
    and the client, and nobody else, downloads it.
    """

    run: RunName
    ticket: int = Field(ge=0, lt=2**53)
    task: str = Field(max_length=65536)
    own: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    own_bytes: int = Field(default=0, ge=0, lt=2**53)
    payload: str = Field(pattern="^[0-9a-f]{64}$")
    payload_bytes: int = Field(ge=0, lt=2**53)
    plan: str = Field(pattern="^[0-9a-f]{64}$")
    plan_bytes: int = Field(ge=0, le=PLANS_BYTES)
    limit_bytes: int
    work: Words


class Decision(_Model):
    """The outcome of a ticket.

    `party`: the one that held it, which is the client itself or the role of its own test examples; None: an
    earlier version of the server has kept the outcome.
    """

    run: RunName
    ticket: int = Field(ge=0, lt=2**53)
    counted: bool
    why: Words = ""
    party: int | str | None = None


class News(_Model):
    """The news for a client, in answer to its poll.

    `over`: all runs have ended and the server goes. `again_s`: seconds after which to poll again.
    `certificate`: the one that the server will show, or, for a client that expects it, the one that it
    shows now. `ended`: the status of each run that has ended. Unless it is over, one that failed or was
    interrupted may be served again, and the client waits for that. `audit`: the head of the client's audit
    log that the server keeps, if the poll shows another.
    """

    work: Each[WorkOrder] = []
    decisions: Each[Decision] = []
    over: bool = False
    again_s: float = Field(default=0.0, ge=0, le=366 * 86400)
    certificate: str = ""
    ended: Dictionary = {}
    audit: KeptHead | None = None


class Received(_Model):
    """The number of bytes of a message that the server has, and whether it has all of them durably."""

    offset: int = Field(ge=0, lt=2**53)
    durable: bool


Code: TypeAlias = Literal[
    "data",
    "no-data",
    "approval",
    "policy",
    "imports",
    "budget",
    "time",
    "promise",
    "resources",
    "message",
    "internal",
    "not-ready",
]
"""The reason why a client can't answer. The list is closed, because an error's text may quote data.

"not-ready" is no failure: the result does not exist yet, and the ticket is offered again.
"""


class Failure(_Model):
    """The message of a client that can't answer. `state` says how far it came."""

    state: Literal["refused", "downloaded", "trained"]
    code: Code


class Invitation(_Model):
    """A request for an invitation. `party`: the name of the party that the member will play."""

    role: Literal["client", "observer", "operator"] = "client"
    party: Line = Field(default="", max_length=40)
    name: Line = Field(default="", max_length=100)
    number: int | None = Field(default=None, ge=0, lt=2**31)
    valid_s: float = Field(default=7 * 86400, gt=0, le=366 * 86400)


class Rekey(_Model):
    """A request to replace a member's public key. `proof`: signed by the new key."""

    public: str = Field(pattern="^[0-9a-f]{64}$")
    proof: str = Field(pattern="^[0-9a-f]{128}$")


class Receipt(_Model):
    """The server's word that a member has left, or has another key. The signature of the answer makes it one.

    Args:
      key: the public key that the member has from now on; empty: it has left.
    """

    what: Literal["left", "rekeyed"]
    id: MemberId
    key: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    time: Time


class Rotation(_Model):
    """The operator's request to announce another certificate of the server, or to switch to it.

    `switch`: show the announced one; else announce one: `certificate`, or, if empty, one of the server's own.
    `anyway`: switch even if some clients have not heard of it.
    """

    certificate: str = Field(default="", max_length=20_000)
    switch: bool = False
    anyway: bool = False


class Rotated(_Model):
    """The state of a certificate rotation: the clients that know of it, and those that do not."""

    fingerprint: str
    know: Each[str]
    missing: Each[str]
    switched: bool = False


class Invited(_Model):
    """An invitation."""

    token: str
    number: int | None

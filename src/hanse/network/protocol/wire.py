"""The messages between client and server, version 4. Each message of this file is JSON under 1 MiB."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from hanse.core import value

__all__ = [
    "CHUNK_BYTES",
    "WIRE",
    "About",
    "Code",
    "Decision",
    "Doing",
    "Failure",
    "Invitation",
    "Invited",
    "Join",
    "Joined",
    "News",
    "Plan",
    "Plans",
    "Poll",
    "Problem",
    "Received",
    "Rekey",
    "Rotated",
    "Rotation",
    "WorkOrder",
]

WIRE = 4
"""The version of the wire. A server lists those that it speaks; a client takes the newest common one."""

CHUNK_BYTES = 8 << 20
"""A message is uploaded in chunks of this size, the last of which may be shorter."""

JSON_BYTES = 1 << 20
"""The largest body of anything else."""

WAIT_S = 25.0
"""How long a poll is held open: less than what proxies cut, which is 60 s by default."""


@value
class Plan:
    """What a run asks of its clients: all that one needs to bind the model, and to decide.

    Args:
      run: its name.
      settings: of the experiment, in JSON.
      model: the value that binds to examples.
      feature_shape, num_classes: of the examples.
      classes: what the classes are called, if they have names.
      encoder: what makes such examples of a table's columns; None: they are numbers already.
    """

    run: str
    settings: str
    model: Any
    feature_shape: tuple[int, ...]
    num_classes: int | None
    classes: tuple[str, ...] = ()
    encoder: Any = None


Line: TypeAlias = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
"""Text of one line that can't steer a terminal."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)  # a newer side may say more


class Problem(_Model):
    """Why a request was refused."""

    code: str
    why: str
    offset: int | None = None


class About(_Model):
    """Who is speaking."""

    wire: list[int]
    hanse: str
    time: float


class Join(_Model):
    """Asks to belong. Signed with the key that it announces, carrying the invitation's secret."""

    name: Line = Field(default="", max_length=100)


class Joined(_Model):
    """Membership."""

    id: str
    role: Literal["operator", "client", "observer"]
    number: int | None
    name: str


class Plans(_Model):
    """The plans of the runs that a server leads, packed, in hexadecimal; and the number of who asks."""

    plans: list[str]
    number: int | None


Doing: TypeAlias = Literal["", "waiting", "checking", "downloading", "computing", "uploading", "resting"]
"""What a client says of its progress. The list is closed, so that nothing of its data can be in it."""


class Poll(_Model):
    """A client says what it knows, and waits for more.

    `have`: tickets that it works on, by run. `know`: tickets whose verdict is on its disk. `doing`: its
    progress. `expects`: the fingerprint of the certificate that it was told the server will show.
    """

    wire: int = WIRE
    wait_s: float = Field(default=WAIT_S, ge=0, le=WAIT_S)
    have: dict[str, list[int]] = {}
    know: dict[str, list[int]] = {}
    doing: Doing = ""
    expects: str = Field(default="", pattern="^([0-9a-f]{64})?$")


class WorkOrder(_Model):
    """One ticket: `task` is packed and in hexadecimal; payload and plan are SHA-256 of objects."""

    run: str
    ticket: int
    task: str = Field(max_length=65536)
    payload: str = Field(pattern="^[0-9a-f]{64}$")
    payload_bytes: int = Field(ge=0)
    plan: str = Field(pattern="^[0-9a-f]{64}$")
    plan_bytes: int = Field(ge=0)
    limit_bytes: int
    work: str


class Decision(_Model):
    """What became of a ticket."""

    run: str
    ticket: int
    counted: bool
    why: str = ""


class News(_Model):
    """What a client is told.

    `over`: all runs have ended and the server goes. `again_s`: seconds after which to ask again.
    `certificate`: which the server will show, or, to a client that expects it, which it shows now.
    """

    work: list[WorkOrder] = []
    decisions: list[Decision] = []
    over: bool = False
    again_s: float = 0.0
    certificate: str = ""


class Received(_Model):
    """How much of a message is here, and whether all of it is, durably."""

    offset: int
    durable: bool


Code: TypeAlias = Literal[
    "data", "no-data", "approval", "policy", "budget", "time", "resources", "message", "internal"
]
"""Why a client can't answer. The list is closed: an error's text may quote data, and stays at home."""


class Failure(_Model):
    """A client can't answer. `state` says how far it came: refused, downloaded or trained."""

    state: Literal["refused", "downloaded", "trained"]
    code: Code


class Invitation(_Model):
    """Asks for an invitation."""

    role: Literal["client", "observer", "operator"] = "client"
    name: Line = Field(default="", max_length=100)
    number: int | None = Field(default=None, ge=0, lt=2**31)
    valid_s: float = Field(default=7 * 86400, gt=0, le=366 * 86400)


class Rekey(_Model):
    """Puts another public key in the place of a member's. `proof`: signed by that key."""

    public: str = Field(pattern="^[0-9a-f]{64}$")
    proof: str = Field(pattern="^[0-9a-f]{128}$")


class Rotation(_Model):
    """What the operator wants done with the server's certificate.

    `switch`: show the one that was announced; else announce one: `certificate`, or, if empty, one of its own.
    `anyway`: switch though clients have not heard of it.
    """

    certificate: str = Field(default="", max_length=20_000)
    switch: bool = False
    anyway: bool = False


class Rotated(_Model):
    """How a change of the certificate stands: who knows of it, and who does not."""

    fingerprint: str
    know: list[str]
    missing: list[str]
    switched: bool = False


class Invited(_Model):
    """An invitation."""

    token: str
    number: int | None

"""Enrolment: joining a federation, replacing a key, and leaving."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from hanse.core import InvalidInput, Key, MessageError, OwnLearners, own_test
from hanse.network.client.allowed_plan import allow_plan, note_refusal
from hanse.network.client.gate import Gate, compare_versions, fetch_certificate
from hanse.network.client.home import KEY, NEXT_KEY, ClientHome
from hanse.network.client.limits import count_rows
from hanse.network.client.transport import ServerLink, split
from hanse.network.protocol import certificates
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.sealed_plan import SealedPlan, read_plan
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import WAIT_S, Join, Joined, Plan, Plans, Receipt, Rekey

__all__ = ["check", "check_address", "examine", "fetch_plans", "join", "leave", "rotate_key", "waiting_plans"]

logger = logging.getLogger(__name__)


def _open_gate(client_home: ClientHome) -> Gate:
    return Gate(client_home.link(), client_home.audit)


def _approach(url: str, token: Token, client_home: ClientHome) -> Gate:
    """Opens a gate to a server that this client has not joined.

    Raises: Refused: if the server shows another certificate, or speaks another wire; Unreachable;
      InvalidInput.
    """
    split(url)
    pem = fetch_certificate(url.rstrip("/"), token.fingerprint)
    own = client_home.identity
    link = ServerLink(url, pem, own, own.public, token.key, token.invitation)
    gate = Gate(link, client_home.audit)
    try:
        compare_versions(gate.ask_about())
    except BaseException:
        gate.close()
        raise
    return gate


def join(
    client_home: ClientHome, url: str, token: Token, name: str = "", *, new_server_key: bool = False
) -> Joined:
    """Joins a federation. Joining again changes nothing, except that a token may name a new certificate.

    Args:
      new_server_key: whether a member trusts the server's key in the token in place of the one it has kept.

    Raises: Refused, Unreachable, InvalidInput: also if the token names another server than the one joined.
    """
    kept = client_home.membership
    if kept is not None:
        check_address(client_home, url)
        _check_server_key(client_home, kept, token, trusts_new=new_server_key)
        if token.fingerprint != certificates.fingerprint(kept["certificate"]):
            client_home.expect(fetch_certificate(kept["url"], token.fingerprint))
        client_home.link().close()
        return Joined.model_validate(kept)
    gate = _approach(url, token, client_home)
    link = gate.link
    try:
        joined, receipt = gate.join(Join(name=name))
    finally:
        gate.close()
    key = client_home.identity.public
    client_home.audit.write("joined", server=link.url, id=joined.id, key=key, receipt=receipt)
    client_home.enter(
        {"url": link.url, "certificate": link.pem, "server_key": token.key, **joined.model_dump()}
    )
    logger.info("event=joined server=%s member=%s role=%s", link.url, joined.id, joined.role)
    return joined


def check_address(client_home: ClientHome, url: str) -> None:
    """Checks that an address is that of the server that a member has joined. Raises: InvalidInput."""
    joined = (client_home.membership or {})["url"]
    if joined != url.rstrip("/"):
        raise InvalidInput(f"{client_home.folder} has joined {joined}; use another --home for {url}")


def _check_server_key(
    client_home: ClientHome, kept: Mapping[str, Any], token: Token, *, trusts_new: bool
) -> None:
    """Checks that a token names the server that a member has joined, or keeps its new key if that is trusted.

    Whoever has another key is another server, even at the same address: it could announce its certificate.

    Raises: InvalidInput.
    """
    known = kept.get("server_key", "")
    if token.key == known:
        return
    if not trusts_new:
        had = f"the key {known[:16]}..." if known else "no key of its server"
        raise InvalidInput(
            f"the token is of a server with the key {token.key[:16]}..., and {client_home.folder} has kept "
            f"{had} since it joined: another server answers there, or the operator has replaced the "
            "server's key. Ask the operator by another way than the one by which the token came. If the key "
            "is right, type the same line with --new-server-key; if not, tell the operator, and join nothing"
        )
    client_home.audit.write("trusts a server key", key=token.key, instead_of=known or "none")
    client_home.amend(server_key=token.key)


CHECK_S = WAIT_S
"""The seconds for which `check` asks the server to hold its request, to find proxies that cut polls."""


def check(client_home: ClientHome, url: str, token: Token) -> tuple[list[SealedPlan], int]:
    """Tries everything short of joining: network, certificate, versions, invitation; see `fetch_plans`.

    The request is as large as an upload gets, and waits as long as a poll does, so that a proxy that would
    cut them is found now.

    Raises: Refused, Unreachable, InvalidInput.
    """
    gate = _approach(url, token, client_home)
    try:
        return _read_plans(gate.check(CHECK_S))
    finally:
        gate.close()


def _read_plans(found: Plans) -> tuple[list[SealedPlan], int]:
    try:
        packed = [bytes.fromhex(text) for text in found.plans]
    except ValueError:
        raise MessageError("the server's plans can't be read") from None
    return [read_plan(data) for data in packed], found.number or 0


def fetch_plans(
    client_home: ClientHome, url: str | None = None, token: Token | None = None
) -> tuple[list[SealedPlan], int]:
    """Asks for the plans of the runs that a server leads now, and for the number of this client.

    A member asks under its own key; others need an invitation.

    Raises: Refused, Unreachable, InvalidInput.
    """
    if client_home.membership is not None:
        gate = _open_gate(client_home)
        try:
            return _read_plans(gate.ask_plans())
        finally:
            gate.close()
    if url is None or token is None:
        raise InvalidInput("write hanse join https://HOST:PORT --token-file FILE --data ...")
    gate = _approach(url, token, client_home)
    try:
        return _read_plans(gate.ask_plans(invited=True))
    finally:
        gate.close()


FEW = 100
"""The number of examples on which a model is tried, which is enough to see whether it takes them."""


def examine(
    client_home: ClientHome,
    sealed: SealedPlan,
    data: Callable[[Plan], Any],
    bind: Callable[[Plan], Any],
    test: Callable[[Plan], Any] | None = None,
) -> dict[str, int]:
    """Checks that this client may take part in a run, and that its data suit it; returns example counts.

    A learner of its own is tried once the client has joined and has its number or name.

    The policy is checked first: if it does not allow the plan, nothing is imported and no data are opened.

    Raises: Forbidden: if the client's owner does not allow the plan, or its imports; see `allow_plan`.
      InvalidInput: if the data can't be read, or don't suit the plan.
    """
    plan, _ = allow_plan(client_home, sealed)
    with note_refusal(client_home, sealed):
        return _examine(client_home, plan, data, bind, test)


def _examine(
    client_home: ClientHome,
    plan: Plan,
    data: Callable[[Plan], Any],
    bind: Callable[[Plan], Any],
    test: Callable[[Plan], Any] | None,
) -> dict[str, int]:
    policy = client_home.policy
    own = data(plan)
    if own is None:
        return {}  # a party without data computes nothing that needs a model
    learner, found = bind(plan), dict[str, int]()
    party = client_home.party
    tested = own_test(party) if isinstance(party, int) else None  # a named party has no test role
    for what, source in {"examples": data, "test examples": test}.items():
        if source is not None:
            examples = own if source is data else source(plan)
            count = count_rows(examples)
            policy.check_data(count)
            if not isinstance(learner, OwnLearners):
                few = examples.take(slice(FEW)) if hasattr(examples, "take") else examples
                learner.objective(learner.init(Key.from_seed(0)), few)
            elif (role := party if source is data else tested) is not None:
                learner.make(role, examples)
            if count is not None:
                found[what] = count
    return found


def waiting_plans(client_home: ClientHome) -> list[SealedPlan]:
    """Returns the plans that servers have sent to this client, the oldest first."""
    found = [path for path in client_home.folder.glob("runs/*/*") if len(path.name) == 64]
    plans = []
    for path in sorted(found, key=lambda path: path.stat().st_mtime):
        with contextlib.suppress(MessageError):  # an earlier version wrote it; its server sends it again
            plans.append(read_plan(path.read_bytes()))
    return plans


def leave(client_home: ClientHome) -> None:
    """Withdraws consent: takes no more work, and tells the server, whose receipt enters the audit log.

    It is done once the receipt is there. If it is cut off before, it can be repeated.

    Raises: Refused, Unreachable: if the server has not confirmed it; InvalidInput: if this client has not
      joined.
    """
    kept = client_home.membership
    if kept is None:
        raise InvalidInput(f"{client_home.folder} has not joined a federation")
    if kept.get("left"):
        return
    client_home.amend(leaving=True)
    try:
        confirmed, receipt = _ask_under_either_key(client_home, Gate.leave)
        _check_receipt(confirmed, "left", kept["id"], "")
    except Refused as refused:
        if not refused.is_proven or refused.code not in ("left", "revoked"):
            raise
        receipt = refused.receipt  # the answer to an earlier request was lost, or its operator was faster
    client_home.audit.write("left", server=kept["url"], id=kept["id"], receipt=receipt)
    client_home.amend(left=True)
    logger.info("event=left server=%s member=%s", kept["url"], kept["id"])


def rotate_key(client_home: ClientHome) -> None:
    """Replaces the key of a membership with a new one. Completes a replacement that was cut off.

    The new key is used once the server's receipt is in the audit log.

    Raises: Refused, Unreachable: if the server has not confirmed it; InvalidInput: if this client has not
      joined.
    """
    client_home.link().close()  # or it has not joined, or has left
    kept, path = client_home.membership or {}, client_home.folder / NEXT_KEY
    new = Identity.at(path)
    request = Rekey(public=new.public, proof=new.prove(kept["id"]))
    confirmed, receipt = _ask_under_either_key(client_home, lambda gate: gate.replace_key(request))
    _check_receipt(confirmed, "rekeyed", kept["id"], new.public)
    client_home.audit.write("rekeyed", id=kept["id"], key=new.public, receipt=receipt)
    path.replace(client_home.folder / KEY)
    client_home.identity = new
    logger.info("event=key-replaced key=%s", new.public[:16])


def _ask_under_either_key(
    client_home: ClientHome, ask: Callable[[Gate], tuple[Receipt, Mapping[str, Any]]]
) -> tuple[Receipt, Mapping[str, Any]]:
    """Asks something under this client's key, else under the one that is to follow it.

    The server may have taken the new key already, and its answer may have been lost.

    Raises: Refused, Unreachable.
    """
    following = client_home.folder / NEXT_KEY
    identities = [client_home.identity, *([Identity.load(following)] if following.exists() else [])]
    for identity in identities:
        gate = Gate(client_home.link(identity), client_home.audit)
        try:
            return ask(gate)
        except Refused as refused:
            if refused.code != "unsigned" or identity is identities[-1]:
                raise
        finally:
            gate.close()
    raise AssertionError("unreachable")


def _check_receipt(receipt: Receipt, what: str, id: str, key: str) -> None:
    if (receipt.what, receipt.id, receipt.key) != (what, id, key):
        raise Refused(502, "answer", f"the server confirms something else: {receipt}")

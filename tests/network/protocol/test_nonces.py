"""A signed request is accepted once, in its time, and by the server for which it was signed."""

import math
from types import SimpleNamespace

import pytest

from hanse.network.protocol import signing
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import SKEW_S, Identity, Verifier, public_key, sha256

CLIENT = Identity.generate()
URL = "https://server/v1/work"
BEGAN = 1_700_000_000.25


class Clock:
    """The one clock of client and server."""

    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(signing, "time", SimpleNamespace(time=clock))
    return clock


def judging(clock: Clock) -> Verifier:
    """A server that has just begun."""
    return Verifier(lambda key_id: public_key(CLIENT.public) if key_id == "c0" else None, clock)


def signed(ahead_s: float = 0.0) -> dict[str, str]:
    """A request that is signed now, by a clock that is ahead."""
    CLIENT.offset_s = ahead_s
    return {name.lower(): text for name, text in CLIENT.sign("c0", "POST", URL, sha256(b"{}")).items()}


def judge(verifier: Verifier, request: dict[str, str]) -> str:
    """Returns "accepted", or the code of the refusal."""
    try:
        verifier.verify("POST", URL, request)
    except Refused as refused:
        return refused.code if refused.status == 401 else str(refused)
    return "accepted"


@pytest.mark.parametrize("ahead_s", [-SKEW_S + 1, 0, SKEW_S])
def test_a_request_is_never_accepted_twice(ahead_s: int, clock: Clock) -> None:
    verifier = judging(clock)
    clock.now += 1000
    request = signed(ahead_s)
    assert judge(verifier, request) == "accepted"
    created = int(clock.now + ahead_s)
    while clock.now < created + SKEW_S:
        clock.now += 1.0
        assert judge(verifier, request) == ("replayed" if clock.now <= created + SKEW_S else "skewed")
        assert judge(verifier, signed()) == "accepted"  # so that old nonces are swept meanwhile
    assert judge(verifier, request) == "skewed"


def test_nonces_are_forgotten_once_their_time_has_passed(clock: Clock) -> None:
    verifier = judging(clock)
    for _ in range(10 * SKEW_S):
        clock.now += 1.0
        assert judge(verifier, signed()) == "accepted"
    assert len(verifier._seen) <= 1.5 * SKEW_S


@pytest.mark.parametrize("off_s", [SKEW_S + 1, -SKEW_S - 1])
def test_a_clock_may_be_off_by_so_much_and_no_more(off_s: int, clock: Clock) -> None:
    verifier = judging(clock)
    clock.now += 1000
    assert judge(verifier, signed(off_s)) == "skewed"
    assert judge(verifier, signed(math.copysign(SKEW_S - 1, off_s))) == "accepted"


def test_nothing_that_was_signed_before_a_restart_is_accepted_after_it(clock: Clock) -> None:
    first = judging(clock)
    clock.now += 100
    requests = [signed(), signed(-1.0), signed(-30.0)]
    assert [judge(first, request) for request in requests] == ["accepted"] * 3
    clock.now += 1.0
    again = judging(clock)  # it knows no nonce
    assert [judge(again, request) for request in requests] == ["skewed"] * 3
    assert judge(again, signed()) == "accepted"


def test_members_do_not_use_up_each_others_nonces(clock: Clock) -> None:
    other = Identity.generate()
    keys = {"c0": public_key(CLIENT.public), "c1": public_key(other.public)}
    verifier = Verifier(keys.get, clock)
    request = signed()
    nonce = request["signature-input"].partition('nonce="')[2].partition('"')[0]
    about = f';keyid="c1";alg="ed25519";nonce="{nonce}";tag="{signing.TAG}"'
    said = ("POST", "/v1/work", "?", signing.content_digest(sha256(b"{}")))
    covered = dict(zip(signing.COMPONENTS, said, strict=True))
    theirs = {
        name.lower(): text for name, text in other._sign_components(covered, clock.now, about).items()
    } | {"content-digest": said[-1]}
    assert judge(verifier, theirs) == "accepted"
    assert judge(verifier, request) == "accepted"
    assert judge(verifier, theirs) == "replayed"

"""Encrypted sums: exact, and nothing but the sum of enough clients is ever decrypted."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from support import KEYS

from hanse.core import (
    HOUSES,
    CompositionError,
    Declined,
    InvalidInput,
    Key,
    Keys,
    Memory,
    MessageError,
    Part,
    PartSpec,
    Shared,
    Spec,
)
from hanse.core.exchange import MIN_COHORT, SIGNER, Signer, digest, pending, sent
from hanse.privacy import KEY_HOLDER, bfv, describe_views, encrypted_mean, encrypted_sum, skellam
from hanse.privacy.encryption.bfv import decrypt, encrypt, make_key_pair
from hanse.privacy.encryption.evidence import add_pads, compute_codes
from hanse.privacy.encryption.messages import HOUSE_BYTES, NAME_BYTES, add_residues, join_primes, unpad
from hanse.privacy.encryption.reducers import SumTerms, decrypt_sum, encrypt_pending, make_keys
from hanse.privacy.secure_sums import make_encoding, secure_sum
from hanse.transforms import clip

SCHEME = bfv()
SUMS = encrypted_sum(3)
TERMS = SUMS.terms
SECRET = Key.from_seed(99)
SPEC = Spec.of({"w": np.zeros(5, np.float32)}, l2_bound=1.0)
ENCODINGS = {"update": make_encoding(SPEC, 32, max_value=None, max_weight=1.0, max_clients=256)}
DRAWS = np.random.default_rng(0)
UPDATES = [Part({"w": DRAWS.uniform(-0.4, 0.4, 5).astype(np.float32)}) for _ in range(4)]


def remember(model: str = "m", into: Any = SUMS) -> tuple[str, str, str]:
    """Says what a client remembers of what it was sent for its update."""
    return digest(model), digest(into), digest(SPEC)


class Round:
    """A holder and four clients, whose messages a server may use as it likes."""

    def __init__(self, *, houses: Key = SECRET) -> None:
        self.holder: Memory = {HOUSES: houses}
        self.clients: list[Memory] = [
            {HOUSES: SECRET, pending("update"): part, sent("update"): remember()} for part in UPDATES
        ]
        self.number = 0

    def make(self, terms: SumTerms = TERMS) -> Mapping[str, Any]:
        emitted, self.holder = make_keys(terms).run(None, Shared({}), None, self.holder, KEYS)
        return emitted["keys"].values

    def send(self, client: int, told: Mapping[str, Any], sums: Any = SUMS) -> tuple[Any, bytes]:
        self.number += 1
        work = encrypt_pending(sums, ENCODINGS)
        keys = Keys.from_seed(1000 + self.number)
        emitted, self.clients[client] = work.run(
            None, Shared({"keys": told}), None, self.clients[client], keys
        )
        return dict(emitted["sum"].values), emitted["names"].values["name"].tobytes()

    def decrypt(self, total: Mapping[str, Any], names: list[bytes], terms: SumTerms = TERMS) -> Any:
        rows = np.frombuffer(b"".join(names), np.uint8).reshape(len(names), -1)
        work = decrypt_sum(terms, 6)
        shared = Shared({"sum": {**total, "names": rows}})
        emitted, self.holder = work.run(None, shared, None, self.holder, KEYS)
        return emitted["total"].values["values"]


def add_up(sent: list[Any]) -> dict[str, Any]:
    reducer = add_residues(SCHEME)
    lifted = [reducer.lift(Part(values)) for values in sent]
    while len(lifted) > 1:
        lifted.append(reducer.merge(lifted.pop(0), lifted.pop(0)))
    return dict(reducer.result(lifted[0]).values)


def sum_plainly(clients: list[int]) -> list[int]:
    rows = [ENCODINGS["update"].encode(UPDATES[i]).view(np.int32).astype(np.int64) for i in clients]
    return [int(number) for number in np.sum(rows, 0)]


def test_the_sum_is_that_of_plain_integers_and_is_decrypted_once() -> None:
    here = Round()
    told = here.make()
    messages, names = zip(*[here.send(i, told) for i in range(4)], strict=True)
    whole = add_up(list(messages))
    assert here.decrypt(whole, list(names)).tolist() == sum_plainly([0, 1, 2, 3])
    assert here.decrypt(whole, list(names)).tolist() == sum_plainly([0, 1, 2, 3])  # the same question
    with pytest.raises(Declined, match="decrypted another sum"):
        here.decrypt(add_up(list(messages[:3])), list(names[:3]))


Attack = Callable[[list[Any], list[bytes]], tuple[Any, list[bytes]]]

ATTACKS: dict[str, tuple[Attack, str]] = {
    "one message alone": (lambda sent, names: (sent[0], names[:1]), "a sum of 1 clients; at least 3"),
    "one message as that of three": (lambda sent, names: (sent[0], names[:3]), "not the sum of the messages"),
    "one message three times": (
        lambda sent, names: (add_up([sent[0]] * 3), names[:1] * 3),
        "a sum of 1 clients; at least 3",
    ),
    "one message and two invented clients": (
        lambda sent, names: (sent[0], [names[0], bytes(32) + names[0][32:], b"\1" * 32 + names[0][32:]]),
        "not the sum of the messages",
    ),
    "one client left out": (lambda sent, names: (add_up(sent[:3]), names), "not the sum of the messages"),
    "one client twice": (
        lambda sent, names: (add_up([*sent[:3], sent[0]]), names[:3]),
        "not the sum of the messages",
    ),
    "a code of others": (
        lambda sent, names: (
            {n: add_up(sent[:3])[n] if n.startswith("codes") else sent[0][n] for n in sent[0]},
            names[:3],
        ),
        "not the sum of the messages",
    ),
    "a single number changed": (
        lambda sent, names: ({**(s := add_up(sent)), "residues/1": _increase(s["residues/1"])}, names),
        "not the sum of the messages",
    ),
}


def _increase(residues: Any) -> Any:
    changed = residues.copy()
    changed[0, 1, 4000] ^= 1
    return changed


@pytest.mark.parametrize(("attack", "why"), list(ATTACKS.values()), ids=list(ATTACKS))
def test_a_server_that_wants_anything_but_the_sum_of_enough_clients_is_refused(
    attack: Attack, why: str
) -> None:
    here = Round()
    told = here.make()
    messages, names = zip(*[here.send(i, told) for i in range(4)], strict=True)
    with pytest.raises(MessageError, match=why):
        here.decrypt(*attack([dict(one) for one in messages], list(names)))
    assert here.decrypt(add_up(list(messages)), list(names)).tolist() == sum_plainly([0, 1, 2, 3])


def test_a_house_counts_once_in_whatever_roles_it_answers() -> None:
    """A client and its own test examples are two parties with memories of their own, and one house."""
    here = Round()
    told = here.make()
    houses = [Signer(bytes([i]) * 32, b"", b"") for i in range(4)]
    for i in range(4):
        here.clients[i] = {**here.clients[i], SIGNER: houses[min(i, 2)]}
    messages, names = zip(*[here.send(i, told) for i in range(4)], strict=True)
    with pytest.raises(MessageError, match="a sum of 2 clients; at least 3"):
        here.decrypt(add_up(list(messages[1:])), list(names[1:]))
    assert here.decrypt(add_up(list(messages[:3])), list(names[:3])).tolist() == sum_plainly([0, 1, 2])


def test_terms_and_keys_of_the_server_are_refused() -> None:
    here, lower = Round(), SumTerms(SCHEME, 2, 256)
    told = here.make()
    with pytest.raises(Declined, match="for a sum of other settings"):
        here.send(0, told, encrypted_sum(2))  # clients are told less than what they trained for
    here.clients[0] = {**here.clients[0], sent("update"): remember(into=encrypted_sum(2))}
    with pytest.raises(MessageError, match="not vouched for"):
        here.send(0, told, encrypted_sum(2))  # and less than the holder
    here.clients[0] = {**here.clients[0], sent("update"): remember()}
    messages, names = zip(*[here.send(i, told) for i in range(2)], strict=True)
    with pytest.raises(MessageError, match="told other terms"):
        here.decrypt(add_up(list(messages)), list(names), lower)  # and the holder less than the clients
    stranger = Round(houses=Key.from_seed(1))
    with pytest.raises(MessageError, match="not vouched for"):
        here.send(2, stranger.make())
    with pytest.raises(InvalidInput, match=r"houses\.key"):
        make_keys(TERMS).run(None, Shared({}), None, {}, KEYS)
    with pytest.raises(Declined, match="holds no keys"):
        Round().decrypt(messages[0], list(names))


def test_nothing_is_encrypted_for_a_second_sum_unless_the_first_was_never_decrypted() -> None:
    here = Round()
    told = here.make()
    first = [here.send(i, told) for i in range(4)]
    again = here.make()  # the first attempt was abandoned
    second = [here.send(i, again) for i in range(4)]
    assert second[0][1][:HOUSE_BYTES] != first[0][1][:HOUSE_BYTES]
    with pytest.raises(MessageError, match="not the sum"):
        here.decrypt(add_up([s for s, _ in first]), [n for _, n in first])  # these keys are gone
    here.decrypt(add_up([s for s, _ in second]), [n for _, n in second])
    third = here.make()
    with pytest.raises(Declined, match="the same under other keys"):
        here.send(0, third)
    forged = {**third, "unused": np.frombuffer(sha256(b"").digest() * 16, np.uint8).reshape(16, 32)}
    with pytest.raises(MessageError, match="not vouched for"):
        here.send(0, forged)
    here.clients[1] = {**here.clients[1], pending("update"): UPDATES[0]}
    here.send(1, third)
    here.clients[1] = {**here.clients[1], pending("update"): UPDATES[2]}
    with pytest.raises(Declined, match="something else under the same keys"):
        here.send(1, third)


def test_a_message_that_is_computed_twice_tells_nothing_of_the_function_and_counts_once() -> None:
    here = Round()
    told = here.make()
    (one, name), (two, other) = here.send(0, told), here.send(0, told)
    assert (name[:HOUSE_BYTES], len(name)) == (other[:HOUSE_BYTES], NAME_BYTES)
    (residues, codes), (others, other_codes) = join_primes(one), join_primes(two)
    assert not np.array_equal(residues, others)  # encryption draws anew
    primes = np.array(SCHEME.primes, object)
    between = (residues.astype(object) - others.astype(object)) % primes[:, None]
    session = TERMS.open_session(here.holder, unpad(told["public"]))
    function = compute_codes(SCHEME, session, between.astype(np.uint64)).astype(object)
    assert not ((codes.astype(object) - other_codes.astype(object) - function) % primes == 0).any()
    messages, names = zip(*[here.send(i, told) for i in (1, 2)], strict=True)
    with pytest.raises(MessageError, match="a sum of 3 clients"):
        here.decrypt(add_up([one, two, *messages]), [name, other, *names])
    with pytest.raises(MessageError, match="not the sum of the messages"):
        here.decrypt(add_up([one, *messages]), [other, *names])
    assert here.decrypt(add_up([two, *messages]), [other, *names]).tolist() == sum_plainly([0, 1, 2])


def test_codes_are_linear_functions_and_pads_hide_them() -> None:
    public, secret = make_key_pair(SCHEME)
    values = np.array([0, 1, -1, SCHEME.most, -SCHEME.most])
    residues = encrypt(SCHEME, public, values)
    assert decrypt(SCHEME, secret, residues)[:5].tolist() == values.tolist()
    assert not np.array_equal(encrypt(SCHEME, public, values), residues)
    factors = SECRET.fold_in("function", 1).secret_rng().integers(2**32, (2, 2 * SCHEME.degree), np.uint32)
    for f in range(2):
        numbers = zip(factors[f].tolist(), residues[0][:, 1].reshape(-1).tolist(), strict=True)
        expected = int(np.sum([a * b for a, b in numbers], dtype=object)) % SCHEME.primes[1]
        assert compute_codes(SCHEME, SECRET, residues)[f, 1] == expected
    above = residues.copy()
    above[0, 0, 0, 0] |= np.uint64(1 << 60)
    with pytest.raises(MessageError, match="not below the prime"):
        compute_codes(SCHEME, SECRET, above)
    codes = compute_codes(SCHEME, SECRET, residues)
    padded = add_pads(SCHEME, SECRET, codes, [b"a" * 16])
    assert not (padded == codes).any()
    assert not (padded == add_pads(SCHEME, SECRET, codes, [b"b" * 16])).any()
    assert (join_primes({"residues/0": residues[:, :, 0], "codes/0": codes[:, 0]})[1] == codes[:, :1]).all()


@pytest.mark.parametrize(
    ("make", "error", "why"),
    [
        (lambda: bfv(4096), InvalidInput, "128-bit security allows 109 bits.*write degree=8192"),
        (lambda: bfv(8192, (60, 60, 60, 60)), InvalidInput, "is not secure"),
        (lambda: bfv(5000), InvalidInput, "degree is 5000; write one of"),
        (lambda: bfv(8192, (60, 60)), InvalidInput, "of the primes .* for noise"),
        (lambda: bfv(8192, (60,)), InvalidInput, "two or more sizes"),
        (lambda: encrypted_sum(1), InvalidInput, "a sum of one is a single message"),
        (lambda: encrypted_sum(3, key_holder="server"), InvalidInput, "must not hold the key"),
        (lambda: encrypted_sum(3, key_holder="test/0"), InvalidInput, "nor a role of a client"),
        (lambda: encrypted_sum(3, key_holder=""), InvalidInput, "the name of a party of its own"),
        (lambda: encrypted_sum(3, max_cohort=2), InvalidInput, "max_cohort is 2"),
        (
            lambda: PartSpec(Spec.of({"w": np.zeros(2)}), (), encrypted_sum(3)).chain(),
            CompositionError,
            "clip",
        ),
        (
            lambda: PartSpec(SPEC, (skellam(1.0, 3),), encrypted_mean(3)).chain(),
            CompositionError,
            "use encrypted_sum",
        ),
        (lambda: encrypted_sum(3).check_number(2), CompositionError, "no sum of fewer than 3 clients"),
    ],
)
def test_unsafe_parameters_are_refused(make: Callable[[], Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        make()


def test_views_say_who_sees_what() -> None:
    spec = Spec.of({"w": np.zeros(2)})
    views = {v.who: v.sees for v in describe_views(PartSpec(spec, (clip(1.0),), encrypted_sum(4)))}
    assert "at least 4 clients, and no single message" in views["the server"]
    assert "unless it works with key_holder or with a client" in views["the server"]
    trusted = describe_views(PartSpec(spec, (clip(1.0),), secure_sum(colluders=0.2)))[0].sees
    assert "no single message, if it is honest but curious" in trusted
    assert "at most 0.2 of a sum's clients work with it" in trusted
    listed = describe_views(PartSpec(spec, (clip(1.0),), secure_sum(roster=("ab" * 32, "cd" * 32))))[0].sees
    assert "no single message, if at most 0.1 of the roster's members work with it" in listed
    assert "together with the server, single messages" in views[KEY_HOLDER]
    assert "no noise limits" in views["the world"]
    assert "not even that it is clipped" in views["nobody"]
    noised = {
        v.who: v.sees for v in describe_views(PartSpec(spec, (clip(1.0), skellam(1.0, 4)), encrypted_sum(4)))
    }
    assert "with the noise of 4 or more in it" in noised["the server"]
    assert noised["the world"].endswith("; noise limits what these tell of a client")


def test_clients_that_were_sent_different_models_are_not_added_up() -> None:
    """Else the server could send all but one such a model that their updates are 0."""
    here = Round()
    told = here.make()
    here.clients[2] = {**here.clients[2], sent("update"): remember("another model")}
    messages, names = zip(*[here.send(i, told) for i in range(4)], strict=True)
    with pytest.raises(MessageError, match="were sent different models"):
        here.decrypt(add_up(list(messages)), list(names))
    hidden = [*names[:2], names[2][:32] + names[0][32:], names[3]]  # a server that hides it knows no pad
    with pytest.raises(MessageError, match="not the sum of the messages"):
        here.decrypt(add_up(list(messages)), hidden)


def test_the_scale_of_an_encrypted_sum_is_that_of_its_settings() -> None:
    here, encoding = Round(), ENCODINGS["update"]
    for lie in (replace(encoding, fraction_bits=-300), replace(encoding, weight_bits=3)):
        work, told = encrypt_pending(SUMS, {"update": lie}), Shared({"keys": here.make()})
        with pytest.raises(Declined, match="to write 'update' in another way"):
            work.run(None, told, None, here.clients[0], KEYS)


def test_an_owner_wants_more_clients_in_a_sum_than_it_takes() -> None:
    here = Round()
    here.clients[0] = {**here.clients[0], MIN_COHORT: 4}
    with pytest.raises(Declined, match="wants 4 clients in a total, and this sum takes 3"):
        here.send(0, here.make())

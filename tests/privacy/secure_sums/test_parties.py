"""Shares, masks and encodings, each against an independent computation."""

import hashlib
import hmac
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hanse.core import (
    CompositionError,
    Declined,
    InvalidInput,
    Key,
    Part,
    RoundAbandoned,
    Spec,
    TensorSpec,
    mean,
    reduce,
    sum,
)
from hanse.privacy.secure_sums import (
    advertise,
    deal,
    draw_secrets,
    encode_parts,
    make_encoding,
    mask,
    reveal,
    secure_mean,
    secure_sum,
    split_total,
    unmask,
)
from hanse.privacy.secure_sums.masks import WEAK, derive_key, is_weak, read_secret, seal, unseal
from hanse.privacy.secure_sums.shamir import PRIME, join_shares, make_shares

KEY = Key.from_seed(9)


def draw(name: str):
    return KEY.fold_in(name).secret_rng().bytes


def test_any_t_shares_reveal_a_secret_and_fewer_fit_any() -> None:
    secret = bytes(range(32))
    shares = dict(zip((0, 1, 4, 9), make_shares(secret, (0, 1, 4, 9), 3, draw("s")), strict=True))
    for some in combinations(shares, 3):
        assert join_shares({holder: shares[holder] for holder in some}) == secret
    assert join_shares({holder: shares[holder] for holder in (0, 1)}) != secret
    # Two shares fit any secret: one more share makes them so, and it is found by interpolation at 0, 1 and 2.
    x, y = (1, 2), [int.from_bytes(shares[holder], "big") for holder in (0, 1)]
    other = 12345
    slope = [(value - other) * pow(at, -1, PRIME) % PRIME for at, value in zip(x, y, strict=True)]
    square = (slope[1] - slope[0]) % PRIME
    linear = (slope[0] - square) % PRIME
    third = ((other + linear * 5 + square * 25) % PRIME).to_bytes(32, "big")
    assert int.from_bytes(join_shares({0: shares[0], 1: shares[1], 4: third}), "big") == other
    with pytest.raises(ValueError, match="below the prime"):
        make_shares(b"\xff" * 32, (0, 1), 2, draw("s"))


def test_keys_follow_the_published_standards() -> None:
    """HKDF is written with HMAC alone, as in RFC 5869, and the common secret is computed at the other end."""
    alice = b"\x11" * 32
    bob = X25519PrivateKey.from_private_bytes(b"\x22" * 32)
    theirs = bob.public_key().public_bytes_raw()
    common = bob.exchange(
        X25519PublicKey.from_public_bytes(read_secret(alice).public_key().public_bytes_raw())
    )
    extracted = hmac.new(bytes(32), common, hashlib.sha256).digest()
    expected = hmac.new(extracted, b"what for\x01", hashlib.sha256).digest()
    assert derive_key(read_secret(alice), theirs, b"what for") == expected
    assert derive_key(read_secret(alice), theirs, b"what else") != expected


def test_keys_with_which_all_agree_on_nothing_are_known() -> None:
    """The library refuses the same keys; the highest bit counts for nothing (RFC 7748)."""
    for key in WEAK:
        for weak in (key, key[:-1] + bytes([key[-1] | 0x80])):
            assert is_weak(weak)
            with pytest.raises(ValueError, match="shared key"):
                derive_key(read_secret(b"\x11" * 32), weak, b"what for")
    honest = read_secret(b"\x11" * 32).public_key().public_bytes_raw()
    assert not is_weak(honest)
    assert is_weak(honest[:-1] + bytes([honest[-1] | 0x80])), "the same key in other bytes"


def test_sealed_messages_open_under_their_key_alone() -> None:
    sealed = seal(b"k" * 32, b"shares")
    assert unseal(b"k" * 32, sealed) == b"shares"
    assert unseal(b"j" * 32, sealed) is None
    assert unseal(b"k" * 32, sealed[:-1] + bytes([sealed[-1] ^ 1])) is None


def adverts_of(secrets: list[bytes]) -> dict[int, bytes]:
    return {seat: advertise(one) for seat, one in enumerate(secrets)}


def without(adverts: dict[int, bytes], seat: int) -> dict[int, bytes]:
    return {other: advert for other, advert in adverts.items() if other != seat}


@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_masks_are_those_of_the_paper_and_cancel(dtype: str) -> None:
    """A mask of the seed and of each pair, by another implementation of AES in counter mode; odd sizes."""
    secrets = [draw_secrets(draw(f"client {seat}")) for seat in range(3)]
    adverts, size = adverts_of(secrets), 70_001
    masked = []
    for seat, own in enumerate(secrets):
        vector = np.full(size, seat, dtype)
        mask(vector, b"round", own, seat, without(adverts, seat))
        masked.append(vector)
    assert all(
        np.mean(vector > np.iinfo(dtype).max // 2) == pytest.approx(0.5, abs=0.02) for vector in masked
    )
    total = masked[0] + masked[1] + masked[2]
    for own in secrets:
        stream = Cipher(algorithms.AES(own[64:80]), modes.CTR(own[80:])).encryptor()
        total -= np.frombuffer(stream.update(bytes(size * np.dtype(dtype).itemsize)), dtype)
    assert np.array_equal(total, np.full(size, 3, dtype))


def test_masks_differ_by_round() -> None:
    secrets = [draw_secrets(draw(f"client {seat}")) for seat in range(2)]
    vectors = []
    for round in (b"1", b"2"):
        vector = np.zeros(8, np.uint32)
        mask(vector, round, secrets[0], 0, {1: advertise(secrets[1])})
        vectors.append(vector)
    assert not np.array_equal(*vectors)


def test_shares_that_do_not_fit_are_noticed() -> None:
    secrets = [draw_secrets(draw(f"client {seat}")) for seat in range(3)]
    adverts = adverts_of(secrets)
    dealt = [deal(b"r", own, seat, without(adverts, seat), 2) for seat, own in enumerate(secrets)]
    total = np.zeros(4, np.uint32)
    for seat in (0, 1):
        vector = np.full(4, 5, np.uint32)
        mask(vector, b"r", secrets[seat], seat, without(adverts, seat))
        total += vector
    partners = {seat: [other for other in range(3) if other != seat] for seat in range(3)}

    def revealed(**changes: bytes) -> dict[int, dict[int, bytes]]:
        shares = {}
        for seat in (0, 1):
            mail = {other: dealt[other].sealed[seat] for other in partners[seat]}
            shares[seat] = reveal(dealt[seat].opening, mail, seat, dealt[seat].kept, {0, 1})
        shares[1] |= {int(name[1:]): share for name, share in changes.items()}
        return shares

    for wrong in ({"s0": b"\x01" * 32}, {"s2": b"\x01" * 32}):
        with pytest.raises(RoundAbandoned, match="do not fit what it advertised"):
            unmask(total.copy(), b"r", adverts, partners, {0, 1}, revealed(**wrong), 2)
    with pytest.raises(RoundAbandoned, match="1 clients revealed a share of the client at seat 2, and 2"):
        unmask(total.copy(), b"r", adverts, partners, {0, 1}, revealed(s2=b"\xff" * 32), 2)
    unmask(total, b"r", adverts, partners, {0, 1}, revealed(), 2)
    assert total.tolist() == [10] * 4


def lead_to_the_end(num: int, needed: int) -> tuple[Any, dict[int, bytes], Any, dict[int, dict[int, bytes]]]:
    """Lets all clients send 5, and returns total, adverts, partners and what they reveal."""
    secrets = [draw_secrets(draw(f"client {seat}")) for seat in range(num)]
    adverts = adverts_of(secrets)
    dealt = [deal(b"r", own, seat, without(adverts, seat), needed) for seat, own in enumerate(secrets)]
    total = np.zeros(4, np.uint32)
    for seat in range(num):
        vector = np.full(4, 5, np.uint32)
        mask(vector, b"r", secrets[seat], seat, without(adverts, seat))
        total += vector
    partners = {seat: [other for other in range(num) if other != seat] for seat in range(num)}
    revealed = {}
    for seat in range(num):
        mail = {other: dealt[other].sealed[seat] for other in partners[seat]}
        revealed[seat] = reveal(dealt[seat].opening, mail, seat, dealt[seat].kept, set(range(num)))
    return total, adverts, partners, revealed


@pytest.mark.parametrize("liars", [(0,), (3,), (0, 1), (2, 5)])
def test_wrong_shares_of_one_or_two_do_not_end_a_sum(liars: tuple[int, ...]) -> None:
    total, adverts, partners, revealed = lead_to_the_end(7, 4)
    for liar in liars:
        revealed[liar] = {seat: bytes([liar + 1]) * 32 for seat in revealed[liar]}
    unmask(total, b"r", adverts, partners, set(range(7)), revealed, 4)
    assert total.tolist() == [35] * 4


@pytest.mark.parametrize("liars", [(0, 1, 2), (0, 1, 2, 3)])
def test_more_wrong_shares_end_a_sum_and_the_message_names_the_client(liars: tuple[int, ...]) -> None:
    total, adverts, partners, revealed = lead_to_the_end(7, 4)
    for liar in liars:
        revealed[liar] = {seat: bytes([liar + 1]) * 32 for seat in revealed[liar]}
    with pytest.raises(RoundAbandoned, match="the shares of client 10 do not fit what it advertised"):
        unmask(total, b"r", adverts, partners, set(range(7)), revealed, 4, parties=range(10, 17))


@pytest.mark.parametrize("kind", ["weight", "numbers", "negative"])
def test_a_total_that_no_clients_can_have_made_ends_the_round(kind: str) -> None:
    encoding = make_encoding(REAL, 64, max_value=1.0, max_weight=2.0, max_clients=10**6)
    part = Part({"a": np.ones((2, 3), "f4"), "b": np.float32(1.0)}, 2.0)
    whole = encode_parts({"u": encoding}, {"u": part})
    at_most = split_total({"u": encoding}, whole + whole, 2)["u"]
    assert at_most[1] == 4.0
    assert at_most[0]["b"] == pytest.approx(4.0)
    wrong = whole + whole
    wrong[{"weight": -1, "numbers": 0, "negative": -1}[kind]] += {
        "weight": np.uint64(2 ** (encoding.weight_bits + 1)),
        "numbers": np.uint64(2 ** (encoding.fraction_bits + 1)),
        "negative": np.uint64(-5 * 2**encoding.weight_bits % 2**64),
    }[kind]
    with pytest.raises(RoundAbandoned, match="a client sent wrong numbers"):
        split_total({"u": encoding}, wrong, 2)


def test_shares_follow_from_the_keys_of_a_sum() -> None:
    """AES-GCM is used once with a key: a client that deals twice must not seal other shares."""
    secrets = [draw_secrets(draw(f"client {seat}")) for seat in range(4)]
    adverts = without(adverts_of(secrets), 0)
    dealt = deal(b"r", secrets[0], 0, adverts, 3)
    assert dealt == deal(b"r", secrets[0], 0, adverts, 3)
    assert dealt.kept != deal(b"s", secrets[0], 0, adverts, 3).kept
    # Coefficients are those of one number of shares, and of these holders: two polynomials tell the secret.
    two, three = deal(b"r", secrets[0], 0, adverts, 2).kept, dealt.kept
    fewer = {seat: advert for seat, advert in adverts.items() if seat != max(adverts)}
    assert two != deal(b"r", secrets[0], 0, fewer, 2).kept
    own, (masking, seed), more = (
        [int.from_bytes(kept[at : at + 32], "big") for at in (0, 32)]
        for kept in (secrets[0][32:], two, three)
    )
    assert (more[0] - masking) % PRIME != (seed - own[1]) % PRIME  # with one stream, both are its second draw
    assert dealt.kept != deal(b"r", draw_secrets(draw("another")), 0, adverts, 3).kept
    shares = {0: dealt.kept}
    for other in adverts:
        peer = deal(b"r", secrets[other], other, without(adverts_of(secrets), other), 3)
        shares[other] = unseal(peer.opening[0], dealt.sealed[other]) or b""
    for some in combinations(shares, 3):
        for begin, secret in ((0, secrets[0][32:64]), (32, secrets[0][64:])):
            assert join_shares({holder: shares[holder][begin : begin + 32] for holder in some}) == secret
    pair = {holder: shares[holder][:32] for holder in (0, 1)}
    assert join_shares(pair) != secrets[0][32:64]  # the coefficients are not all zero


def test_a_share_that_can_not_be_opened_is_missing() -> None:
    assert reveal({1: b"k" * 32}, {1: b"rubbish" * 12}, 0, b"a" * 32 + b"b" * 32, {0, 1}) == {
        1: b"\xff" * 32,
        0: b"b" * 32,
    }


REAL = Spec({"b": TensorSpec((), "float32"), "a": TensorSpec((2, 3), "float32")}, l2_bound=1.0)


def test_no_sum_of_all_clients_wraps() -> None:
    for bits, most in ((32, 1.0), (64, 1e6)):
        encoding = make_encoding(REAL, bits, max_value=None, max_weight=most, max_clients=1000)
        for sign in (-1, 1):
            largest = Part({"b": np.float32(sign), "a": np.full((2, 3), sign, np.float32)}, most)
            one = encoding.encode(largest).view(f"int{bits}")
            assert [abs(int(number)) * 1000 < 2 ** (bits - 1) for number in one] == [True] * 8
        finer = 2 * int(most * 1.001 * 2**encoding.fraction_bits + 1) * 1000
        assert finer >= 2 ** (bits - 1), "one more bit could wrap"


def test_sums_of_encodings_are_sums_to_within_half_a_step_each() -> None:
    specs = {"u": REAL, "n": Spec({"n": TensorSpec((2,), "int64")}, kind="table")}
    encodings = {
        name: make_encoding(spec, 64, max_value=2.0**30, max_weight=10.0, max_clients=10**6)
        for name, spec in specs.items()
    }
    rng, whole, exact = np.random.default_rng(0), 0, {"a": 0.0, "b": 0.0, "n": 0, "w": 0.0}
    for number in range(10):
        part = Part({"a": rng.normal(size=(2, 3)).astype("f4") / 3, "b": np.float32(-0.5)}, 0.1 * number)
        count = Part({"n": np.array([2**20 + number, -number])}, 1.0)
        whole = whole + encode_parts(encodings, {"u": part, "n": count})
        exact["a"] += part.weight * part.values["a"].astype("f8")
        exact["b"] += part.weight * float(part.values["b"])
        exact["n"] += count.values["n"]
        exact["w"] += part.weight
    found = split_total(encodings, whole, 10)
    step = 2.0 ** -encodings["u"].fraction_bits
    assert np.abs(found["u"][0]["a"] - exact["a"]).max() <= 5 * step
    assert abs(found["u"][0]["b"] - exact["b"]) <= 5 * step
    assert found["u"][1] == pytest.approx(exact["w"], abs=1e-9)
    assert found["n"][0]["n"].tolist() == exact["n"].tolist()
    assert found["n"][1] == 10


@pytest.mark.parametrize("into", [secure_sum, secure_mean])
@pytest.mark.parametrize("weights", [(0.4, 0.4, 0.8), (3.0, 1.0, 2.0)])
def test_weights_of_integers_may_be_fractions(into: Any, weights: tuple[float, ...]) -> None:
    """The total is that of the plain reducer: also below 1, and in its dtype if weights are whole."""
    spec = Spec({"n": TensorSpec((2,), "int64")})
    encoding = into(max_value=1e6).make_encoding(spec)
    parts = [Part({"n": np.array([1, -number])}, weight) for number, weight in enumerate(weights)]
    values, weight = encoding.decode(np.sum([encoding.encode(part) for part in parts], axis=0))
    plain = reduce(sum() if into is secure_sum else mean(), parts)
    found = into(max_value=1e6).finish(spec, values, weight, 3).values["n"]
    np.testing.assert_allclose(found, plain.values["n"], rtol=0, atol=2.0 ** -(encoding.fraction_bits - 3))
    if weights[0] == 3:
        assert np.array_equal(found, plain.values["n"])
        assert found.dtype == ("int64" if into is secure_sum else "float64")


@pytest.mark.parametrize("bits", [32, 64])
def test_no_sum_of_integers_wraps(bits: int) -> None:
    spec, most = Spec({"n": TensorSpec((1,), "int64")}), {32: (4, 2**10), 64: (2**19, 2**30)}[bits]
    weight, largest = most
    encoding = make_encoding(spec, bits, max_value=largest, max_weight=weight, max_clients=1000)
    assert encoding.fraction_bits >= 0
    for sign in (-1, 1):
        one = encoding.encode(Part({"n": np.array([sign * largest])}, float(weight)))
        values, total = encoding.decode(one * one.dtype.type(1000))
        assert (int(values["n"][0]), total) == (sign * 1000 * weight * largest, 1000 * weight)
    for beyond in ({"max_weight": 2**12 * weight}, {"max_value": 2**12 * largest}, {"max_clients": 2**22}):
        given = {"max_value": largest, "max_weight": weight, "max_clients": 1000, **beyond}
        with pytest.raises(CompositionError, match=r"'n' holds integers up to .* do not fit into"):
            make_encoding(spec, bits, **given)


@pytest.mark.parametrize(
    ("dtype", "number", "is_taken"),
    [
        ("int8", -128, False),
        ("int64", -(2**63), False),
        ("uint64", 2**64 - 1, False),
        ("uint8", 1, True),
        ("int8", -100, True),
        ("float32", float("nan"), False),
    ],
)
def test_the_ends_of_a_dtype_do_not_pass_the_bound(dtype: str, number: float, is_taken: bool) -> None:
    spec = Spec({"n": TensorSpec((1,), dtype)})
    encoding = make_encoding(spec, 64, max_value=100.0, max_weight=10.0, max_clients=10)
    part = Part({"n": np.array([number], dtype)})
    if is_taken:
        assert encoding.decode(encoding.encode(part))[0]["n"].tolist() == [number]
        return
    with pytest.raises(Declined, match=r"'n' is not within \+-100, for which"):
        encoding.encode(part)


def test_integers_of_a_ring_pass_through() -> None:
    spec = Spec({"r": TensorSpec((3,), "uint32")}, kind="ring")
    encoding = make_encoding(spec, 32, max_value=None, max_weight=1.0, max_clients=10)
    numbers = np.array([1, 2**32 - 1, 2**31], np.uint32)
    values, weight = encoding.decode(
        encoding.encode(Part({"r": numbers})) + encoding.encode(Part({"r": numbers}))
    )
    assert values["r"].tolist() == [2, 2**32 - 2, 0]
    assert values["r"].dtype == np.uint32
    assert weight == 2
    with pytest.raises(Declined, match="weights of 1"):
        encoding.encode(Part({"r": numbers}, 2.0))
    with pytest.raises(CompositionError, match="write bits=32"):
        make_encoding(spec, 64, max_value=None, max_weight=1.0, max_clients=10)


def test_numbers_beyond_the_scale_are_refused() -> None:
    encoding = make_encoding(REAL, 64, max_value=None, max_weight=3.0, max_clients=10)

    def part(number: float, weight: float = 1.0) -> Part:
        return Part({"b": np.float32(number), "a": np.zeros((2, 3), np.float32)}, weight)

    encoding.encode(part(1.0005))  # a clipped message may be longer by its rounding
    for number in (1.01, -1.01, float("nan"), float("inf")):
        with pytest.raises(Declined, match="a number in 'b' is not within"):
            encoding.encode(part(number))
    for weight in (3.5, -1.0, float("nan")):
        with pytest.raises(Declined, match="weights from 0 to 3"):
            encoding.encode(part(0.0, weight))


@pytest.mark.parametrize(
    ("spec", "changes", "match"),
    [
        (Spec({"x": TensorSpec((2,), "float32")}), {}, r"put clip\(...\) into uplink, or write max_value"),
        (REAL, {"max_weight": 1e6, "bits": 32}, "write bits=64, a smaller max_weight"),
        (REAL, {"bits": 16}, "write 32 or 64"),
        (Spec({"x": TensorSpec(("n",), "float32")}), {}, "one fixed shape"),
        (Spec({"x": TensorSpec((2,), "bool")}), {}, "emit it as int64"),
        (Spec({"x": TensorSpec((2,), "uint8")}, kind="coded"), {}, "these are coded"),
        (Spec({"x": TensorSpec((2,), "float32")}, summable=False), {}, "different at each client"),
    ],
)
def test_what_can_not_be_summed_is_refused(spec: Spec, changes: dict[str, float], match: str) -> None:
    given = {"bits": 64, "max_weight": 1.0, **changes}
    with pytest.raises((CompositionError, InvalidInput), match=match):
        make_encoding(
            spec, int(given["bits"]), max_value=None, max_weight=given["max_weight"], max_clients=100
        )

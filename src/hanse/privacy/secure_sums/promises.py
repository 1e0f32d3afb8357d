"""The memory of a client in a secure sum, with which it compares what it is asked."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from hanse.core import PROMISED, VOLATILE, Array, CompositionError, Declined, Memory, Shared, Spec
from hanse.core.exchange import MIN_COHORT, PLAN_DIGEST, digest, sent
from hanse.privacy.secure_sums.masks import is_weak
from hanse.privacy.secure_sums.ring import Encoding
from hanse.privacy.secure_sums.shamir import SHARE_BYTES
from hanse.privacy.secure_sums.thresholds import FEWEST_CLIENTS, Thresholds

__all__ = [
    "NAME_BYTES",
    "TOLD_BYTES",
    "answer_once",
    "bind_adverts",
    "bind_round",
    "check_survivors",
    "find_peers",
    "hash_adverts",
    "hash_arrays",
    "hash_told",
    "name_own",
    "promise",
    "recall",
    "to_rows",
    "view_bytes",
]

ANSWERED = f"{PROMISED}{PROMISED}secure sums"
"""The name in memory of what a client has helped to unmask in a run: digests of it, and of who was in it."""

NAME_BYTES = 16
"""The bytes of a digest that names something."""

TOLD_BYTES = 32
"""The bytes of the digest of all that the clients of a sum must have been told alike."""


class Terms(Protocol):
    """A reducer that says by itself how a part is written as integers."""

    def make_encoding(self, spec: Spec) -> Encoding:
        """Chooses how a part is written as integers."""


def name_own(round: str, what: str) -> str:
    """Names what a client keeps of one sum until its round is over."""
    return f"{VOLATILE}secure sum/{round}/{what}"


def recall(memory: Memory, round: str, what: str) -> Any:
    """Returns what a client kept of a sum. Raises: Declined: if it was not asked for that before."""
    try:
        return memory[name_own(round, what)]
    except KeyError:
        raise Declined(f"it is asked to go on with a sum of which it knows no {what}") from None


def bind_round(round: str, told: bytes) -> bytes:
    """Returns the bytes that bind keys to a round, and to what its clients were told."""
    return round.encode() + told


def bind_adverts(bound: bytes, thresholds: Thresholds, adverts: bytes) -> bytes:
    """Binds keys to all that is advertised in a sum, if each client is sent all of it.

    Else a server could lend a client peers of another sum of the same round, whose keys were revealed there.

    Args:
      bound: the result of `bind_round`.
      adverts: the result of `hash_adverts`.
    """
    return bound + adverts if thresholds.is_complete else bound


def hash_told(sums: Terms, encodings: Mapping[str, Encoding], memory: Memory) -> bytes:
    """Hashes all that the clients of a sum must have been told alike.

    This is the run's plan, what they made their parts of, and how they add them up. Of clients that were sent
    different models, the total can be the update of one of them.

    Raises: Declined: if these parts were not made for this sum, or not for it alone, or are to be written in
      another way.
    """
    found, kept = [], {name: memory[name] for name in memory if name.startswith(sent(""))}
    for name, encoding in sorted(encodings.items()):
        whole, into, spec = memory.get(sent(name), ("", "", ""))
        if not whole:
            raise Declined(f"it is asked to add up {name!r}, of which it holds nothing back")
        if into != digest(sums):
            raise Declined(f"it has made {name!r} for a sum of other settings than {sums}")
        if spec != digest(encoding.spec) or not _is_own(sums, encoding):
            raise Declined(f"it is asked to write {name!r} in another way than {sums} does")
        beside = {n.removeprefix(sent("")) for n, held in kept.items() if held[:2] == (whole, into)}
        if not beside <= encodings.keys():  # in another sum, with other parts, it could be of other clients
            raise Declined(f"it is asked to add up {name!r} without {sorted(beside - encodings.keys())}")
        found.append((name, whole, encoding))
    return bytes.fromhex(digest((sums, tuple(found), memory.get(PLAN_DIGEST, ""))))


def _is_own(sums: Terms, encoding: Encoding) -> bool:
    try:
        return encoding == sums.make_encoding(encoding.spec)
    except CompositionError:
        return False


def promise(memory: Memory, round: str, what: str, asked: bytes) -> Memory:
    """Keeps the promise to answer nothing else in this phase. Raises: Declined: if it did before."""
    name = f"{PROMISED}secure sum/{round}/{what}"
    if memory.get(name, asked) != asked:
        raise Declined(f"it has answered in this sum already, for other {what}")
    return {**memory, name: asked}


def answer_once(memory: Memory, digest: bytes, who: bytes) -> Memory:
    """Notes what is unmasked, and with whom. Raises: Declined: if the same was unmasked with others before.

    Two totals that differ by one client show what this client sent.
    """
    answered = memory.get(ANSWERED, np.empty((0, 2 * NAME_BYTES), np.uint8))
    row = digest[:NAME_BYTES] + who[:NAME_BYTES]
    known = set(map(bytes, answered))
    if row in known:
        return memory
    if any(other[:NAME_BYTES] == row[:NAME_BYTES] for other in known):
        raise Declined("it has sent the same numbers into a total of other clients before, in this run")
    return {**memory, ANSWERED: np.concatenate([answered, to_rows([row], 2 * NAME_BYTES)])}


def find_peers(own: bytes, seats: Array, rows: Array, thresholds: Thresholds) -> tuple[int, dict[int, bytes]]:
    """Finds a client's seat, and what its neighbours advertise. Raises: Declined: if these are not right."""
    adverts = dict(zip(seats.tolist(), map(bytes, rows), strict=True))
    mine = [seat for seat, advert in adverts.items() if advert == own]
    others = {seat: advert for seat, advert in adverts.items() if advert != own}
    keys = {half for advert in others.values() for half in (advert[:32], advert[32:64])}
    if len(mine) != 1 or len(keys) != 2 * len(others) or len(seats) != len(adverts):
        raise Declined("the keys that it was sent are not its own once, and those of others once each")
    if any(map(is_weak, keys)):
        raise Declined("it was sent a key with which everybody would agree on 0")
    if not all(0 <= seat < thresholds.num_clients for seat in adverts):
        raise Declined(f"the seats {sorted(adverts)} are not those of {thresholds.num_clients} clients")
    if len(others) != thresholds.num_neighbours:
        raise Declined(
            f"it was sent the keys of {len(others)} neighbours, and has to have {thresholds.num_neighbours}"
        )
    return mine[0], others


def check_survivors(work: Any, shared: Shared, memory: Memory) -> tuple[set[int], bytes, bytes, Memory]:
    """Checks the list of survivors that a client is sent, and promises to answer for no other one.

    Args:
      work: the phase, which says the sum, its round and its number of clients.

    Returns: their seats, digests of all that the client was told and of who they are, and its memory.
    """
    thresholds, memory = work.sums.begin_phase(memory, work.round, work.num_clients)
    bits, names = shared["alive"]["seats"], shared["alive"]["names"]
    if len(bits) != work.num_clients or len(names) != work.num_clients:
        raise Declined(f"it was told of {len(bits)} clients, and {work.num_clients} are in this sum")
    alive = set(np.flatnonzero(bits).tolist())
    peers, mail = recall(memory, work.round, "peers"), recall(memory, work.round, "mail")
    if peers["seat"] not in alive:
        raise Declined("its own part is not in the total, so it helps nobody to unmask it")
    known = len(alive.intersection(mail["opened"].tolist())) + 1
    # Among others it has to believe the server, who may have left in the last exchange and who not.
    num = known if thresholds.is_complete else len(alive)
    if num < (fewest := max(work.sums.min_clients, FEWEST_CLIENTS, memory.get(MIN_COHORT, 0))):
        raise Declined(f"{num} clients are in the total, and {fewest} must be")
    if work.sums.assume().count_honest(num, work.num_clients) < work.sums.fewest:
        raise Declined(f"fewer than {work.sums.fewest} of {num} clients in the total may be honest")
    if known < thresholds.num_shares:
        raise Declined(f"only {known} of its neighbours and it are in the total, not {thresholds.num_shares}")
    known_as = dict(enumerate(map(bytes, names)))
    known_as |= dict(zip(peers["seats"].tolist(), map(bytes, peers["identities"]), strict=False))
    who = hashlib.sha256(b"".join(sorted(known_as[seat] for seat in alive if seat != peers["seat"]))).digest()
    all_told = hash_arrays(bits, names, to_rows([peers["all"]], SHARE_BYTES))
    return alive, all_told, who, promise(memory, work.round, "alive", all_told)


def hash_arrays(*arrays: Array) -> bytes:
    """Hashes arrays with their shapes."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.digest()


def hash_adverts(seats: Array, rows: Array) -> bytes:
    """Hashes what all advertise, in the order of their seats: with a roster, all clients know all of it."""
    order = np.argsort(seats)
    return hash_arrays(seats[order], rows[order])


def view_bytes(text: bytes) -> Array:
    """Returns bytes as an array."""
    return np.frombuffer(text, np.uint8)


def to_rows(rows: Sequence[bytes], length: int) -> Array:
    """Returns byte strings of one length as the rows of an array."""
    return view_bytes(b"".join(rows)).reshape(len(rows), length)

"""A server that may lie in a secure sum, and the clients that it asks, whose halves run here as they are."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.privacy.schedules import NUMBERS, emit_numbers
from hanse.core import Examples, Key, PartSpec, Spec, Tensors, Work, each
from hanse.core.exchange import (
    SIGNER,
    Forks,
    Payload,
    Signer,
    Task,
    compute,
    pack,
    unpack,
    write_certificate,
)
from hanse.network.client.role import OpenRole
from hanse.network.client.tickets import name_ticket
from hanse.privacy.secure_sums import secure_sum
from hanse.privacy.secure_sums.promises import bind_round, hash_adverts
from hanse.privacy.secure_sums.reducers import (
    advertise_keys,
    confirm_survivors,
    deal_shares,
    mask_parts,
    reveal_shares,
)

KEY = Key.from_seed(4)
NUM = 6
EVERYBODY = tuple(range(NUM))


def signer_of(name: str) -> Signer:
    """A house's own key, and the key for protocols that it certifies."""
    own, other = (
        Ed25519PrivateKey.from_private_bytes(KEY.fold_in(name, what).digest) for what in ("own", "protocols")
    )
    identity, public = (key.public_key().public_bytes_raw() for key in (own, other))
    return Signer(identity, own.sign(write_certificate(public, identity)), other.private_bytes_raw())


ROSTER = tuple(signer_of(f"house {number}").identity.hex() for number in range(8))
LISTED = secure_sum(colluders=0.125, drop_out=0.0, max_value=1e12, max_weight=1e3, roster=ROSTER)
TRUSTED = secure_sum(max_value=1e12, max_weight=1e3)


class House:
    """A client that answers whatever it is asked, as far as the code of its works goes."""

    def __init__(self, number: int, signer: Signer | None = None) -> None:
        self.number, self.signer, self.forks = number, signer, Forks()
        self.asked, self.last = 0, None

    def answer(self, work: Work[Any, Any], into: Any = None, after: int | None = -1, **own: Tensors) -> Any:
        """Answers a ticket that continues from the last one, or from another."""
        named = {"numbers": PartSpec(NUMBERS, into=into)} if into is not None else {}
        parts = named or {name: PartSpec(Spec({}, kind="coded"), into=each()) for name in OUT[type(work)]}
        payload = Payload(work, {}, parts, dict.fromkeys(parts, ()))
        self.asked += 1
        after = self.last if after == -1 else after
        task = Task(self.asked, self.number, KEY.fold_in(self.number, self.asked), after, own)
        before = self.forks.at(after)
        if work.signs and self.signer is not None:
            before = {**before, SIGNER: self.signer}
        data = Examples(np.zeros((1, 1)), np.array([self.number]))
        secret = KEY.fold_in("secret", self.number, self.asked)
        message, fork = compute(task, payload, None, data, before, secret)
        self.forks.keep(self.asked, fork)
        self.last = self.asked
        return {name: None if part is None else part.values for name, part in message.parts.items()}


OUT: Mapping[type, tuple[str, ...]] = {
    advertise_keys: ("advert",),
    deal_shares: ("shares",),
    mask_parts: ("masked",),
    confirm_survivors: ("confirmed",),
    reveal_shares: ("revealed",),
}


def encode(sums: secure_sum) -> Mapping[str, Any]:
    """Says how the numbers are to be written, as an honest server does."""
    return {"numbers": sums.make_encoding(NUMBERS)}


class Server:
    """A server that may do at each phase what it likes."""

    def __init__(self, sums: secure_sum, houses: list[House], round: str = "r1") -> None:
        self.sums, self.houses, self.round, self.num = sums, houses, round, len(houses)
        self.bound = b""

    def begin(self) -> None:
        for house in self.houses:
            house.answer(emit_numbers(), self.sums)

    def advertise(self) -> Any:
        work = advertise_keys(self.sums, self.round, encode(self.sums))
        adverts = [house.answer(work)["advert"] for house in self.houses]
        self.rows = np.stack([advert["keys"] for advert in adverts])
        self.bound = bind_round(self.round, bytes(adverts[0]["told"]))
        return self.rows

    def deal(self, rows: Any = None, num: int | None = None) -> None:
        rows = self.rows if rows is None else rows
        self.num = len(rows) if num is None else num
        peers = {"seats": np.arange(len(rows)), "keys": rows}
        self.keyed = self.bound + hash_adverts(peers["seats"], rows)
        work = deal_shares(self.sums, self.round, self.num)
        self.sealed = [house.answer(work, peers=peers)["shares"]["sealed"] for house in self.houses]

    def mail(self, seat: int) -> Any:
        senders = [other for other in range(len(self.houses)) if other != seat]
        rows = [self.sealed[other][seat - (seat > other)] for other in senders]
        return {"seats": np.array(senders), "sealed": np.stack(rows)}

    def mask(self) -> list[Any]:
        work = mask_parts(self.sums, self.round, self.num, encode(self.sums))
        masked = [house.answer(work, mail=self.mail(seat)) for seat, house in enumerate(self.houses)]
        return [one["masked"]["integers"] for one in masked]

    def told(self, alive: tuple[int, ...], names: int = 0) -> Any:
        bits = np.array([seat in alive for seat in range(self.num)], np.uint8)
        told = np.arange(self.num, dtype=np.uint8)[:, None] + np.full(16, names, np.uint8)
        return {"seats": bits, "names": told}

    def confirm(self, house: House, alive: tuple[int, ...]) -> Any:
        work = confirm_survivors(self.sums, self.round, self.num)
        return house.answer(work, alive=self.told(alive))["confirmed"]["signature"]

    def reveal(self, house: House, alive: tuple[int, ...], signed: Any = None, **options: Any) -> Any:
        more = {} if signed is None else {"confirmed": signed}
        work, names = reveal_shares(self.sums, self.round, self.num), options.pop("names", 0)
        return house.answer(work, alive=self.told(alive, names), **more, **options)["revealed"]["shares"]

    def lead(self) -> "Server":
        """Leads an honest sum up to the masked vectors."""
        self.begin()
        self.advertise()
        self.deal()
        self.masked = self.mask()
        return self


def trusted() -> Server:
    return Server(TRUSTED, [House(number) for number in EVERYBODY]).lead()


def listed(num: int = NUM) -> Server:
    return Server(LISTED, [House(number, signer_of(f"house {number}")) for number in range(num)])


def sign_all(server: Server, alive: tuple[int, ...], by: tuple[int, ...] = EVERYBODY) -> Any:
    signed = [server.confirm(server.houses[seat], alive) for seat in by]
    return {"seats": np.array(by), "signatures": np.stack(signed)}


class Here:
    """Computes tickets in this process."""

    def __init__(self, house: "RealHouse") -> None:
        self.house = house

    def compute(self, task: Task, payload: Payload, memory: Any, secret: Key, limit_s: Any) -> Any:
        data = Examples(np.zeros((1, 1)), np.array([self.house.number]))
        message, fork = compute(task, payload, None, data, memory, secret)
        return pack(message), fork

    def close(self) -> None:
        """Nothing was started."""


class RealHouse(House):
    """A client as it is: its role in a run, with its memory on the disk."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(number, signer_of(f"house {number}"))
        folder.mkdir()
        self.seat, home = number, KEY.fold_in("home", number)
        self.role = OpenRole(folder, Here(self), home, Forks(), lambda: self.signer or signer_of(""))
        self.tasks: dict[int, Tensors] = {}

    def answer(self, work: Any, into: Any = None, after: int | None = -1, **own: Any) -> Any:
        named = {"numbers": PartSpec(NUMBERS, into=into)} if into is not None else {}
        parts = named or {name: PartSpec(Spec({}, kind="coded"), into=each()) for name in OUT[type(work)]}
        payload = Payload(work, {}, parts, dict.fromkeys(parts, ()))
        self.asked += 1
        task = Task(
            self.asked,
            self.seat,
            KEY.fold_in(self.seat, self.asked),
            self.last if after == -1 else after,
            own,
        )
        name = name_ticket(task, hashlib.sha256(pack(payload)).hexdigest())
        message = unpack(self.role.compute(task, payload, name, None)[0])
        self.role.keep()
        self.last = self.asked
        return {name: None if part is None else part.values for name, part in message.parts.items()}

"""Many clients in one process and without threads: each polls by hand over a TLS connection of its own.

They act as clients of `hanse.network` do: a client with a ticket continues polling, fetches the payload
over a second connection, computes, and uploads the message. They write nothing to the disk, and check answers
by TLS alone, so that most of the processor is the server's.
"""

import asyncio
import hashlib
import json
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import uvloop

from hanse.core.exchange.party import Payload, Task
from hanse.core.keys import Keys
from hanse.core.values import pieces, unpack
from hanse.network.client.transport import TIMEOUT, split
from hanse.network.protocol import certificates
from hanse.network.protocol.party import Party
from hanse.network.protocol.signing import Identity, sha256
from hanse.network.protocol.spool import hash_chunks
from hanse.network.protocol.wire import WAIT_S, Poll

QUICK = 10
"""One client in this many does not wait: it checks in every two seconds."""

QUICK_S = 2.0

ARRIVE_S = 60.0
"""A client that has not arrived after so many seconds is an error."""


@dataclass
class Heard:
    """The measurements of a crowd, in seconds; times are from the monotonic clock, which all processes share.

    Args:
      arrivals: from connecting to the first answer.
      check_ins: the time of each request of a client that does not wait, and the seconds to its answer.
      told: when a ticket was in an answer; done: when its upload was acknowledged.
      again: the errors after which a client tried again to arrive.
    """

    arrivals: list[float] = field(default_factory=list)
    check_ins: list[tuple[float, float]] = field(default_factory=list)
    polls: int = 0
    sent_away: int = 0
    told: dict[int, float] = field(default_factory=dict)
    done: dict[int, float] = field(default_factory=dict)
    wrong: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)


class Voice:
    """One open connection of one client."""

    def __init__(self, url: str, context: ssl.SSLContext, identity: Identity, key_id: str) -> None:
        self._url, self._context, self._identity, self._key_id = url, context, identity, key_id
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Do one exchange. Raises: RuntimeError: if it is refused."""
        async with asyncio.timeout(TIMEOUT.read):
            if self._streams is None:
                host, port = split(self._url)
                self._streams = await asyncio.open_connection(host, port, ssl=self._context)
            reader, writer = self._streams
            headers = self._identity.sign(self._key_id, method, self._url + path, sha256(body))
            lines = [f"{name}: {text}" for name, text in headers.items()]
            head = "\r\n".join(
                [f"{method} {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines]
            )
            writer.write(head.encode() + b"\r\n\r\n" + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            said = await reader.readexactly(int(answer.partition("content-length: ")[2].split()[0]))
        if not answer.startswith("http/1.1 20"):
            raise RuntimeError(f"{method} {path.partition('?')[0]}: {said[:200]!r}")
        return said

    def close(self) -> None:
        """End the connection; the next exchange begins another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Crowd:
    """Clients number 0 to n of a server.

    Args:
      identities: their keys.
    """

    def __init__(self, url: str, pem: str, identities: list[Identity]) -> None:
        self._url, self._context = url, certificates.pin(pem)
        self._identities = identities
        self.heard = Heard()
        self._answering: set[asyncio.Task[None]] = set()

    def _voice(self, number: int) -> Voice:
        return Voice(self._url, self._context, self._identities[number], f"c{number}")

    async def arrive(self, number: int) -> Voice:
        """Connect, and send the first request."""
        voice = self._voice(number)
        began = time.monotonic()
        while True:  # a busy server may end a connection that no member has used yet; clients try again
            try:
                await voice.ask("POST", "/v1/work", Poll(wait_s=0).model_dump_json().encode())
                break
            except (OSError, EOFError) as error:
                if time.monotonic() - began > ARRIVE_S:
                    raise
                self.heard.again[type(error).__name__] += 1
                voice.close()
                await asyncio.sleep(1.0)
        self.heard.arrivals.append(time.monotonic() - began)
        return voice

    async def live(self, number: int, voice: Voice) -> None:
        """Poll for ever, and do the requested work."""
        quick = number % QUICK == 0
        have: dict[str, list[int]] = {}
        know: dict[str, list[int]] = {}
        party, busy = Party(None, [0], Keys.from_seed(number).secret), self._voice(number)
        try:
            while True:
                poll = Poll(wait_s=0.0 if quick else WAIT_S, have=have, know=know)
                began = time.monotonic()
                news = json.loads(await voice.ask("POST", "/v1/work", poll.model_dump_json().encode()))
                now = time.monotonic()
                know = {}
                for said in news["decisions"]:
                    know.setdefault(said["run"], []).append(said["ticket"])
                    have[said["run"]] = [t for t in have.get(said["run"], []) if t != said["ticket"]]
                for work in news["work"]:
                    if work["ticket"] not in self.heard.told:
                        self.heard.told[work["ticket"]] = now
                        have.setdefault(work["run"], []).append(work["ticket"])
                        self._begin(self._answer(work, party, busy))
                if quick:
                    self.heard.check_ins.append((began, now - began))
                    await asyncio.sleep(QUICK_S)
                else:
                    self.heard.polls += 1
                    self.heard.sent_away += news["again_s"] > 0
                    await asyncio.sleep(news["again_s"])
        except Exception as error:
            self.heard.wrong[f"{type(error).__name__}: {error}"[:200]] += 1
        finally:
            voice.close()
            busy.close()

    def _begin(self, answer: Any) -> None:
        task = asyncio.create_task(answer)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, work: Mapping[str, Any], party: Party, voice: Voice) -> None:
        """Perform a ticket."""
        try:
            run = f"/v1/runs/{work['run']}"
            data = await voice.ask("GET", f"{run}/objects/{work['payload']}")
            if hashlib.sha256(data).hexdigest() != work["payload"]:
                raise RuntimeError("a payload that is not what its SHA-256 says")
            task = unpack(bytes.fromhex(work["task"]), Task)
            message = b"".join(pieces(party.compute(task, unpack(data, Payload), {})[0]))
            query = f"sha256={hash_chunks([message])}&size={len(message)}&offset=0"
            said = await voice.ask("PUT", f"{run}/tickets/{work['ticket']}/message?{query}", message)
            if not json.loads(said)["durable"]:
                raise RuntimeError(f"a message that was acknowledged with {said!r}")
            self.heard.done[work["ticket"]] = time.monotonic()
        except Exception as error:
            self.heard.wrong[f"{type(error).__name__}: {error}"[:200]] += 1
        finally:
            voice.close()  # as a client does after five seconds without a request


def gather_crowd(
    url: str, pem: str, identities: list[Identity], arrive_s: float, there: Any, over: Any
) -> Heard:
    """Let all clients arrive, evenly over some seconds, and live until the event `over`.

    Args:
      there, over: events between processes: set when all have arrived; set by the other side.
    """

    async def perform() -> Heard:
        crowd = Crowd(url, pem, identities)
        began = asyncio.get_running_loop().time()
        lives: list[asyncio.Task[None]] = []

        async def life(number: int) -> None:
            await asyncio.sleep(
                began + arrive_s * number / len(identities) - asyncio.get_running_loop().time()
            )
            voice = await crowd.arrive(number)
            lives.append(asyncio.create_task(crowd.live(number, voice)))

        try:
            await asyncio.gather(*(life(number) for number in range(len(identities))))
            there.set()
            while not over.is_set():
                await asyncio.sleep(0.05)
        except Exception as error:
            crowd.heard.wrong[f"{type(error).__name__}: {error}"[:200]] += 1
        finally:
            there.set()
        for one in lives:
            one.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        return crowd.heard

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(perform())

"""Requests that schemathesis generates from the API's description, sent to a server over TLS.

Half of them fit the description, half are meant not to. Each is sent unsigned, and signed: by a client, an
observer, the operator, a stranger, somebody revoked, and sometimes wrongly. Some speak of a run, a ticket, an
object or an invitation that exist. No answer may be a 5xx but 503 and 507, or other than described: status,
content type, schema. The server leads a run all the while; whatever is stopped or revoked is taken up again.
"""

import contextlib
import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from hanse.network.protocol import WAIT_S

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "network"))

WHO = ("operator", "o-1", "c0", "c1", "stranger")

ANSWER_S = 40.0
"""The most seconds to wait for an answer: a request may ask the server to wait for 25 s."""


# -- the server ------------------------------------------------------------------------------------


def serve(folder: Path) -> None:
    """Lead a run that ends when the standard input ends."""
    import threading

    from federation import federation, job

    from hanse.algorithms import fed_avg
    from hanse.core import Close
    from hanse.network.protocol import Identity
    from hanse.network.server import Patience, requests

    requests.BODY_S = 0.3
    with federation(folder, stay=True) as here:
        server = here.server
        server.presence.hold_s = 0.01
        for name, role in (("operator", "operator"), ("o-1", "observer")):
            server.members.appoint(name, role, Identity.at(folder / name).public)  # type: ignore[arg-type]
        for number in range(2):
            secret, _ = server.members.invite(number=number)
            server.members.join(Identity.derive(secret).public, Identity.at(folder / f"c{number}").public)
        server.part("c1", "revoked")
        algorithm = fed_avg(lr=0.5, fraction=1.0, epochs=1, batch_size=50, close=Close(minimum_fraction=0.5))
        endless = job(algorithm, 2000, num_clients=1, patience=Patience(silent_s=60.0, round_s=20.0))
        run = server.lead(endless)
        server.presence.hold_s = 0.01

        def take_up() -> None:
            while True:
                time.sleep(0.05)
                if server.run(run).status != "running":
                    server.lead(endless, run)
                for member in server.members.all():
                    if member.state != "active" and member.id != "c1":
                        with server.members._change() as db:
                            db.execute("UPDATE members SET state = 'active' WHERE id = ?", (member.id,))

        threading.Thread(target=take_up, daemon=True).start()
        from hanse.network.server import application

        (folder / "openapi.json").write_text(json.dumps(application(server).openapi()))
        print(json.dumps({"url": here.url, "run": run}), flush=True)
        sys.stdin.read()


# -- the requests ----------------------------------------------------------------------------------


def shorten(query: Any) -> None:
    """Shorten the wait that the server would grant: time is not tested here."""
    with contextlib.suppress(TypeError, KeyError, ValueError):
        if 0.05 < float(query["wait_s"]) <= WAIT_S:
            query["wait_s"] = 0.05


class Fuzzer:
    """A sender of cases, which keeps the errors in their answers."""

    def __init__(self, folder: Path, url: str, run: str, seed: int) -> None:
        import requests

        from hanse.network.protocol import Identity

        self.url, self.run = url, run
        self.dice = random.Random(seed)
        self.who = {name: Identity.at(folder / name) for name in WHO}
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(folder / "server" / "certificate.pem")
        self.tickets: list[dict[str, Any]] = []
        self.statuses: Counter[str] = Counter()
        self.signed: Counter[str] = Counter()
        self.wrong: list[Any] = []
        self.sent = 0
        self.signing = self.stopped = False
        signal.signal(
            signal.SIGTERM, lambda *about: setattr(self, "stopped", True)
        )  # then it tells what it has

    def ask(self, who: str, method: str, path: str, body: bytes = b"", headers: Any = None) -> Any:
        """Send a well-formed request."""
        from hanse.network.protocol import sha256

        url = self.url + path
        identity = self.who[who]
        key_id = identity.public if headers else who
        signed = identity.sign(key_id, method, url, sha256(body))
        return self.session.request(
            method, url, data=body, headers={**signed, **(headers or {})}, timeout=ANSWER_S
        )

    def ticket(self) -> dict[str, Any] | None:
        """Return a ticket that c0 holds, if any."""
        if not self.tickets or self.dice.random() < 0.2:
            self.tickets = self.ask("c0", "POST", "/v1/work", b'{"wait_s": 1}').json().get("work", [])
        return self.dice.choice(self.tickets) if self.tickets else None

    def acquaint(self, case: Any) -> None:
        """Put names of things that exist into a case."""
        dice, path, query = self.dice, case.path_parameters, case.query
        if isinstance(path, dict) and "run" in path:
            path["run"] = self.run
        if isinstance(path, dict) and "id" in path:
            path["id"] = dice.choice(["c0", "c1", "client 0", "operator", "0"])
        held = self.ticket() if isinstance(path, dict) and {"ticket", "sha256"} & path.keys() else None
        if held is None:
            return
        if "sha256" in path:
            path["sha256"] = dice.choice([held["plan"], held["payload"]])
        else:
            path["ticket"] = held["ticket"]
        if isinstance(query, dict) and "size" in query:
            body = dice.randbytes(dice.choice([0, 1, 100, 5000]))
            query["sha256"], query["size"] = hashlib.sha256(body).hexdigest(), len(body)
            if case.method.upper() == "PUT":
                half = len(body) // 2
                begin, end = dice.choice([(0, len(body)), (0, half), (half, len(body))])
                query["offset"], case.body = begin, body[begin:end]

    def sign(self, request: Any) -> Any:
        """Sign a prepared request, leave it unsigned, or sign it wrongly."""
        from mutations import scattered

        from hanse.network.protocol import Asked, sha256

        dice = self.dice
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        if not self.signing:
            self.signed["nobody"] += 1
        else:
            path = request.url.removeprefix(self.url)
            inviting = path.startswith(("/v1/join", "/v1/check"))
            suits = "c0" if re.match("/v1/(work|leave|runs/[^/]*/(objects|tickets))", path) else "operator"
            name = dice.choice(WHO) if dice.random() < 0.3 else suits
            key_id = self.who[name].public if inviting or name == "stranger" else name
            digest = sha256(body) if dice.random() < 0.97 else sha256(body + b"x")
            request.headers.update(self.who[name].sign(key_id, request.method, request.url, digest))
            self.signed[name] += 1
            if inviting and dice.random() < 0.5:
                asked = Asked.read(request.method, request.url, request.headers)
                request.headers["Invitation"] = self.invitation().permit(key_id, asked)
            if dice.random() < 0.05:
                field = dice.choice(["Signature", "Signature-Input", "Content-Digest"])
                given = scattered(request.headers[field].encode(), dice)
                request.headers[field] = "".join(chr(c) for c in given if 32 < c < 127)
        if dice.random() < 0.01:
            said = dice.choice(["-1", "x", "99999999999", "1", "9" * 5000])
            request.headers.update({"Content-Length": said, "Connection": "close"})
        if dice.random() < 0.02:
            request.headers[dice.choice(["Range", "If-None-Match"])] = dice.choice(
                ["bytes=1-", "bytes=0-0", "bytes=99999999999999999999-", "x", "*", "bytes=-5"]
            )
        return request

    def invitation(self) -> Any:
        """Return the key of an invitation."""
        from hanse.network.protocol import Identity, Token

        asked = json.dumps({"number": self.dice.choice([None, 2, 3])}).encode()
        answer = self.ask("operator", "POST", "/v1/invitations", asked).json()
        return Token.parse(answer["token"]).invitation if "token" in answer else Identity.generate()

    def send(self, case: Any) -> None:
        """Send a request, unsigned and signed twice, and return the errors in its answers."""
        if self.dice.random() < 0.6:
            self.acquaint(case)
        shorten(case.query)
        for self.signing in (False, True, True):
            self.send_once(case)

    def send_once(self, case: Any) -> None:
        """Send one request."""
        import requests
        from schemathesis import checks

        self.sent += 1
        try:
            response = case.call(
                base_url=self.url,
                session=self.session,
                auth=self.sign,
                timeout=ANSWER_S,
                verify=self.session.verify,
            )
        except (requests.ConnectionError, requests.exceptions.InvalidHeader) as error:
            self.statuses[type(error).__name__] += 1  # it hung up rather than read on, as it should
            return
        except requests.Timeout as error:
            self.found(case, 0, f"no answer: {error}")
            return
        status = response.status_code
        self.statuses[str(status)] += 1
        if status == 400 and b"Invalid HTTP request" in response.content:
            return  # what is no HTTP never reaches the API
        due = [
            checks.not_a_server_error,
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_headers_conformance,
            checks.response_schema_conformance,
        ]
        try:
            case.validate_response(response, checks=due[1:] if status in (503, 507) else due)
        except BaseExceptionGroup as found:
            for failure in found.exceptions:
                self.found(case, status, f"{type(failure).__name__}: {failure}")

    def found(self, case: Any, status: int, what: str) -> None:
        """Keep a few findings of each kind."""
        said = f"{case.method} {case.operation.path} {status} {what.splitlines()[0]}"
        if len([w for w in self.wrong if w[0] == said]) < 3:
            self.wrong.append((said, what[:600], str(case)[:600]))


def fuzz_api(count: int, seed: int) -> dict[str, Any]:
    """Send the given number of requests, and return the findings."""
    import schemathesis
    from fuzz import memory_mb
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        errors = stack.enter_context(open(folder / "errors", "w+"))
        command = [sys.executable, __file__, str(folder)]
        pipes: Any = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": errors,
            "start_new_session": True,
        }
        process = stack.enter_context(subprocess.Popen(command, text=True, **pipes))
        about = json.loads(process.stdout.readline())
        fuzzer = Fuzzer(folder, about["url"], about["run"], seed)
        schema = schemathesis.openapi.from_path(folder / "openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        memory: list[float] = []
        batch, began = 0, time.monotonic()
        while fuzzer.sent < count and not fuzzer.stopped:
            operation = operations[batch % len(operations)]
            mode = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)[batch // len(operations) % 2]
            left = min(-(-(count - fuzzer.sent) // 3), max(20, count // (40 * len(operations))))
            strategy = operation.as_strategy(generation_mode=mode)

            @seeded(seed + batch)
            @settings(
                max_examples=left,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def some(case: Any) -> None:
                fuzzer.send(case)

            try:
                some()
            except Unsatisfiable as error:  # nothing that does not fit can be generated here
                fuzzer.statuses[f"not generated: {type(error).__name__}"] += 1
            batch += 1
            print(fuzzer.sent, dict(fuzzer.statuses), file=sys.stderr, flush=True)
            if fuzzer.sent >= count * (len(memory) + 0.02) / 4.02:
                memory.append(round(memory_mb(process.pid), 1))
        memory.append(round(memory_mb(process.pid), 1))
        alive = process.poll() is None and fuzzer.ask("operator", "GET", "/v1/status").status_code == 200
        rounds = fuzzer.ask("operator", "GET", "/v1/status").json()["runs"][0]["round"]
        process.stdin.close()
        process.wait(30)
        errors.seek(0)
        printed = errors.read()
    if not alive or "Traceback" in printed:
        fuzzer.wrong.append(("the server", printed[-3000:]))
    return {
        "count": fuzzer.sent,
        "operations": len(operations),
        "statuses": dict(sorted(fuzzer.statuses.items())),
        "signed_by": fuzzer.signed,
        "rounds": rounds,
        "memory_mb": memory,
        "seconds": round(time.monotonic() - began),
        "kinds_of_wrong": len({found[0] for found in fuzzer.wrong}),
        "wrong": fuzzer.wrong[:30],
    }


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

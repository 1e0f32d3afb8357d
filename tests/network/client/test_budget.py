"""Budgets are checked again once the size of a message is known, and add up over restarts and runs."""

from collections import Counter
from pathlib import Path

from federation import NUM_CLIENTS, Federation, federation, job

from hanse.algorithms import fed_avg
from hanse.core import Close
from hanse.core.exchange import Record
from hanse.network.client.audit import AuditLog

ALGORITHM = fed_avg(lr=0.5, fraction=1.0, batch_size=50, close=Close(minimum_fraction=0.1))


def measure_message(folder: Path) -> int:
    """Returns the bytes of a message, which all have the same size."""
    (size,) = {line["bytes"] for line in AuditLog(folder / "audit.jsonl").lines() if line["what"] == "sent"}
    return int(size)


def lines_of(home: Path, run: str) -> Counter[str]:
    """Counts what a client's audit log says of a run's messages and failures."""
    lines = [line for line in AuditLog(home / "audit.jsonl").lines() if line.get("run") == run]
    return Counter(line["what"] for line in lines if line["what"] in ("sends", "sent", "fails"))


def restart_clients(here: Federation) -> None:
    """Ends all clients, and starts them again from their disks."""
    for client in here.clients:
        client.stop()
    for thread in here.threads:
        thread.join(60.0)
        assert not thread.is_alive()
    here.enter()


def test_budgets_hold_to_the_byte_and_to_the_ticket(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        here.server.presence.hold_s = 0.1  # a client ends when its poll does
        homes = [here.client_home(number) for number in range(NUM_CLIENTS)]
        here.enter()
        here.end(here.lead(job(ALGORITHM, 1)))
        size = measure_message(homes[0].folder)
        policies = {
            0: f"max_upload_bytes = {2 * size - 1}",
            1: f"max_upload_bytes = {2 * size}",
            2: f"max_day_upload_bytes = {3 * size - 1}\nmax_tickets = 9",
            3: "max_tickets = 2",
        }
        for number, policy in policies.items():
            (homes[number].folder / "policy.toml").write_text(policy)

        def stop_after_the_first(record: Record) -> None:
            here.records.append(record)
            if record.round == 1:
                here.server.run(run).mailbox.drain()

        run = here.server.lead(job(ALGORITHM, 2, watch=stop_after_the_first))
        here.end(run, status="stopped")
        restart_clients(here)
        here.lead(job(ALGORITHM, 2), run)
        here.end(run, status="incomplete")
        assert [lines_of(home.folder, run) for home in homes] == [
            Counter(fails=2),
            Counter(sends=1, sent=1, fails=1),
            Counter(sends=1, sent=1, fails=1),
            Counter(sends=1, sent=1, fails=1),
            Counter(sends=2, sent=2),
        ]
        assert [record.usage.counted for record in here.records[-2:]] == [4, 1]
        events = here.events()
        assert (
            events.count("declined: its policy's budget for this run is used up (budget)") == 2 * 4
        )  # client 0's two are one
        for kept in ("*.message", "memory"):
            here.wait_until(
                lambda kept=kept: not list(tmp_path.glob(f"client-*/runs/*/{kept}")), f"a client keeps {kept}"
            )
        said = "\n".join(here.said)
        assert f"allows {2 * size - 1} uploaded bytes in all runs together, and they are used up" in said
        assert f"allows {3 * size - 1} uploaded bytes a day, and they are used up" in said
        assert "allows 2 tickets in all runs together, and they are used up" in said

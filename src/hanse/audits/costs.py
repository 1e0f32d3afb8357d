"""The costs of protection: a federation with and without each part of it, in bytes, seconds and quality."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hanse.audits.subject import Section, Subject, Tell, train
from hanse.config import Experiment, format_plain, to_plain
from hanse.core import HanseError, mean
from hanse.evaluation import as_bytes, as_number, as_percent, as_seconds

__all__ = ["audit_costs"]

TITLE = "What does it cost? With and without each protection"


def audit_costs(subject: Subject, tell: Tell) -> Section:
    """Runs the federation as configured, and again without each protection."""
    variants = [("as configured", subject.asked), *_list_variants(subject)]
    rows, details = [], dict[str, Any]()
    say = as_percent if subject.metric == "accuracy" else as_number
    for done, (name, experiment) in enumerate(variants, 1):
        began_s = time.process_time()
        try:
            result = train(experiment)
        except HanseError as error:
            rows.append((name, f"not possible: {str(error)[:60]}", "", "", ""))
            continue
        finally:
            tell(done, len(variants))
        rounds, spent_s = max(1, result.rounds), time.process_time() - began_s
        measured = subject.measure(result)
        up, down = result.bytes_up / rounds, result.bytes_down / rounds
        rows.append((name, as_bytes(up), as_bytes(down), as_seconds(spent_s), say(measured)))
        details[name] = {"bytes_up": up, "bytes_down": down, subject.metric: measured, "rounds": rounds}
    about = (
        "Bytes are those of the encoded messages of a round. Seconds are the processor's, of the whole run "
        "on this machine, all parties together; they differ from one audit to the next."
    )
    heads = ("federation", "up a round", "down a round", "seconds", subject.metric)
    return Section(TITLE, about, heads, rows, details=details)


def _list_variants(subject: Subject) -> Iterator[tuple[str, Experiment]]:
    """Yields the experiment without one protection after the other."""
    asked, algorithm = subject.asked, subject.asked.algorithm
    own: Any = algorithm
    if asked.privacy is not None:
        yield f"without privacy = {type(asked.privacy).__name__}", replace(asked, privacy=None)
    if asked.secure:
        yield "without secure", replace(asked, secure=False)
    for field in ("uplink", "downlink"):
        stages = tuple(getattr(algorithm, field, ()))
        for i, stage in enumerate(stages):
            left: Any = replace(own, **{field: stages[:i] + stages[i + 1 :]})
            yield f"without {format_plain(to_plain(stage))}", replace(asked, algorithm=left)
    into = getattr(algorithm, "into", None)
    if into is not None and into != mean():
        plain: Any = replace(own, into=mean())
        yield f"without {type(into).__name__}", replace(asked, algorithm=plain)

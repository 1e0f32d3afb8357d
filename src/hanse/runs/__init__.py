"""Runs: they are prepared, performed, resumed, replayed, and led with real parties."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.runs.adversary import OF_MARKED, describe_liars
    from hanse.runs.contract import CONTRACT, Contract
    from hanse.runs.debugging import debug_errors
    from hanse.runs.deployment import NO_DATA, SHARE, Parties
    from hanse.runs.dry_run import Exchange, LinkModel, MessagePlan, plan_messages
    from hanse.runs.judgement import ENDED, find_problems, has_trained, sentences
    from hanse.runs.kept import check_same_data, experiment_of, load, remove_runs
    from hanse.runs.ledger import describe_releases, describe_traffic, flows_of, ledger_table, traffic
    from hanse.runs.loop import Round, Rounds, rounds
    from hanse.runs.machine import changes, environment
    from hanse.runs.notebooks import TensorBoard
    from hanse.runs.own_code import (
        ACCEPTED,
        find_imports,
        find_needed,
        import_code,
        import_unchanged,
        list_kept,
        record_imports,
    )
    from hanse.runs.own_file import Unlabelled, read_examples, read_rows
    from hanse.runs.places import default_store, existing, is_kept, name_store
    from hanse.runs.preparation import Prepared, load_population, prepare_run
    from hanse.runs.proposal import Proposal, Seen, propose
    from hanse.runs.protection import describe_claim
    from hanse.runs.replay import (
        Case,
        Replayed,
        in_client_home,
        in_server_home,
        in_simulation,
        replay_ticket,
    )
    from hanse.runs.result import Interrupted, Result, RunDiverged, RunStalled, record_as_json
    from hanse.runs.session import (
        Session,
        perform,
        resume,
        resume_session,
        run,
        start_session,
    )
    from hanse.runs.start import initial, read_tensors
    from hanse.runs.timeline import (
        as_chrome_trace,
        describe_parallelism,
        describe_planned_time,
        list_spans,
        measure_parallelism,
    )
    from hanse.runs.wanted import Wanted
    from hanse.runs.what_leaves import describe_requests, describe_run
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.runs.contract": ("CONTRACT", "Contract"),
            "hanse.runs.debugging": ("debug_errors",),
            "hanse.runs.deployment": ("NO_DATA", "SHARE", "Parties"),
            "hanse.runs.dry_run": ("Exchange", "LinkModel", "MessagePlan", "plan_messages"),
            "hanse.runs.kept": ("check_same_data", "experiment_of", "load", "remove_runs"),
            "hanse.runs.notebooks": ("TensorBoard",),
            "hanse.runs.places": ("default_store", "existing", "is_kept", "name_store"),
            "hanse.runs.judgement": ("ENDED", "find_problems", "has_trained", "sentences"),
            "hanse.runs.timeline": (
                "as_chrome_trace",
                "describe_parallelism",
                "describe_planned_time",
                "list_spans",
                "measure_parallelism",
            ),
            "hanse.runs.ledger": (
                "describe_releases",
                "describe_traffic",
                "flows_of",
                "ledger_table",
                "traffic",
            ),
            "hanse.runs.loop": ("Round", "Rounds", "rounds"),
            "hanse.runs.machine": ("changes", "environment"),
            "hanse.runs.own_code": (
                "ACCEPTED",
                "find_imports",
                "find_needed",
                "import_code",
                "import_unchanged",
                "list_kept",
                "record_imports",
            ),
            "hanse.runs.own_file": ("Unlabelled", "read_examples", "read_rows"),
            "hanse.runs.adversary": ("OF_MARKED", "describe_liars"),
            "hanse.runs.preparation": ("Prepared", "load_population", "prepare_run"),
            "hanse.runs.proposal": ("Proposal", "Seen", "propose"),
            "hanse.runs.protection": ("describe_claim",),
            "hanse.runs.replay": (
                "Case",
                "Replayed",
                "in_client_home",
                "in_server_home",
                "in_simulation",
                "replay_ticket",
            ),
            "hanse.runs.result": ("Interrupted", "Result", "RunDiverged", "RunStalled", "record_as_json"),
            "hanse.runs.session": (
                "Session",
                "perform",
                "resume",
                "resume_session",
                "run",
                "start_session",
            ),
            "hanse.runs.start": ("initial", "read_tensors"),
            "hanse.runs.wanted": ("Wanted",),
            "hanse.runs.what_leaves": ("describe_requests", "describe_run"),
        },
    )


__all__ = [
    "ACCEPTED",
    "CONTRACT",
    "ENDED",
    "NO_DATA",
    "OF_MARKED",
    "SHARE",
    "Case",
    "Contract",
    "Exchange",
    "Interrupted",
    "LinkModel",
    "MessagePlan",
    "Parties",
    "Prepared",
    "Proposal",
    "Replayed",
    "Result",
    "Round",
    "Rounds",
    "RunDiverged",
    "RunStalled",
    "Seen",
    "Session",
    "TensorBoard",
    "Unlabelled",
    "Wanted",
    "as_chrome_trace",
    "changes",
    "check_same_data",
    "debug_errors",
    "default_store",
    "describe_claim",
    "describe_liars",
    "describe_parallelism",
    "describe_planned_time",
    "describe_releases",
    "describe_requests",
    "describe_run",
    "describe_traffic",
    "environment",
    "existing",
    "experiment_of",
    "find_imports",
    "find_needed",
    "find_problems",
    "flows_of",
    "has_trained",
    "import_code",
    "import_unchanged",
    "in_client_home",
    "in_server_home",
    "in_simulation",
    "initial",
    "is_kept",
    "ledger_table",
    "list_kept",
    "list_spans",
    "load",
    "load_population",
    "measure_parallelism",
    "name_store",
    "perform",
    "plan_messages",
    "prepare_run",
    "propose",
    "read_examples",
    "read_rows",
    "read_tensors",
    "record_as_json",
    "record_imports",
    "remove_runs",
    "replay_ticket",
    "resume",
    "resume_session",
    "rounds",
    "run",
    "sentences",
    "start_session",
    "traffic",
]

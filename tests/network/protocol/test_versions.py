"""Clients refuse servers of other versions, older or newer, and say why."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from federation import FED_AVG, federation, job

from hanse.core import layout
from hanse.core.exchange import flatten
from hanse.network.client.client import Client
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.wire import WIRE
from hanse.network.server import public_routes, requests, run_thread, runtime


@pytest.mark.parametrize("wire", [WIRE - 1, WIRE + 1])
def test_a_server_of_another_version_is_neither_joined_nor_worked_for(
    wire: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with federation(tmp_path) as here:
        member = here.client_home(0)
        with monkeypatch.context() as other:
            for module in (public_routes, requests):
                other.setattr(module, "WIRE", wire)
                other.setattr(module, "__version__", "7.8.9")
            said = rf"\(hanse 7\.8\.9\).* {wire}.*; upgrade the older"
            with pytest.raises(Refused, match=said):
                here.client_home(1)
            with pytest.raises(Refused, match=said):
                Client(member, lambda plan: [], lambda plan: None).run()
        assert here.client_home(1).membership


@pytest.mark.parametrize(("where", "what"), [(run_thread, "SealedPlan"), (runtime, "Payload")])
@pytest.mark.parametrize("newer", [True, False])
def test_what_another_version_packed_is_named_at_the_client(
    where: Any, what: str, newer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two versions have the same number of the wire, as two states of development may have."""

    def packed(obj: Any) -> list[bytes | memoryview]:
        skeleton, tensors = flatten(obj)
        tree = json.loads(skeleton)
        if newer:
            tree["invented"] = 1
        else:
            del tree[{"SealedPlan": "model", "Payload": "work"}[what]]
        return layout.lay_out(json.dumps(tree), tensors)

    monkeypatch.setattr(where, "pieces", packed)
    how = "with invented, which is unknown here" if newer else "without (model|work)"
    with federation(tmp_path) as here:
        here.lead(job(FED_AVG, 1))
        here.enter()
        due = re.compile(rf"failed \(message\): .*a {what} {how}: another version of hanse packed it")
        until_s = time.monotonic() + 90.0
        while not due.search("\n".join(here.said)) and time.monotonic() < until_s:
            time.sleep(0.01)
        assert due.search("\n".join(here.said)), here.events()
        assert here.wait_for("do the versions differ? (message)", "no failure came")

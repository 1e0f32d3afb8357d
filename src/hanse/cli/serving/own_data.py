"""A client's own data, as `hanse join` opens them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.cli.parties import PARTIES
from hanse.core import InvalidInput

if TYPE_CHECKING:
    from hanse.network.client import ClientHome
    from hanse.runs import Contract

__all__ = ["OwnData"]


@dataclass(frozen=True)
class OwnData:
    """A client's own data: as its contract says, else as the options do.

    Args:
      home: the client's folder.
      contract: what `hanse.toml` in that folder says; None: there is none yet.
      data, test: the options, or what an earlier call with them kept.
      yes, is_trial: whether a new contract is agreed to without a question, and whether none is written.
    """

    home: "ClientHome"
    contract: "Contract | None"
    data: str | None
    test: str | None
    yes: bool
    is_trial: bool

    @classmethod
    def choose(
        cls, home: "ClientHome", data: str | None, test: str | None, *, yes: bool, is_trial: bool
    ) -> "OwnData":
        """Chooses between a contract, the options, and what is kept of earlier ones. Raises: InvalidInput."""
        from hanse.runs import NO_DATA, SHARE, Contract

        kept = home.membership
        contract = Contract.at(home.folder)
        home.note_contract()
        if contract is not None:
            contract.check_source(data, test)
            return cls(home, contract, data, test, yes, is_trial)
        if data is None and kept is not None and kept.get("data") in (SHARE, NO_DATA):
            data, test = kept["data"], test or kept.get("test")
        elif data is None and not is_trial:
            raise InvalidInput("--data is missing; name a file of this client's own examples")
        PARTIES.check_files(data, test)
        return cls(home, None, data, test, yes, is_trial)

    @property
    def is_named(self) -> bool:
        """Whether anything says where the data are."""
        return self.data is not None or self.contract is not None

    def open(self, plans: Sequence[Any], number: int) -> Any:
        """Opens the data for plans, as the client with this number."""
        from hanse.runs import NO_DATA, SHARE

        if self.contract is None and self.data == SHARE:
            return _open_share(number, self.test)
        if self.contract is None and self.data == NO_DATA:
            return _open_nothing()
        return _open_contract(self.contract or self._make_contract(plans), number)

    def remember(self) -> None:
        """Keeps with the membership what no file remembers."""
        from hanse.runs import NO_DATA, SHARE

        if self.contract is None and self.data in (SHARE, NO_DATA):
            test = None if self.test is None else str(Path(self.test).absolute())
            self.home.amend(data=self.data, test=test)

    def _make_contract(self, plans: Sequence[Any]) -> Any:
        from hanse.cli.contract import make_contract

        wanted = PARTIES.wanted(plans[0]) if plans else None
        made = make_contract(
            self.home.folder, str(self.data), self.test, wanted, yes=self.yes, write=not self.is_trial
        )
        self.home.note_contract()
        return made


def _open_share(number: int, test: str | None) -> Any:
    """Opens a client's share of a built-in data set, which needs no contract."""
    from hanse.cli.views import note
    from hanse.network.client import Sources
    from hanse.runs import SHARE

    examples = _keep_last(PARTIES.data(SHARE, number, test, note))
    return Sources(examples, _keep_last(PARTIES.test(SHARE, number, test)), test is not None)


def _open_nothing() -> Any:
    """Opens no data, for a party whose works need none."""
    from hanse.network.client import Sources

    return Sources(lambda plan: None, None)


def _open_contract(contract: Any, number: int) -> Any:
    """Opens the files of a contract, once a plan is found to suit it."""
    from hanse.cli.views import note
    from hanse.network.client import Sources

    examples = _keep_last(PARTIES.contract_data(contract, number, note))
    tests = _keep_last(PARTIES.contract_tests(contract, number))
    return Sources(examples, tests, contract.test is not None)


def _keep_last(source: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Keeps the data that a source made for the last plan: joining and the first ticket both ask for them."""
    from hanse.network.client import plan_digest
    from hanse.network.protocol import seal_plan

    last: dict[str, Any] = {}

    def open_data(plan: Any) -> Any:
        digest = plan_digest(seal_plan(plan))
        if digest not in last:
            last.clear()
            last[digest] = source(plan)
        return last[digest]

    return open_data

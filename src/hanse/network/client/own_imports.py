"""The modules of a client's owner that plans may name: found, compared and imported.

Code is never sent. The owner has a copy of each module, and allows it by its digest: in policy.toml, or by
`hanse approve`. A plan only says which digest it wants.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hanse.core import InvalidInput
from hanse.imports import Import, inspect_again, inspect_import, load_import, module_of
from hanse.network.client.approved_imports import ApprovedImports
from hanse.network.client.audit import AuditLog
from hanse.network.client.policy import Policy, plan_digest
from hanse.network.protocol.errors import Forbidden
from hanse.network.protocol.sealed_plan import SealedPlan
from hanse.network.protocol.wire import PlanImport

__all__ = ["OwnImports"]


class OwnImports:
    """The owner's own copies of modules, and which of them plans may use.

    Args:
      folder: the client home.
      policy: reads the policy as it is now.
      audit: notes what is imported.
    """

    def __init__(self, folder: Path, policy: Callable[[], Policy], audit: AuditLog) -> None:
        self._folder, self._policy, self._audit = folder, policy, audit
        self.approved = ApprovedImports(folder)
        self.given: Sequence[str] = ()
        """The modules and paths that the owner has typed, relative to the current folder."""
        self._noted = set[tuple[str, str]]()

    def load(self, plan: SealedPlan) -> tuple[Import, ...]:
        """Imports the modules that a plan names, after all of them were checked. Doing it again does nothing.

        Raises: Forbidden: see `check`; also if a module can't be imported.
        """
        found = self.check(plan)
        for needed, imported in zip(plan.imports, found, strict=True):
            if (plan.run, needed.name) not in self._noted:
                self._audit.write("imports", run=plan.run, name=needed.name, digest=imported.digest)
                self._noted.add((plan.run, needed.name))
            try:
                load_import(imported)
            except InvalidInput as error:
                raise Forbidden(str(error), "imports") from error
        return found

    def check(self, plan: SealedPlan) -> tuple[Import, ...]:
        """Finds the owner's copies of the modules that a plan names, without executing anything of them.

        Raises: Forbidden: if the owner does not allow one, has no copy, or has another one than the plan.
        """
        unnamed = [needed for needed in plan.imports if not self.list_allowed(module_of(needed.name))]
        if unnamed:
            raise self._refuse(plan, unnamed, "which this client's policy does not name")
        found = tuple(self.find_same(needed) for needed in plan.imports)
        for needed, own in zip(plan.imports, found, strict=True):
            if own.digest not in self.list_allowed(module_of(needed.name)):
                raise self._refuse(plan, [needed], "of which this client's policy names another digest")
        return found

    def list_allowed(self, module: str) -> set[str]:
        """Lists the digests of a module that its owner allows."""
        in_policy = {d for name, d in self._policy().imports.items() if module_of(name) == module}
        approved = self.approved.find(module)
        return in_policy if approved is None else in_policy | {approved.digest}

    def find(self, needed: PlanImport) -> Import:
        """Finds the owner's copy of a module that a plan names, at the places that the owner has named.

        It is the one that the plan asks for, or else the first.

        Raises: Forbidden: if it is nowhere, or can't be read.
        """
        others, errors = list[Import](), list[str]()
        for look in self._list_places(module_of(needed.name)):
            try:
                own = look()
            except InvalidInput as error:
                errors.append(str(error))
                continue
            if (own.kind, own.digest) == (needed.kind, needed.digest):
                return own
            others.append(own)
        if others:
            return others[0]
        why = f"this client's owner has not said where the copy of {needed.name} is; name its place"
        if errors:
            why = f"{errors[0]}. Put this client's copy of {needed.name} there, or name its place"
        raise Forbidden(f"{why}:{write_option(needed)}", "imports")

    def _list_places(self, module: str) -> Sequence[Callable[[], Import]]:
        """Lists the places where a module is looked for: what was typed, or else policy and approval."""
        given = [partial(inspect_import, n, Path.cwd()) for n in self.given if module_of(n) == module]
        named = [n for n in self._policy().imports if module_of(n) == module]
        approved = self.approved.find(module)
        return given or [
            *(partial(inspect_import, name, self._folder) for name in named),
            *([] if approved is None else [partial(inspect_again, approved)]),
        ]

    def find_same(self, needed: PlanImport) -> Import:
        """Finds the owner's copy of a module that a plan names.

        Raises: Forbidden: if it is not the same; the error names the files that differ.
        """
        module = module_of(needed.name)
        own = self.find(needed)
        if (own.kind, own.digest) == (needed.kind, needed.digest):
            return own
        approved = self.approved.find(module)
        cure = "put the files there that the operator serves, or ask the operator to serve these"
        if approved is not None and approved.digest == needed.digest and approved.files:
            cure = f"the files that you approved are in {self.approved.locate_copy(approved)}; put these back"
        raise Forbidden(
            f"the plan's {needed.name} is not this client's copy in {own.folder or own.name}: "
            f"{_describe_difference(needed, own)}. Nothing was imported; {cure}",
            "imports",
        )

    def _refuse(self, plan: SealedPlan, needed: Sequence[PlanImport], why: str) -> Forbidden:
        lines = dict(self._policy().imports)
        lines = {name: d for name, d in lines.items() if module_of(name) not in map(_module, needed)}
        lines |= {one.name: one.digest for one in needed}
        table = ", ".join(f"{json.dumps(name)} = {json.dumps(d)}" for name, d in lines.items())
        options = "".join(map(write_option, needed))
        said = ", ".join(f"{one.name} ({one.digest})" for one in needed)
        return Forbidden(
            f"the plan needs {said}, {why}. Nothing was imported. Importing a module executes it: if you "
            "have a copy, have read it and trust it, approve it by\n"
            f"  hanse approve {plan_digest(plan)[:16]} --home {self._folder}{options}\n"
            f"or put it into {self._folder} and this line into {self._folder / 'policy.toml'}:\n"
            f"  imports = {{{table}}}",
            "imports",
        )


def write_option(needed: PlanImport) -> str:
    """Writes the option by which an owner names a copy of a module."""
    is_path = needed.kind == "file" or (needed.kind == "package" and "." not in needed.name)
    return f" --import {'PATH/' if is_path else ''}{needed.name}"


def _module(needed: PlanImport) -> str:
    return module_of(needed.name)


def _describe_difference(needed: PlanImport, own: Import) -> str:
    """Describes how the owner's copy of a module differs from that of a plan."""
    if needed.kind != own.kind:
        return f"the plan's is a {needed.kind}, and this one a {own.kind}"
    words = []
    for path in sorted({**needed.files, **own.files}):
        if path not in own.files:
            words.append(f"{path} is missing here")
        elif path not in needed.files:
            words.append(f"the plan has no {path}")
        elif needed.files[path] != own.files[path]:
            words.append(f"{path} differs")
    return ", ".join(words) or "another version or build of it is installed"

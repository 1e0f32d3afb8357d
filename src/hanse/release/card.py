"""The card of a released model, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from hanse.config import as_toml, summary
from hanse.core import Tensors
from hanse.evaluation import describe_assessment, describe_on_site, table, tabulate_metrics
from hanse.release.audited import describe_audit
from hanse.release.folder import MODEL
from hanse.runs import ACCEPTED, sentences

__all__ = ["name_imports", "write_card"]

NO_CLAIM = "Nothing limits how much the model reveals of the training examples."


def write_card(
    info: Any,
    params: Tensors,
    about: Mapping[str, Any],
    sha256: str,
    found: Sequence[Mapping[str, str]],
    claim: str | None,
    audited: Mapping[str, Any] | None,
) -> str:
    """Writes the card of a run's released model: what it is, how it was trained, and how good it is."""
    settings, result = info.settings["experiment"], info.result
    size = sum(array.size for array in params.values())
    shapes = ", ".join(f"`{name}` {tuple(array.shape)} {array.dtype}" for name, array in params.items())
    data = (result or {}).get("data") or {}
    held = f"{data['num_clients']:,} clients held {sum(data['sizes']):,} training examples. " if data else ""
    classes = f"Classes: {', '.join(about['classes'])}. " if about["classes"] else ""
    lines = [
        f"# {settings['model']['name']}, trained by {settings['algorithm']['name']}",
        "",
        f"{summary(settings)}",
        "",
        f"- **Model:** {size:,} parameters: {shapes}",
        f"- **Data:** `{settings['data']['name']}`. {held}{classes}SHA-256 of the clients' data: "
        f"`{info.settings['data_sha256']}`",
        f"- **Algorithm:** `{settings['algorithm']['name']}`, {info.rounds} rounds of at most "
        f"{settings['rounds']}, seed {settings['seed']}; the run is {info.status}",
        *(f"- **Note:** {line}." for line in sentences(found)),
        f"- **`{MODEL}`:** SHA-256 `{sha256}`; of the parameters, as `hanse show` gives it: "
        f"`{about['params_sha256']}`",
        *(
            f"- **Note:** with other code than it began with, accepted by `hanse {entry['command']}` after "
            f"round {entry['round']}: {'; '.join(change['what'] for change in entry['changes'])}."
            for entry in info.settings.get(ACCEPTED, ())
        ),
        *(f"- **Needs your own copy of:** `{need['name']}`, {need['digest']}" for need in about["imports"]),
        f"- **Made with:** Hanse {about['hanse']}, run `{info.run}` of "
        f"{info.created.astimezone().strftime('%Y-%m-%d')}",
        "",
        "## Metrics",
        "",
    ]
    if result and result["final"]:
        heads, rows = table(settings, result)
        heads[0] = "trained"
        lines += [_row(heads), _row(["---"] * len(heads)), *map(_row, rows), ""]
        lines += [said, ""] if (said := describe_on_site(result)) else []
        clients = result.get("clients")
        if clients:
            lines += [f"Clients measured it on {clients['on']}.", ""]
        lines += _describe_assessment(result)
    else:
        lines += ["The run has not ended, so there are no metrics.", ""]
    like = " --like PARTY" if about["data"].get("parties") else ""
    use = [
        "## Use it",
        "",
        "```sh",
        f"hanse predict . DATA.csv{like}{name_imports(about['imports'])}",
        "```",
        "",
        f'To train on from it: `initial = "{MODEL}"` in a settings file.',
        "",
        NO_CLAIM if claim is None else f"**Privacy:** {claim}.",
        "",
        *(() if audited is None else describe_audit(audited, info.settings["data_sha256"])),
        "## Settings",
        "",
        "```toml",
        as_toml(settings).rstrip(),
        "```",
        "",
    ]
    return "\n".join(lines + use)


def _describe_assessment(result: Mapping[str, Any]) -> list[str]:
    """Returns the lines of a card on the final model's metrics beside those of a constant predictor."""
    told = result.get("assessment")
    if not told or not told["metrics"]:
        return []
    heads, rows = tabulate_metrics(told)
    cells = [[f"`{name}`", *cells] for name, *cells in rows]
    return [_row(heads), _row(["---"] * len(heads)), *map(_row, cells), "", describe_assessment(told), ""]


def name_imports(needs: Sequence[Mapping[str, Any]]) -> str:
    """Writes the options by which a command names the modules that a model needs."""
    return "".join(f" --import {need['name']}" for need in needs)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

"""Completes the site whenever MkDocs builds it.

It writes the pages on Python from the docstrings of what the rooms show, takes pictures of benchmarks into
the site, and lets readers search who open its files without a web server.
"""

import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

import hanse
from hanse.core import HanseError

INDEX = "python.md"

HEAD = """# Python

*Written from the docstrings of the code.*

Everything is imported from a room: `from hanse.algorithms import fed_avg`. Names that are not on these pages
are not public, and may change. Constructors of values, such as `fed_avg(lr=0.1)`, take the fields of the
[settings](reference.md) of the same name.

| room | what |
|---|---|
"""

SECTION = re.compile(
    r"^(Args|Returns|Yields|Raises|Example|Examples|Attributes|References|Spec|Reveals|Runs at): ?(.*)$"
)


def find_rooms() -> list[str]:
    """Lists the rooms that the package shows."""
    found = {name: getattr(hanse, name) for name in sorted(hanse.__all__)}
    return [name for name, one in found.items() if inspect.ismodule(one) and hasattr(one, "__all__")]


def on_config(config: Any) -> Any:
    """Adds the pages to the navigation."""
    pages = [{"All rooms": INDEX}, *({f"hanse.{room}": f"python/{room}.md"} for room in find_rooms())]
    config.nav.append({"Python": pages})
    return config


def on_files(files: Any, *, config: Any) -> Any:
    """Adds the pages to the site."""
    files.append(File.generated(config, INDEX, content=write_index()))
    for room in find_rooms():
        files.append(File.generated(config, f"python/{room}.md", content=write_room(room)))
    for name, picture in find_pictures(Path(config.docs_dir)).items():
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


PICTURE = re.compile(r"(!\[[^]]*\]\()\.\./(benchmarks/[^)]+)")


def find_pictures(docs: Path) -> dict[str, Path]:
    """Finds the pictures outside of the docs that pages show, by their paths in the site."""
    texts = [page.read_text(encoding="utf-8") for page in docs.glob("*.md")]
    return {name: docs.parent / name for text in texts for _, name in PICTURE.findall(text)}


def on_page_markdown(markdown: str, **about: Any) -> str:
    """Lets pages show these pictures from inside the site."""
    return PICTURE.sub(r"\1\2", markdown)


@event_priority(-100)  # after the search has written its index
def on_post_build(*, config: Any) -> None:
    """Writes the search as one script, because browsers let a page that is a file read no other file."""
    folder = Path(config.site_dir) / "search"
    index = json.dumps((folder / "search_index.json").read_text(encoding="utf-8"))
    parts = [(folder / name).read_text(encoding="utf-8") for name in ("lunr.js", "worker.js")]
    parts.append(f"importScripts = () => {{}}; init = () => onJSONLoaded.call({{responseText: {index}}});")
    source = json.dumps("\n".join(parts)).replace("</", "<\\/")
    (folder / "from_files.js").write_text(
        f"const source = {source};\n"
        "window.Worker = class extends Worker {\n"
        "  constructor() { super(URL.createObjectURL(new Blob([source]))); }\n"
        "};\n",
        encoding="utf-8",
    )


def write_index() -> str:
    """Writes the page that lists the rooms, and describes the names of the package itself."""
    rooms = {room: _summarise(getattr(hanse, room)) for room in find_rooms()}
    rows = [f"| [`hanse.{room}`](python/{room}.md) | {summary} |" for room, summary in rooms.items()]
    own = [name for name in sorted(hanse.__all__) if name not in find_rooms() and name != "__version__"]
    return HEAD + "\n".join(rows) + "\n\n## hanse\n\n" + "\n".join(_describe(hanse, name) for name in own)


def write_room(room: str) -> str:
    """Writes the page of a room."""
    module = importlib.import_module(f"hanse.{room}")
    text = inspect.getdoc(module) or ""
    names = sorted(module.__all__, key=str.lower)
    return f"# hanse.{room}\n\n{_render(text)}\n\n" + "\n".join(_describe(module, name) for name in names)


def _summarise(found: Any) -> str:
    return (inspect.getdoc(found) or "").partition("\n")[0].replace("|", "\\|")


def _describe(module: Any, name: str) -> str:
    try:
        found = getattr(module, name)
    except (HanseError, ImportError) as error:
        return f"### {name}\n\nIt needs an extra: {error}\n"
    if inspect.ismodule(found):
        return f"### {name}\n\nA module. {_summarise(found)}\n"
    if not (inspect.isclass(found) or callable(found)) or type(found).__module__ == "typing":
        return f"### {name}\n\n`{found!r:.300}`\n"
    parts = [f"### {name}\n", f"```python\n{_sign(name, found)}\n```\n", _render(inspect.getdoc(found) or "")]
    if inspect.isclass(found):
        parts += _describe_methods(found)
    return "\n".join(parts) + "\n"


def _describe_methods(found: type) -> Iterator[str]:
    for name, member in vars(found).items():
        if name.startswith("_") or not getattr(member, "__doc__", None):
            continue
        if isinstance(member, property):
            yield f"- `.{name}`: {_summarise(member)}"
        elif isinstance(member, (staticmethod, classmethod)) or inspect.isfunction(member):
            yield f"- `.{_sign(name, getattr(found, name), indent='')}`: {_summarise(member)}"


def _sign(name: str, found: Any, indent: str = "    ") -> str:
    """Writes a signature, one argument a line if it is long."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return name
    arguments = [str(one) for one in signature.parameters.values() if one.name != "self"]
    arguments = [
        re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=\w)", "", one).replace("'", "").replace("<factory>", "...")
        for one in arguments
    ]
    kinds = [one.kind for one in signature.parameters.values() if one.name != "self"]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        arguments.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= 88 or not indent:
        return line if len(line) <= 88 else f"{name}(...)"
    return f"{name}(\n" + "".join(f"{indent}{one},\n" for one in arguments) + ")"


def _render(text: str) -> str:
    """Turns a docstring into Markdown: sections become lists, formulas and examples become code."""
    lines: list[str] = []
    block: list[str] = []

    def close() -> None:
        if block:
            is_example = block[0].lstrip().startswith(">>>")
            code = textwrap.dedent("\n".join(block)).strip("\n")
            lines.extend(["", f"```{'pycon' if is_example else 'text'}", code, "```", ""])
            block.clear()

    in_list = False
    for line in text.splitlines():
        said = SECTION.match(line)
        if (
            line.lstrip().startswith(">>>")
            or (block and line.strip())
            or (line.startswith("    ") and not in_list)
        ):
            block.append(line)
        elif said:
            close()
            in_list = not said[2]
            lines += ["", f"**{said[1]}**" + (f": {said[2]}" if said[2] else ""), ""]
        elif in_list and re.match(r" {2}\S", line):
            lines.append("- " + re.sub(r"^([\w*, .]+): ", lambda m: f"`{m[1]}`: ", line.strip()))
        elif in_list and line.startswith("    "):
            lines.append("    " + line.strip())
        else:
            close()
            in_list = in_list and not line.strip()
            lines.append(line)
    close()
    return "\n".join(lines)

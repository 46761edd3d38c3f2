"""Tests of the docs: their Python runs, their commands parse, and the names in them exist.

In README.md and docs/, the blocks ``python`` of one file are executed in order, in one namespace.
A block that begins with ``# Data: FOLDER`` needs real data: tests/docs/test_docs_on_data.py runs these.
Commands in ``bash`` blocks are parsed, not run. A backtick span that looks like a file or like
``module.name`` must exist, and a span right after `` `file.py`: `` must be code of that file.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import itertools
import pkgutil
import re
import shlex
import sys
import types
from functools import cache
from pathlib import Path

import pytest

import recsys_rl
import recsys_rl.settings.config
import recsys_rl.settings.shared
import recsys_rl.types
from recsys_rl.agents import AGENTS
from recsys_rl.cli.data import data_options
from recsys_rl.cli.evaluate import evaluate_options
from recsys_rl.cli.export import export_options
from recsys_rl.cli.fit_users import fit_users_options
from recsys_rl.cli.items import items_options
from recsys_rl.cli.log import log_options
from recsys_rl.cli.loop import loop_options
from recsys_rl.cli.ope import ope_options
from recsys_rl.cli.ranking import ranking_options
from recsys_rl.cli.recommend import recommend_options
from recsys_rl.cli.record import record_options
from recsys_rl.cli.release import release_options
from recsys_rl.cli.serve import serve_options
from recsys_rl.cli.train import train_options
from recsys_rl.cli.visitors import visitors_options
from recsys_rl.data import SOURCES
from recsys_rl.env import PLATFORMS
from recsys_rl.errors import UserError
from recsys_rl.utils.find import find

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LOG = ROOT / "docs" / "log"
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS_DATA = re.compile(r"# Data: (\S+)\n")
QUOTED = re.compile(r"`([\w/]+\.py)`: ?`([^`\n]+)`")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def blocks(text: str, tag: str) -> list[tuple[int, str]]:
    """Fenced blocks with this tag, with the number of lines above each."""
    return [(text[: m.start(2)].count("\n"), m.group(2)) for m in FENCE.finditer(text) if m.group(1) == tag]


def spans(text: str) -> list[str]:
    """Backtick spans of the running text."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


# The blocks.


@pytest.mark.proof_of("README.md", "docs/05_code_walkthrough.md")
@each_page
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(page.read_text(encoding="utf-8"), "python")
    found = [(above, code) for above, code in found if not NEEDS_DATA.match(code)]
    if not found:
        pytest.skip(f"{name_of(page)} has no Python in it")
    monkeypatch.chdir(tmp_path)  # a block may write files
    run_blocks(found, str(page), monkeypatch)


def run_blocks(
    found: list[tuple[int, str]], source: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    module = types.ModuleType("page")  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "page", module)
    for above, code in found:
        # Empty lines above make a traceback point into the page.
        exec(compile("\n" * above + code, source, "exec"), vars(module))  # noqa: S102 (our own pages)
    return vars(module)


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_commands_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _, block in blocks(page.read_text(encoding="utf-8"), "bash"):
        for command in commands(block):
            assert command_complaint(command) is None, shlex.join(command)


def test_the_commands_of_the_readme_carry_one_platform_through() -> None:
    """What `make train` trains is what all commands of the README's first pages go on with."""
    text = "".join(block for _, block in blocks((ROOT / "README.md").read_text(encoding="utf-8"), "bash"))
    trained = re.findall(r"-m train .*--env (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert set(re.findall(r"--env (\S+)", text)) == set(trained)


def commands(block: str) -> list[list[str]]:
    """Words of each simple command; comments, prompts and settings of the environment are left out."""
    found: list[list[str]] = []
    for line in block.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line.removeprefix("$ "), comments=True), ";"]:
            if word in {"|", ">", ";", "&&", "||", "&"}:
                found += [words] if words else []
                words = []
            elif words or not re.match(r"\w+=", word):
                words.append(word)
    return found


def command_complaint(words: list[str]) -> str | None:
    """The mistake in a command line that can be found without a run."""
    program, *rest = words
    program = Path(program).name
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        unknown = [word for word in rest if "=" not in word and word not in targets]
        return f"no target {unknown}" if unknown else None
    if re.fullmatch(r"python[\d.]*", program) and rest[:1] == ["-m"]:
        program, rest = rest[1], rest[2:]
        if program not in {"train", "evaluate"}:
            return None if importlib.util.find_spec(program) else f"no module {program}"
        rest = [program, *rest]
    elif program.startswith("python") and rest[:1] == ["-c"]:
        compile(rest[1], "docs", "exec")  # a SyntaxError names the mistake
        return None
    elif program.startswith("python"):
        script = next((word for word in rest if not word.startswith("-")), None)
        return None if script is None or (ROOT / script).is_file() else f"no file {script}"
    elif program != "recsys-rl":
        return None
    if not rest or rest[0] in {"--help", "--version"}:
        return None
    return option_complaint(rest[0], rest[1:])


def option_complaint(command: str, args: list[str]) -> str | None:
    parsers = {
        "train": train_options,
        "evaluate": evaluate_options,
        "recommend": recommend_options,
        "record": record_options,
        "ope": ope_options,
        "fit-users": fit_users_options,
        "ranking": ranking_options,
        "data": data_options,
        "serve": serve_options,
        "items": items_options,
        "visitors": visitors_options,
        "export": export_options,
        "log": log_options,
        "release": release_options,
        "loop": loop_options,
    }
    if command not in parsers:
        return f"no command {command}"
    for option, value in itertools.pairwise(args):
        if option == "--config":
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).touch()  # the reader's own file; an empty one holds no settings
    try:
        parsers[command](args)
    except UserError as error:  # the reader's own run is not here
        no_run_here = ("--resume" in args and "does not exist" in str(error)) or (
            "--run" in args and "is not a folder" in str(error)
        )
        of_reader = {"--checkpoint", "--user-model"} & {*args}
        no_run_here |= command == "train" and bool(of_reader) and "does not exist" in str(error)
        if not no_run_here:
            return str(error)
        if "--user-model" in args:
            return None  # its settings are in the file
        rest = [word for word in args if word != "--resume"]
        of_its_platform = {"--items"} if "--checkpoint" in rest else set()
        for option in ({"--run", "--checkpoint"} | of_its_platform) & {*rest}:
            del rest[rest.index(option) : rest.index(option) + 2]
        return option_complaint(command, rest)
    except SystemExit as stop:  # --help
        return None if not stop.code else f"exit code {stop.code}"
    return None


# The names in the text.


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_links_have_targets(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [link for link in links(text) if link_complaint(page, link)] == []


def links(text: str) -> list[str]:
    """Targets of links and images, except for other sites."""
    found = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def link_complaint(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return True
    return bool(anchor) and anchor not in anchors(target.read_text(encoding="utf-8"))


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings: lower case, no punctuation, hyphens for spaces."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@each_page
def test_names_exist(page: Path) -> None:
    if page.parent.name == "log":
        pytest.skip("an entry of the log names the code of its day")
    text = page.read_text(encoding="utf-8")
    assert [span for span in spans(text) if is_missing_file(span) or is_missing_name(span)] == []


@each_page
def test_quoted_code_is_in_its_file(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [quote for quote in QUOTED.findall(text) if not is_quoted_right(*quote)] == []


@each_page
def test_maths_survives_markdown(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert text.count("$$") % 2 == 0
    assert [formula for formula in formulas(text) if maths_complaint(formula)] == []


def formulas(text: str) -> list[str]:
    text = re.sub(r"\$?`[^`\n]+`\$?", "", text)
    return [a or b for a, b in re.findall(r"\$\$(.+?)\$\$|\$(.+?)\$", text, re.DOTALL)]


def maths_complaint(formula: str) -> bool:
    """True if GitHub, which reads Markdown before maths, would spoil this formula.

    It takes the backslash from `\\_`, makes a list or heading of a line that begins with - + = *, a link of
    `[a](b)`, and emphasis of what follows the underscore of `}_{`: put a space behind it
    (github/markup, issue 1575). Its own spelling, $`...`$, has none of these troubles.
    """
    return bool(re.search(r"\\_|^[-+=*] |\]\(|[^\w\s]_(?=\S)", formula, re.MULTILINE))


def is_missing_file(span: str) -> bool:
    """True for the path of a missing source file or page. `returns.py` may be in any folder.

    The map of a wing names its files by their paths in the wing.
    """
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)*\.(py|md)", span):
        return False
    if "/" in span:
        homes = (ROOT, *(ROOT / "recsys_rl" / wing for wing in ("", "evaluation", "logs", "serving")))
        return not any((home / span).is_file() for home in homes)
    rooms = (ROOT, *(ROOT / room for room in ("recsys_rl", "docs", "tests", "examples", "benchmarks")))
    return not any(place.is_file() for room in rooms for place in room.rglob(span))


def is_missing_name(span: str) -> bool:
    """True for `module.name` of a module of ours without this name. Fields of our data types count too.

    So `rollout.rewards` may mean Rollout's field: a local variable is often named like a module.
    """
    match = re.fullmatch(r"(\w+(?:\.\w+)+)(\(.*\))?", span)
    if match is None:
        return False
    parts = match.group(1).split(".")
    starts = [n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in modules()]
    if not starts or parts[-1] in {"py", "md", "toml", "pt"}:
        return False
    value: object = importlib.import_module(modules()[".".join(parts[: starts[0]])])
    names = parts[starts[0] :]
    for name in names:
        if name in getattr(value, "__dataclass_fields__", {}):
            return False
        if not hasattr(value, name):
            return name not in field_names()
        value = getattr(value, name)
    return False


def is_quoted_right(file: str, code: str) -> bool:
    places = [place for place in (ROOT / file, ROOT / "recsys_rl" / file) if place.is_file()]
    return bool(places) and code in places[0].read_text(encoding="utf-8")


@cache
def modules() -> dict[str, str]:
    """Modules by their names on a page: whole, or without `recsys_rl`, `functional` or `settings`."""
    found = {"recsys_rl": "recsys_rl"}
    for module in pkgutil.walk_packages(recsys_rl.__path__, "recsys_rl."):
        name = module.name.removeprefix("recsys_rl.")
        found |= {module.name: module.name, name: module.name}
        for room in ("functional.", "settings."):
            if name.startswith(room):
                found[name.removeprefix(room)] = module.name
    return found


@cache
def field_names() -> set[str]:
    """Fields and properties of the data types and of all settings."""
    records = [find(spec, "") for spec in {*PLATFORMS.values(), *AGENTS.values(), *SOURCES.values()}]
    classes = [record.config for record in records]
    for module in (recsys_rl.settings.config, recsys_rl.settings.shared, recsys_rl.types):
        classes += [x for x in vars(module).values() if isinstance(x, type) and dataclasses.is_dataclass(x)]
    names: set[str] = set()
    for value in classes:
        names |= {f.name for f in dataclasses.fields(value)}
        names |= {name for name, member in vars(value).items() if isinstance(member, property)}
    return names


# The log, and the exercises.


@pytest.mark.parametrize("page", sorted(LOG.glob("20*.md")), ids=name_of)
def test_log_entries_begin_with_their_conclusion(page: Path) -> None:
    assert log_complaints(page.read_text(encoding="utf-8"), page.stem) == []


def log_complaints(text: str, month: str) -> list[str]:
    """Entries of another month, out of order, or without a conclusion in bold as their first line."""
    _, *entries = re.split(r"^## ", FENCE.sub("", text), flags=re.MULTILINE)
    wrong, before = [], ""
    for title, _, body in (entry.partition("\n") for entry in entries):
        dated = re.match(rf"({month}-\d\d): ", title)
        concludes = re.match(r"\*\*[^*]+[.!]\*\*", body.strip())
        if not dated or dated[1] < before or not concludes:
            wrong.append(title)
        before = dated[1] if dated else before
    return wrong


def test_the_index_names_each_month_of_the_log() -> None:
    index = (LOG / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in LOG.glob("20*.md") if f"({page.name})" not in index] == []


@pytest.mark.parametrize(
    "name", ["02_rl_formulation.md", "03_theory_ppo.md", "04_theory_a2c.md"], ids=lambda name: name[:2]
)
def test_a_chapter_has_three_exercises_with_checked_answers(name: str) -> None:
    _, *exercises = re.split(
        r"^### Exercise ", (ROOT / "docs" / name).read_text(encoding="utf-8"), flags=re.M
    )
    assert len(exercises) == 3
    for exercise in exercises:
        answer = exercise.partition("<details>")[2].partition("</details>")[0]
        assert any("assert " in code for _, code in blocks(answer, "python")), exercise[:60]


# The checks themselves can fail.


# counted from 0: line 3 of the page

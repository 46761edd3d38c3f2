"""docs/stability.md lists what the code has: public names, commands, formats, routes."""

from __future__ import annotations

import importlib
import re

import pytest

from recsys_rl.checkpoint import sealed
from recsys_rl.cli import COMMANDS
from recsys_rl.logs import writer
from recsys_rl.logs.ope.answer import BROKEN, CANT_TELL, EXIT_CODES
from recsys_rl.logs.users import file as learned
from recsys_rl.serving.http.routes import routes
from recsys_rl.serving.record import record_schema
from tests.doors import ROOT

PAGE = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
PACKAGES = ("", ".testing", ".evaluation", ".logs", ".serving")
"""Packages with public names; a wing has them once it lists some."""


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("package", [f"recsys_rl{name}" for name in PACKAGES])
def test_public_names_are_those_of_the_page(package: str) -> None:
    names = sorted(getattr(importlib.import_module(package), "__all__", ()))
    row = re.search(rf"^\| `{re.escape(package)}` \| (.*) \|$", section("Python"), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", row[1] if row else "")) == names


def test_no_other_package_is_promised() -> None:
    promised = re.findall(r"^\| `([\w.]+)` \|", section("Python"), re.MULTILINE)
    assert {*promised} <= {f"recsys_rl{name}" for name in PACKAGES}


def test_commands_are_those_of_the_page() -> None:
    listed, rest = section("Commands").strip().split("\n\n", 1)
    assert sorted(re.findall(r"`([\w-]+)`", listed)) == sorted(COMMANDS)
    codes = re.search(r"(\d) better, (\d) worse, (\d) can't tell, (\d) the log is broken", rest)
    assert codes is not None
    assert [*map(int, codes.groups())] == [
        EXIT_CODES[answer] for answer in ("better", "worse", CANT_TELL, BROKEN)
    ]


def test_formats_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| (.*?) \(.*?\) \| (\d+) \| (\d+)(?: to (\d+))? \|", section("Files"), re.MULTILINE)
    said = {name: (int(newest), int(oldest), int(last or oldest)) for name, newest, oldest, last in rows}
    assert said == {
        "checkpoint": (sealed.FORMAT, sealed.OLDEST, sealed.FORMAT),
        "record of a server": (record_schema.FORMAT, record_schema.OLDEST, record_schema.FORMAT),
        "log of decisions": (writer.FORMAT, writer.FORMAT, writer.FORMAT),
        "learned users": (learned.VERSION, learned.VERSION, learned.VERSION),
    }


def test_routes_are_those_of_the_page() -> None:
    listed = re.findall(r"`((?:GET|POST) /\S*)`", section("HTTP"))
    page = {"/", "/page.js", "/release.js", "/page.css"}
    assert listed == [f"{route.method} {route.path}" for route in routes() if route.path not in page]

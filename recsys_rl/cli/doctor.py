"""`recsys-rl doctor`: what is installed here, as lines for an issue."""

from __future__ import annotations

import importlib
import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from recsys_rl.cli.parse import parse
from recsys_rl.version import __version__

TEXT = """Print the versions of what is installed here, as a block to paste into an issue.

It opens no file of yours, and sends nothing."""
NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class DoctorOptions:
    """The command has no options."""


def run(argv: list[str]) -> None:
    parse(DoctorOptions, DoctorOptions(), argv, "recsys-rl doctor", TEXT)
    print("Paste the lines between the marks into the issue.\n")
    print("\n".join(["```text", *report(), "```"]))


def report() -> list[str]:
    """The lines of the block: a name and what was found."""
    facts = {
        "recsys-rl": __version__,
        "python": platform.python_version(),
        "system": f"{platform.platform()}, {os.cpu_count()} cores",
        "torch": _torch(),
        "kernels": kernels(),
        "packages": ", ".join(packages()) or "unknown: recsys-rl is not installed as a package",
    }
    return [f"{name:<14}{value}" for name, value in facts.items()]


def packages() -> list[str]:
    """The version of each package that recsys-rl or one of its extras asks for, where it is there."""
    try:
        names = {match[0]: None for text in requires("recsys-rl") or () if (match := NAME.match(text))}
    except PackageNotFoundError:  # a checkout on the path
        names = {}
    known = {name: version_of(name) for name in names if name != "recsys-rl"}
    return [f"{name} {found}" for name, found in known.items() if found]


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _torch() -> str:
    """Version, threads and accelerator; the reason if torch can't be imported."""
    try:
        torch: Any = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return f"{version_of('torch')}, can't be imported: {error}"
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU found"
    return f"{torch.__version__}, {torch.get_num_threads()} threads, {cuda}, {device}"


def kernels() -> str:
    """The state of the compiled loops, with the reason where they are not used."""
    try:
        found: Any = importlib.import_module("recsys_rl.functional.compiled.kernels")
    except (ImportError, OSError):
        return "unknown: torch can't be imported"
    if found.switched_off():
        return f"switched off by {found.SWITCH}"
    if found.library() is not None:
        return "compiled"
    state = "can't be loaded" if found.path().exists() else "not compiled"
    return f"{state}: slower; install a C compiler and then this package again"

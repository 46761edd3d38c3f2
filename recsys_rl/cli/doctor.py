"""`recsys-rl doctor`: what is installed here, as lines for an issue."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from recsys_rl.cli.parse import parse
from recsys_rl.errors import UserError
from recsys_rl.utils.download import cache_folder
from recsys_rl.version import __version__

TEXT = """Print what is installed here and what it runs on, as a block to paste into an issue.

It reads the versions of the packages and a few numbers of this machine. It opens no file of yours, and sends
nothing."""
NAME = re.compile(r"[A-Za-z0-9._-]+")
EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RECSYS_RL_KERNELS")
PLATFORM = re.compile(r"sys_platform == ['\"](\w+)['\"]")
GIB = 2**30


@dataclass(frozen=True)
class DoctorOptions:
    """The command has no options."""


def run(argv: list[str]) -> None:
    parse(DoctorOptions, DoctorOptions(), argv, "recsys-rl doctor", TEXT)
    print("Paste the lines between the marks into the issue.\n")
    print("\n".join(["```text", *report(), "```"]))


def report() -> list[str]:
    """The lines of the block: a name and what was found."""
    packages, extras = found(requires_here())
    facts = {
        "recsys-rl": f"{__version__}, {_home(Path(__file__).parents[1])}",
        "python": f"{platform.python_version()}, {platform.python_implementation()}",
        "system": f"{platform.platform()}, {_processor()}",
        "cores": f"{_usable_cores()} of {os.cpu_count()}",
        "memory": memory(),
        "torch": _torch(),
        "settings": ", ".join(f"{name}={os.environ[name]}" for name in THREADS if name in os.environ)
        or "none",
        "kernels": kernels(),
        "cache": cache(),
        "packages": ", ".join(f"{name} {there or 'MISSING'}" for name, there in packages.items())
        or "unknown: recsys-rl is not installed as a package",
    }
    for extra, missing in extras.items():
        facts[f"[{extra}]"] = f"missing: {', '.join(missing)}" if missing else "all there"
    return [f"{name:<14}{value}" for name, value in facts.items()]


def requires_here() -> list[str]:
    """The requirements of the installed package, each as it stands in its metadata."""
    try:
        return requires("recsys-rl") or []
    except PackageNotFoundError:  # a checkout on the path
        return []


def found(requirements: list[str]) -> tuple[dict[str, str | None], dict[str, list[str]]]:
    """The version of each package that is always needed, None if it is missing; by extra, what is missing."""
    packages: dict[str, str | None] = {}
    extras: dict[str, list[str]] = {}
    for requirement in requirements:
        name, extra = NAME.match(requirement), EXTRA.search(requirement)
        platform_of = PLATFORM.search(requirement)
        elsewhere = platform_of is not None and platform_of[1] != sys.platform
        if name is None or name[0] == "recsys-rl" or elsewhere:
            continue
        if extra is None:
            packages[name[0]] = version_of(name[0])
        else:
            missing = extras.setdefault(extra[1], [])
            if version_of(name[0]) is None:
                missing.append(name[0])
    return packages, extras


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def memory() -> str:
    """Free and whole memory; the whole alone where the system has no /proc."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known = {name: int(rest.split()[0]) / 2**20 for name, rest in (line.split(":") for line in lines)}
        return f"{known['MemAvailable']:.1f} GiB free of {known['MemTotal']:.1f}{_limit()}"
    except (OSError, KeyError, ValueError):
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / GIB:.1f} GiB"


def _limit() -> str:
    """The limit of the container, where there is one."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    return f", limited to {int(limit) / GIB:.1f}" if limit.isdecimal() else ""


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


def cache() -> str:
    """The cache folder, whether it can be written, and the room on its disk."""
    try:
        folder = cache_folder()
    except UserError as error:
        return str(error)
    there = next(place for place in (folder, *folder.parents) if place.exists())
    state = "" if os.access(there, os.W_OK) else ", can't be written"
    return f"{_home(folder)}{state}, {shutil.disk_usage(there).free / GIB:.1f} GiB free"


def _home(path: Path) -> str:
    """The path with ~ in place of the home folder, whose name is a person's."""
    home = os.path.expanduser("~")
    return str(path).replace(home, "~", 1) if home != "/" and path.is_relative_to(home) else str(path)


def _processor() -> str:
    """The processor's name on Linux, else its kind."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return name[1].strip() if name else platform.machine()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

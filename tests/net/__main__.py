"""`python -m tests.net`: see the package."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.net.commands import package_folder
from tests.net.entries import Entry, entries


def main(words: list[str]) -> int:
    if words[:1] == ["compare"] and len(words) == 3:
        return compare(Path(words[1]), Path(words[2]))
    if not words or words[0].startswith("-") or words[0] == "compare":
        print("usage: python -m tests.net FOLDER [NAME ...] | compare A.json B.json", file=sys.stderr)
        return 2
    return make(Path(words[0]).resolve(), words[1:])


def make(folder: Path, names: list[str]) -> int:
    """Run the entries, and write their values to net.json in ``folder``, which must be new or empty."""
    if not names and folder.is_dir() and any(folder.iterdir()):
        print(f"{folder} is not empty: give a new folder.", file=sys.stderr)
        return 2
    (folder / "home").mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    began = time.monotonic()
    for name, entry in entries().items():
        if names and not any(part in name for part in names):
            continue
        start = time.monotonic()
        found[name] = _value(entry, folder)
        failed = found[name] if isinstance(found[name], str) else ""
        print(f"{time.monotonic() - start:6.1f} s  {name}  {failed}", flush=True)
    about = {
        "package": str(package_folder()),
        "commit": _commit(),
        "seconds": round(time.monotonic() - began),
        "cpu_seconds": round(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])),
    }
    (folder / "net.json").write_text(json.dumps({"about": about, "entries": found}, indent=1))
    failures = sum(isinstance(value, str) and value.startswith("FAILED") for value in found.values())
    spent = f"{about['seconds']} s, {about['cpu_seconds']} s of CPU"
    print(f"{folder / 'net.json'}: {len(found)} entries, {failures} failed, {spent}")
    return 0


def _value(entry: Entry, folder: Path) -> Any:
    """The value of an entry, or a text that begins with FAILED, so that the others still run.

    A copy of this process makes it: the threads of polars, once they have begun, would not live in the
    copies that commands run in.
    """
    file = folder / "value.json"
    file.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            value = entry(folder)
        except Exception as error:
            value = f"FAILED {type(error).__name__}: {error}"
        file.write_text(json.dumps(value))
        os._exit(0)
    os.waitpid(child, 0)
    return json.loads(file.read_text()) if file.exists() else "FAILED without a word"


def _commit() -> str:
    words = ["git", "-C", str(package_folder()), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def compare(one: Path, two: Path) -> int:
    """Print the entries that differ, and in which values; 1 if there are any."""
    first, second = (json.loads(path.read_text())["entries"] for path in (one, two))
    names = [*first, *(name for name in second if name not in first)]
    differ = 0
    for name in names:
        if name not in first or name not in second:
            differ += 1
            print(f"{name}: only in {one if name in first else two}")
        elif json.dumps(first[name]) != json.dumps(second[name]):  # as texts: NaN equals NaN
            differ += 1
            print(f"{name}:")
            for line in _differences("", first[name], second[name])[:8]:
                print(f"    {line}")
    print(f"{len(names) - differ} of {len(names)} entries are equal")
    return int(differ > 0)


def _differences(where: str, one: Any, two: Any) -> list[str]:
    """The values within an entry that differ, each as one line."""
    if json.dumps(one) == json.dumps(two):
        return []
    if isinstance(one, dict) and isinstance(two, dict):
        names = [*one, *(name for name in two if name not in one)]
        return [
            line
            for name in names
            for line in _differences(f"{where} {name}", one.get(name, "absent"), two.get(name, "absent"))
        ]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True))
        return [line for place, (a, b) in pairs for line in _differences(f"{where} [{place}]", a, b)]
    return [f"{where.strip()}: {json.dumps(one)[:200]} | {json.dumps(two)[:200]}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

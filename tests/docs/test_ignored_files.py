"""Files that the commands of README and docs write into a checkout are ignored by git."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.docs.test_docs import LINKING, ROOT, blocks

WRITTEN = re.compile(r"(?:--(?:out|db|json|onnx|train|test)| >) ([\w./-]+)")
FOLDERS = re.compile(r"--record ([\w-]+)")
IN_PYTHON = re.compile(r"""\.(?:write_parquet|write_csv)\("([\w./-]+)"\)""")
READ = re.compile(r"(?:--(?:data|log|target|items)|data \w+) ([\w-]+\.\w+)")
BESIDE = {"record.sqlite": ("-wal", "-shm", ".lock")}
OTHERS = {  # without an option, and named by a reader himself
    *("users.pt", "record.sqlite", "train.parquet", "test.parquet", "served_loop/log.parquet", "best.pt"),
    *("runs/first/ppo.pt", "checkpoints/ppo.pt"),
}


in_a_clone = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs git and a clone"
)


def files_of_commands() -> set[str]:
    """The files that the commands and the blocks of Python write, and the logs of readers that they name."""
    found = set(OTHERS)
    for page in LINKING:
        text = page.read_text(encoding="utf-8")
        for _, block in blocks(text, "bash"):
            lines = [line.partition(" #")[0] for line in block.splitlines()]
            found |= {x for line in lines for x in (*WRITTEN.findall(line), *READ.findall(line))}
            found |= {f"{x}/" for line in lines for x in FOLDERS.findall(line)}
        for _, block in blocks(text, "python"):
            found |= set(IN_PYTHON.findall(block))
    return found | {name + end for name in found for end in BESIDE.get(name, ())}


def ignored(names: set[str]) -> set[str]:
    """Those of ``names`` that git ignores in this checkout."""
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    run = subprocess.run(command, cwd=ROOT, input="\n".join(names), capture_output=True, text=True)
    assert run.returncode in (0, 1), run.stderr
    return set(run.stdout.splitlines())


@in_a_clone
def test_files_of_the_documented_commands_are_ignored_by_git() -> None:
    names = files_of_commands()
    assert {"log.parquet", "policy.onnx", "record.sqlite-wal", "clicks.csv", "mine.csv"} <= names
    assert {"replay/", "drift.json", "tokens", "thompson.parquet", "plays.csv"} <= names
    assert names - ignored(names) == set()


@in_a_clone
def test_no_tracked_file_is_ignored() -> None:
    run = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == ""

"""examples/nightly: systemd takes its files, and their commands run beside a server of a small world."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doors import ROOT, SATIATION, train_in
from tests.serving.live import live

NIGHTLY = ROOT / "examples" / "nightly"
HOME = "/srv/recsys"


def at(folder: Path, name: str) -> str:
    """The file with this folder in place of its own, and this Python's command in it."""
    command = folder / ".venv" / "bin" / "recsys-rl"
    if not command.exists():
        command.parent.mkdir(parents=True)
        command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m recsys_rl "$@"\n')
        command.chmod(0o755)
    return (NIGHTLY / name).read_text(encoding="utf-8").replace(HOME, str(folder))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_service_and_timer(tmp_path: Path) -> None:
    names = ["recsys-rl-loop.service", "recsys-rl-loop.timer"]
    for name in names:
        (tmp_path / name).write_text(at(tmp_path, name), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name in names)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if "recsys-rl-loop" in line]
    assert said == [] and done.returncode == 0, done.stderr


def commands(folder: Path, port: int) -> list[str]:
    """The lines for a shell of the service and of cron, for a server at this port."""
    service = re.search(r"^ExecStart=(.*)$", at(folder, "recsys-rl-loop.service"), re.MULTILINE)
    cron = [line for line in at(folder, "crontab").splitlines() if not line.startswith("#")]
    assert service is not None and len(cron) == 1
    assert cron[0].startswith("17 3 * * * ")
    both = [f"cd {shlex.quote(str(folder))} && {service[1]}", cron[0].split(maxsplit=5)[5]]
    return [line.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for line in both]


@pytest.mark.proof
def test_commands_of_service_and_cron_take_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cron's `nice` is one that changes nothing: with the real one it takes minutes on a busy machine."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nice").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "bin" / "nice").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "policies").mkdir()
    checkpoint = train_in(tmp_path / "run", *SATIATION, "--total-timesteps", "48")
    shutil.copy(checkpoint, tmp_path / "policies" / "first.pt")
    with live(tmp_path / "policies", tmp_path / "record.sqlite") as server:
        for command in commands(tmp_path, server.port):
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=240)
            assert done.returncode == 0, done.stderr
            said = done.stdout or (tmp_path / "loop.log").read_text(encoding="utf-8")
            assert "waiting: 0 of the 2,000" in said
    # Without the server the night fails with one sentence, and cron's log has it.
    code = subprocess.run(["sh", "-c", commands(tmp_path, server.port)[1]], timeout=240).returncode
    assert code == 2
    assert (tmp_path / "loop.log").read_text(encoding="utf-8").splitlines()[-1].startswith("error: ")

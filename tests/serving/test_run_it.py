"""The blocks of docs/10, "Run it": unit, backup under load, alert."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_rl.agents.ppo import PPO
from recsys_rl.cli import main
from recsys_rl.cli.serve import serve_options
from recsys_rl.serving.at_rest.opened_record import Record
from tests.docs.test_docs import ROOT
from tests.serving.servers import event, recommend, send, serving

At = Callable[[str], Path]


def block(tag: str) -> str:
    """The first block with this tag in the section."""
    text = (ROOT / "docs" / "10_serving.md").read_text(encoding="utf-8")
    section = text[text.index("## Run it\n") :]
    found = re.search(rf"^```{tag}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_reads_the_unit_without_a_complaint(tmp_path: Path) -> None:
    program = tmp_path / ".venv" / "bin" / "recsys-rl"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    unit = tmp_path / "recsys-rl.service"
    unit.write_text(block("ini").replace("/srv/recsys", str(tmp_path)))
    found = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert found.returncode == 0 and "recsys-rl.service" not in found.stderr, found.stderr


def test_the_command_of_the_unit_has_options_that_exist() -> None:
    (unit,) = re.findall(r"^ExecStart=(.*)$", block("ini"), re.MULTILINE)
    program, command, *words = shlex.split(unit)
    assert Path(program).name == "recsys-rl" and command == "serve"
    assert serve_options(words).checkpoint == "policies"


def test_a_backup_of_a_served_record_is_whole(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^recsys-rl (log backup .*)$", block("bash"), re.MULTILINE)
    with serving(checkpoint("satiation"), tmp_path / "record.sqlite") as client:
        send(client, event(recommend(client, "3"), "engagement", 0.5))
        assert main(command.split()) == 0
        recommend(client, "3")  # it goes on, and is not in the backup
    assert main(["log", "check", "--db", "backup.sqlite"]) == 0
    sizes = [[len(part) for part in whole[1:]] for whole in Record(tmp_path / "backup.sqlite").sessions()]
    assert sizes == [[1, 1]]  # one decision with one event


def test_the_alert_counts_what_the_server_counts(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = re.findall(r"increase\((.*?)\[", block("yaml"))
    with serving(checkpoint("satiation"), tmp_path / "record.sqlite") as client:
        monkeypatch.setattr(PPO, "scores", lambda self, obs: 1 / 0)
        recommend(client, "3")
        assert f"{name} 1.0\n" in client.get("/metrics").text

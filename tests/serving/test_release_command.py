"""`recsys-rl release` against a running server."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path

import pytest

from recsys_rl.cli import main
from recsys_rl.cli.release import KINDS, release_options
from recsys_rl.errors import UserError
from recsys_rl.serving.http.release_routes import ACTIONS
from recsys_rl.serving.loop.release import Releases
from tests.doors import assert_names
from tests.serving.live import live
from tests.serving.servers import begun
from tests.serving.test_refusals import sha256


def test_a_release_from_its_start_to_its_way_back(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, db = Path(shutil.copytree(two, tmp_path / "policies")), tmp_path / "r.sqlite"
    a, b = sha256(folder / "a.pt"), sha256(folder / "b.pt")
    verdict = {"challenger": b, "champion": a, "answer": "no harm seen", "items": 1.25}
    (folder / f"{b}.gate.json").write_text(json.dumps(verdict))
    begun(folder / "a.pt", db)
    with live(folder, db) as server:

        def release(*words: str) -> tuple[int, str]:
            code = main(["release", *words, "--url", server.url])
            said = capsys.readouterr()
            return code, said.out + said.err

        assert release("status") == (0, f"champion   {a[:12]}\nno release is under way\n")
        assert release("history") == (0, "no release so far\n")
        code, said = release("start", str(folder / "b.pt"), "--share", "0.25", "--reason", "a try")
        assert code == 0 and f"challenger {b[:12]}: 25% of the sessions" in said
        assert Releases(server.url).history()[0]["verdict"] == verdict
        assert release("start", str(folder / "b.pt"))[0] == 2
        assert "50% of the sessions" in release("share", "0.5")[1]
        code, said = release("promote")
        assert code == 2 and "canary" in said and said.count("\n") == 1
        assert "frozen (a check): no new sessions" in release("freeze", "--reason", "a check")[1]
        assert release("promote", "--without-gate", "--challenger", a[:12])[0] == 2
        code, said = release("promote", "--without-gate", "--challenger", b[:12], "--reason", "we know it")
        assert code == 0 and said.startswith(f"promoted   {b[:12]}\n") and " 1.25;" in said
        assert f"\nchampion   {b[:12]}\n" in said
        assert release("status")[1].startswith(f"champion   {b[:12]}\n")
        assert release("promote", "--without-gate")[0] == 2  # nothing is under way
        assert release("back")[0] == 2 and release("back", "--promotion", a[:12])[0] == 2
        assert release("back", "--promotion", b[:12], "--reason", "we did not") == (
            0,
            f"champion   {a[:12]}\nno release is under way\n",
        )
        assert release("alias", str(folder / "b.pt"))[1].startswith(f"champion   {b[:12]}\n")
        lines = release("history")[1].splitlines()
        assert [re.split(" +", line.strip())[3] for line in lines] == [
            *("start", "share", "freeze", "promote", "back", "alias")
        ]
        assert "gate: no harm seen, canary: can't tell, promoted all the same; we know it" in lines[3]


def test_each_action_of_the_server_is_a_command() -> None:
    assert [name for name in KINDS if name not in ("status", "history")] == [of.name for of in ACTIONS]


def test_a_server_of_one_file_names_the_folder_that_it_needs(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with live(two / "a.pt", tmp_path / "r.sqlite") as server:
        assert main(["release", "start", str(two / "b.pt"), "--url", server.url]) == 2
        assert_names(capsys.readouterr().err, "a.pt", "--checkpoint FOLDER")
        assert Releases(server.url).history() == []


def test_a_server_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["release", "status", "--url", "http://127.0.0.1:9"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "gives no answer" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ["begin"],
        ["start"],
        ["start", "none.pt"],
        ["alias"],
        ["alias", "none.pt"],
        ["start", "x.pt", "--share", "1"],
        ["back", "--promotion", "b.pt"],
        ["promote", "--challenger", "b.pt"],
    ],
)
def test_mistakes_are_refused_before_a_server_is_asked(words: list[str]) -> None:
    assert main(["release", *words, "--url", "http://127.0.0.1:9"]) == 2


def test_a_share_that_is_missing_is_not_one_half(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["release", "share", "--url", "http://127.0.0.1:9"]) == 2
    assert "missing" in capsys.readouterr().err


def test_a_server_that_takes_long_may_still_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_rl.serving.loop.client.PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as slow, pytest.raises(UserError) as refused:
        Releases(f"http://127.0.0.1:{slow.getsockname()[1]}").act("share", share=0.5)
    assert "may still" in str(refused.value)


def test_a_share_of_nobody_or_of_everybody_is_no_share() -> None:
    for share in ("0", "1", "-0.5", "nan", "0.0009", "1e-320"):
        with pytest.raises(UserError):
            release_options(["share", share])


def test_a_damaged_verdict_beside_the_challenger_is_refused(two: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(two, tmp_path / "policies"))
    (folder / f"{sha256(folder / 'b.pt')}.gate.json").write_text("{")
    assert main(["release", "start", str(folder / "b.pt"), "--url", "http://127.0.0.1:9"]) == 2

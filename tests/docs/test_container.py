"""docker/: both files are read, and the commands run in an empty folder with an empty environment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.docs.test_forge import check
from tests.doors import ROOT, SATIATION, STARTED, train_in

DOCKER = ROOT / "docker"
INSTRUCTIONS = {"FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "CMD"}
TOKEN = "try"


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its words on one line."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line]


def image() -> list[tuple[str, str]]:
    """The instructions of the last stage, which the image is made of."""
    found = instructions()
    return found[max(place for place, (name, _) in enumerate(found) if name == "FROM") :]


def script(name: str) -> str:
    """The file of the checkout that lies in the image under the last word of a command."""
    return str(DOCKER / Path(name).name)


def test_compose_file_has_the_form_of_its_specification() -> None:
    done = check("vendor.compose-spec", DOCKER / "compose.yaml")
    assert done.returncode == 0, done.stdout


def test_image_is_of_a_supported_python_and_the_torch_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {name for name, _ in instructions()} == INSTRUCTIONS
    bases = {re.split("[:-]", words)[1] for name, words in instructions() if name == "FROM"}
    assert len(bases) == 1 and f"Programming Language :: Python :: {bases.pop()}" in project["classifiers"]
    torch = next(text for text in project["dependencies"] if text.startswith("torch>"))
    assert any(f'"{torch}" --index-url' in words for name, words in instructions() if name == "RUN")


def test_copied_files_exist_and_are_not_ignored() -> None:
    rules = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = [
        source
        for name, words in instructions()
        if name == "COPY" and not words.startswith("--from")
        for source in words.split()[:-1]
    ]
    assert copied and all((ROOT / source).exists() for source in copied)
    assert all(any(fnmatch(source, rule) for rule in kept) for source in copied)
    assert all(list(ROOT.glob(rule)) for rule in kept)


def test_image_runs_as_no_root_with_a_volume_and_a_check() -> None:
    last = dict(image())
    assert last["USER"] == "recsys" and last["VOLUME"] == last["WORKDIR"] == "/data"
    assert last["HEALTHCHECK"].split("CMD ")[0].split() == [
        "--interval=10s",
        "--timeout=3s",
        "--start-period=60s",
    ]
    assert Path(script(json.loads(last["CMD"])[1])).is_file()
    kept = [words for name, words in image() if name == "COPY" and not words.startswith("--from")]
    assert all(f"docker/{Path(json.loads(last['CMD'])[1]).name}" in words for words in kept)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image has: `recsys-rl` and `python` on the path, and a first policy."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "bin").mkdir()
    for name, words in (("recsys-rl", "-m recsys_rl"), ("python", "")):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {words} "$@"\n')
        program.chmod(0o755)
    # With the real one a turn takes minutes on a busy machine.
    (folder / "bin" / "nice").write_text('#!/bin/sh\nexec "$@"\n')
    (folder / "bin" / "nice").chmod(0o755)
    train_in(folder / "run", *SATIATION, "--total-timesteps", "48").rename(folder / "first.pt")
    return folder


def environment(home: Path) -> dict[str, str]:
    return {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "FIRST": str(home / "first.pt")}


@contextmanager
def started(command: list[str], folder: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    STARTED.append(process)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ask(port: int, path: str, body: object = None, token: str = TOKEN) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    ) as it:
        answer: dict[str, object] = json.load(it)
        return answer


@pytest.mark.proof
def test_commands_of_the_image_answer_in_an_empty_folder(home: Path, tmp_path: Path) -> None:
    last, variables = dict(image()), environment(home)
    shell, place = json.loads(last["CMD"])
    command = [shell, script(place), "--host", "127.0.0.1", "--port", "0"]
    refused = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

    with started(command, tmp_path, {**variables, "RECSYS_RL_TOKEN": TOKEN}) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        port = int(re.search(r"127\.0\.0\.1:(\d+)", line)[1])  # type: ignore[index]
        answer = ask(port, "/v1/recommend", {"user_id": "ann", "likes": ["7", "12"]})
        assert answer["decision_id"] and answer["degraded"] is None
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(port, "/v1/recommend", {"user_id": "ann"}, token="another")

        # The health check of the image, at this port.
        words = json.loads(last["HEALTHCHECK"].split("CMD ")[1])
        asked = [word.replace(":8000", f":{port}") for word in words]
        subprocess.run(asked, cwd=tmp_path, env=variables, check=True, timeout=60)

        # The nightly loop of the compose file, beside it: a turn, then another.
        text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
        shell, place = re.search(r"command: \[(\w+), (\S+)\]", text).groups()  # type: ignore[union-attr]
        nightly = tmp_path.parent / "nightly.sh"
        nightly.write_text(Path(script(place)).read_text().replace(":8000", f":{port}"))
        with open(tmp_path / "turns.txt", "w", encoding="utf-8") as out:
            turns = subprocess.Popen(
                [shell, str(nightly), "0.1"],
                cwd=tmp_path,
                env={**variables, "RECSYS_RL_TOKEN": TOKEN},
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        STARTED.append(turns)
        until = time.monotonic() + 200
        while time.monotonic() < until and (tmp_path / "turns.txt").read_text().count("waiting: ") < 2:
            time.sleep(0.2)
        os.killpg(turns.pid, signal.SIGKILL)  # the shell, and the turn under way
        turns.wait(60)
        said = (tmp_path / "turns.txt").read_text()
        assert said.count("waiting: ") >= 2 and "failed" not in said
    assert (tmp_path / "record.sqlite").is_file() and (tmp_path / "policies" / "first.pt").is_file()
    assert (tmp_path / "record.sqlite").stat().st_mode & 0o77 == 0  # nobody else reads the record


def test_scripts_are_read_by_the_shell() -> None:
    for path in DOCKER.glob("*.sh"):
        subprocess.run(["sh", "-n", str(path)], check=True)
        assert path.read_text(encoding="utf-8").startswith("#!/bin/sh\n")

"""The wheel contains only the package, names its dependencies, and works in a venv of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import urllib.request
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement  # pytest needs it, too

from recsys_rl.functional.compiled.kernels import load

ROOT = Path(__file__).resolve().parent.parent

# Building a wheel takes pip some seconds, and it downloads hatchling.
pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path) -> str:
    """Run outside of the checkout and its settings, so that only the installed package is found."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, ROOT, cwd=out)
    (path,) = out.glob("*.whl")
    return path


def test_wheel_contains_only_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    compiled = any(name.endswith(".so") for name in names)
    assert wheel.name.startswith("recsys_rl-0.2.0-py3-none-")
    assert wheel.name.endswith("-any.whl") != compiled
    assert compiled == any(map(shutil.which, (os.environ.get("CC", "cc"), "cc", "gcc", "clang")))
    assert "recsys_rl/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"recsys_rl", "recsys_rl-0.2.0.dist-info"}
    endings = {Path(name).suffix for name in names if name.startswith("recsys_rl/")}
    assert endings - {".so"} == {".c", ".css", ".h", ".html", ".js", ".py", ".typed"}


def test_wheel_without_a_compiler_is_platform_independent(tmp_path: Path) -> None:
    environment = os.environ | {"CC": "/bin/false"}
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-v",
        "--no-deps",
        "-w",
        tmp_path,
        ROOT,
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "the kernels were not compiled" in done.stdout + done.stderr
    (path,) = tmp_path.glob("*.whl")
    assert path.name == "recsys_rl-0.2.0-py3-none-any.whl"
    assert not [name for name in zipfile.ZipFile(path).namelist() if name.endswith(".so")]


def test_wheel_requires_what_pyproject_lists(wheel: Path) -> None:
    """An extra that names others of this project has what they list."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]

    def whole(extra: str) -> set[str]:
        named = [Requirement(text) for text in extras[extra]]
        others = [name for it in named if it.name == project["name"] for name in it.extras]
        return {str(it) for it in named if it.name != project["name"]}.union(*map(whole, others))

    listed = {str(Requirement(text)) for text in project["dependencies"]}
    listed |= {
        str(Requirement(f'{text}{" and" if ";" in text else ";"} extra == "{extra}"'))
        for extra in extras
        for text in whole(extra)
    }
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert {str(Requirement(text)) for text in metadata.get_all("Requires-Dist", [])} == listed
    assert sorted(metadata.get_all("Provides-Extra", [])) == sorted(extras)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The Python of a new venv without pip, which sees this interpreter's packages, but its own first."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    path = tmp_path / "venv/bin/python"
    (packages,) = (tmp_path / "venv/lib").glob("python3*/site-packages")
    others = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    (packages / "others.pth").write_text("\n".join(others) + "\n")  # .pth files there have no effect
    return path


def test_installed_wheel_trains_evaluates_and_serves(wheel: Path, python: Path, tmp_path: Path) -> None:
    """Its dependencies are those of this interpreter; this checkout is not on the path."""
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    run(*pip, "--ignore-installed", wheel, cwd=tmp_path)
    venv = python.parent.parent
    home = run(python, "-c", "import recsys_rl; print(recsys_rl.__file__)", cwd=tmp_path)
    assert Path(home.strip()).is_relative_to(venv)
    command = venv / "bin/recsys-rl"
    usage = run(command, "--help", cwd=tmp_path)
    assert "train" in usage
    assert "evaluate" in usage
    small = ["--num-items", "20", "--num-users", "20"]
    small += ["--num-envs", "4", "--n-steps", "8", "--batch-size", "16"]
    run(command, "train", "--data", "synthetic", *small, "--total-timesteps", "64", cwd=tmp_path)
    assert (tmp_path / "checkpoints" / "ppo.pt").is_file()

    judged = run(
        command, "evaluate", "--max-users", "4", "--no-planner", "--cache-dir", "cache", cwd=tmp_path
    )
    assert "yardstick" in judged and "searched" in judged
    answer = served(command, tmp_path)
    assert len(answer["items"]) == 1 and 0 < answer["items"][0]["propensity"] <= 1


def served(command: Path, cwd: Path) -> dict[str, Any]:
    """The answer of `recsys-rl serve` to a visitor."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    options = ["--checkpoint", "checkpoints/ppo.pt", "--db", "record.sqlite", "--port", "0"]
    with subprocess.Popen(
        [command, "serve", *options, "--deadline-ms", "30000"],
        cwd=cwd,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            said = iter(server.stdout.readline, "")
            pattern = re.compile(r"http://127\.0\.0\.1:\d+")
            address = next(match[0] for line in said if (match := pattern.search(line)))
            body = json.dumps({"user_id": "visitor", "n": 1}).encode()
            post = urllib.request.Request(
                f"{address}/v1/recommend", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(post, timeout=60) as reply:
                found: dict[str, Any] = json.load(reply)
                return found
        finally:
            server.terminate()


def test_source_archive_has_what_tests_and_site_need(tmp_path: Path) -> None:
    pytest.importorskip("build")
    run(sys.executable, "-m", "build", "--sdist", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CITATION.cff", "SECURITY.md", "hatch_build.py", "Makefile"} <= names
    assert {"docs/site/conf.py", "docs/notebooks/own_log.py", "tests/test_wheel.py"} <= names
    assert {name for name in names if name.endswith((".so", ".ipynb", ".pt"))} == set()


def test_wheel_can_carry_a_manylinux_tag(wheel: Path) -> None:
    """Which one depends on the C library of this machine."""
    pytest.importorskip("auditwheel")
    if "-linux_" not in wheel.name:
        pytest.skip("nothing was compiled, or not on Linux")
    said = " ".join(run(sys.executable, "-m", "auditwheel", "show", wheel, cwd=wheel.parent).split())
    assert re.search(r'platform tag: "manylinux_2_\d+_', said), said


@pytest.mark.parametrize(("compiler", "openmp"), [("gcc", "-fopenmp"), ("clang", "-fopenmp-simd")])
def test_compilers_give_no_warnings(compiler: str, openmp: str, tmp_path: Path) -> None:
    """clang also warns if it does not vectorise a loop that is marked as a vector loop."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    options = ["-O3", openmp, "-fno-math-errno", "-fno-trapping-math", "-std=gnu11", "-Wall", "-Wextra"]
    options += ["-fPIC", "-shared", "-o", str(tmp_path / "kernels.so")]
    sources = map(str, (ROOT / "recsys_rl/functional/compiled").glob("*.c"))
    said = subprocess.run([compiler, *options, *sources, "-lm"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")
    load(tmp_path / "kernels.so")  # loading resolves the names that one file uses of another

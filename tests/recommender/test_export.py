"""`recsys-rl export`: the ONNX file scores as the policy does, in batches of any size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.cli.extras import PACKAGES
from recsys_rl.functional.categorical import Categorical
from recsys_rl.functional.compiled import kernels
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.recommender import load
from recsys_rl.types import Obs, UserError
from tests.doors import CARTPOLE, DRIFT, SATIATION, train_in

RUNS = {
    "satiation": SATIATION,  # with deep-sets and two towers, by its preset
    "sums": [*SATIATION, "--encoder", "mlp", "--head", "dense"],
    "transformer": [*SATIATION, "--encoder", "transformer", "--head", "scorer"],
    "gated": [*DRIFT, "--env", "social-feed", "--head", "gated"],
    "patterns": [*DRIFT, "--env", "shop"],
    "slates": [*DRIFT, "--env", "social-feed", "--max-episode-steps", "3"],
    "candidates": [*SATIATION, "--candidates", "12", "--head", "two-tower"],
    "gym": CARTPOLE,
}
Get = Callable[[str], Path]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Get:
    folder = tmp_path_factory.mktemp("exported")
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = train_in(folder / name, *RUNS[name], "--total-timesteps", "48")
        return made[name]

    return get


@pytest.fixture(scope="module")
def exported(checkpoint: Get, tmp_path_factory: pytest.TempPathFactory) -> Get:
    """The file that the command writes for a run, which it finds through a link."""
    folder = tmp_path_factory.mktemp("onnx")
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason=f"{name}, of the extra export, is not installed")

    def get(name: str) -> Path:
        path = folder / name / "policy.onnx"
        if not path.parent.exists():
            path.parent.mkdir()
            link = folder / f"{name}.pt"
            link.symlink_to(checkpoint(name))
            assert main(["export", "--checkpoint", str(link), "--onnx", str(path)]) == 0
        return path

    return get


def observation(interface: Any, number: int) -> Obs:
    """Histories with 0 to L items, and numbers of every size."""
    rng = torch.Generator().manual_seed(number)
    context = torch.randn(number, interface.context_size, generator=rng)
    length = interface.history_length
    if not length:
        return Obs(context)
    history = torch.randint(0, interface.action_sizes[0], (number, length), generator=rng)
    empty = torch.arange(length) < torch.randint(0, length + 1, (number, 1), generator=rng)
    signals = torch.rand(number, length, len(interface.signals), generator=rng)
    return Obs(context, history.masked_fill(empty, -1), signals.masked_fill(empty.unsqueeze(-1), 0.0))


@pytest.mark.proof_of("transformer", "slates")
@pytest.mark.parametrize("name", ["satiation", "sums", "transformer", "slates"])
def test_file_scores_as_the_policy_in_batches_of_any_size(name: str, checkpoint: Get, exported: Get) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra export, is not installed")
    session = runtime.InferenceSession(str(exported(name)), providers=["CPUExecutionProvider"])
    policy = load(checkpoint(name))
    for number in (1, 8, 32):
        obs = observation(policy.checkpoint.interface, number)
        inputs = {key: x.numpy() for key, x in vars(obs).items() if x is not None}
        assert {x.name for x in session.get_inputs()} == {*inputs}
        (scores,) = session.run(None, inputs)
        np.testing.assert_allclose(scores, policy.agent.scores(obs).numpy(), rtol=1e-4, atol=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["item_ids"]) == policy.checkpoint.catalogue.item_ids.tolist()
    inputs_of, interface = json.loads(facts["interface"]), policy.checkpoint.interface
    assert tuple(inputs_of.pop("context").items()) == interface.context
    assert inputs_of == {
        "signals": [*interface.signals],
        "slate_size": interface.slate_size,
        "repeats": interface.repeats,
        "session_length": interface.session_length,
    }
    assert {x.name for x in exported(name).parent.iterdir()} == {"policy.onnx"}


@pytest.mark.parametrize("name", ["gym", "candidates", "gated", "patterns"])
def test_policies_without_such_scores_are_refused(
    name: str, checkpoint: Get, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setitem(PACKAGES, "export", ())
    file, path = checkpoint(name), tmp_path / "policy.onnx"
    capsys.readouterr()
    assert main(["export", "--checkpoint", str(file), "--onnx", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not [*tmp_path.iterdir()]


def test_difference_is_refused_and_nothing_written(
    checkpoint: Get, exported: Get, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    made = exported("satiation").read_bytes()
    monkeypatch.setattr("recsys_rl.recommender.export._translated", lambda *_: made)
    true = ActorCritic.forward

    def larger(model: ActorCritic, obs: Any) -> Any:
        distribution, value = true(model, obs)
        return Categorical(distribution.logits + 1), value

    monkeypatch.setattr(ActorCritic, "forward", larger)
    target = str(tmp_path / "policy.onnx")
    assert main(["export", "--checkpoint", str(checkpoint("satiation")), "--onnx", target]) == 2
    assert "differ" in capsys.readouterr().err and not [*tmp_path.iterdir()]


def test_no_file_is_written_before_all_are_made(checkpoint: Get, tmp_path: Path, monkeypatch: Any) -> None:
    def fail(_: object) -> None:
        raise UserError("No vectors.")

    monkeypatch.setitem(PACKAGES, "export", ())
    monkeypatch.setattr("recsys_rl.recommender.export._translated", lambda *_: b"")
    monkeypatch.setattr("recsys_rl.recommender.export._compare", lambda *_: 0.0)
    monkeypatch.setattr("recsys_rl.recommender.export_vectors.item_factors", fail)
    files = ("--onnx", str(tmp_path / "policy.onnx"), "--vectors", str(tmp_path / "vectors.npz"))
    assert main(["export", "--checkpoint", str(checkpoint("satiation")), *files]) == 2
    assert not [*tmp_path.iterdir()]


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(PACKAGES, "export", ("no_such_package",))
    assert main(["export", "--onnx", str(tmp_path / "policy.onnx")]) == 2
    err = capsys.readouterr().err
    assert "no_such_package" in err and "recsys-rl[export]" in err and err.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_compiled_loops_serve_no_export(monkeypatch: Any) -> None:
    before = kernels.library()
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "_is_exporting_flag", True)
        assert kernels.library() is None
    assert kernels.library() is before

"""`recsys-rl export --vectors`: the vectors of items and users; the example of docs/10 folds new users in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.data.catalogue import build_world
from recsys_rl.data.embeddings import fold_in, item_factors, like_matrix, user_vectors
from recsys_rl.errors import UserError
from recsys_rl.recommender import load
from recsys_rl.recommender.export_vectors import check_vectors, file_of_vectors
from recsys_rl.types import World
from tests.data.test_new_items_and_data import SIZES
from tests.docs.test_docs import ROOT
from tests.doors import CARTPOLE, SATIATION, train_in
from tests.worlds import two_camps


def folded_by_the_docs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The profile that the example of docs/10 makes of the items 5 and 7 of ``folder``/vectors.npz."""
    text = (ROOT / "docs" / "10_serving.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'```text\n(v = np\.load\("vectors\.npz"\)\n.*?)```', text, re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"np": np}
    exec(code, names)  # noqa: S102 (our own page)
    profile = names["profile"]
    assert isinstance(profile, np.ndarray)
    return profile


def test_vectors_are_those_of_the_policy_and_need_no_onnx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = train_in(tmp_path / "run", *SATIATION, "--total-timesteps", "48")
    monkeypatch.setattr("recsys_rl.cli.export.need", lambda extra: pytest.fail("no extra is needed"))
    assert main(["export", "--checkpoint", str(file), "--vectors", str(tmp_path / "vectors.npz")]) == 0
    policy = load(file)
    found = np.load(tmp_path / "vectors.npz")
    assert found["item_ids"].tolist() == policy.checkpoint.catalogue.item_ids.tolist()
    assert found["user_ids"].tolist() == policy.users
    np.testing.assert_array_equal(found["item_vectors"], policy.catalogue.embedding)
    np.testing.assert_array_equal(found["user_vectors"], policy.profiles_of(policy.users))
    np.testing.assert_allclose(
        folded_by_the_docs(tmp_path, monkeypatch), policy.profile_of([5, 7])[0], atol=1e-5
    )


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_fold_in_of_a_factorised_log_with_and_without_popularity(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = dict(SIZES, num_items=12, embedding_dim=4, popularity_share=share)
    catalogue, population = build_world(two_camps(), cache_dir=tmp_path, **sizes)  # type: ignore[arg-type]
    catalogue = replace(catalogue, item_ids=torch.arange(12))
    (tmp_path / "vectors.npz").write_bytes(file_of_vectors(World(catalogue, population)))
    likes = like_matrix(np.zeros(2, int), np.array([5, 7]), (1, 12))
    factors, gram = item_factors(catalogue)
    expected = user_vectors(catalogue, fold_in(likes, factors, gram=gram))[0]
    profile = torch.from_numpy(folded_by_the_docs(tmp_path, monkeypatch))
    torch.testing.assert_close(profile.float(), expected, atol=1e-5, rtol=0)
    assert len(profile) == catalogue.embedding.shape[1]


def test_no_vectors_of_a_platform_without_items_or_to_another_kind_of_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = train_in(tmp_path / "run", *CARTPOLE, "--total-timesteps", "48")
    assert main(["export", "--checkpoint", str(file), "--vectors", str(tmp_path / "vectors.npz")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "vectors.npz").exists()
    with pytest.raises(UserError):
        check_vectors(tmp_path / "vectors.csv")

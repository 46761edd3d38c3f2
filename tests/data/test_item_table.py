"""Memory-mapped item embeddings: mapped and not copied, drawn once; each bad file is a UserError."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_rl.checkpoint import Checkpoint, load, previous, save, sealed
from recsys_rl.data import clustered
from recsys_rl.data.clustered import clustered_items, clustered_world
from recsys_rl.data.item_table import open_table, write_table
from recsys_rl.data.table import table_world
from recsys_rl.settings.config import Config
from recsys_rl.types import Interface, UserError, World

ROWS = np.array([[1, 0], [0.6, 0.8], [0, -1]], dtype=np.float32)


def world(path: Path, **changes: Any) -> Any:
    settings = {"num_items": 10, "num_users": 6, "embedding_dim": 2, "heldout_fraction": 0.5, "seed": 0}
    return table_world(path, **{**settings, **changes})


def test_world_from_an_own_table(tmp_path: Path) -> None:
    path = tmp_path / "items.npy"
    np.save(path, ROWS)
    catalogue, population = world(path)
    assert catalogue.embedding.tolist() == ROWS.tolist()
    assert catalogue.num_items == 3 and "all 3 items" in catalogue.source
    assert catalogue.title(2) == "item 2" and catalogue.titles == ()
    assert catalogue.table_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.allclose(population.taste.norm(dim=1), torch.ones(6))
    assert sorted([*population.train.tolist(), *population.heldout.tolist()]) == list(range(6))
    first = world(path, num_items=2)[0]
    assert first.num_items == 2 and "first 2 of 3" in first.source


def test_table_is_mapped_and_never_written(tmp_path: Path) -> None:
    path = tmp_path / "items.npy"
    np.save(path, ROWS)
    before = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that it may not write to
        table = open_table(path)
    if Path("/proc/self/maps").exists():
        start = int(table.data_ptr())
        spans = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        (home,) = [s for s in spans if int(s[0].split("-")[0], 16) <= start < int(s[0].split("-")[1], 16)]
        assert home[-1] == str(path)
    table[0, 0] = 7.0
    assert path.read_bytes() == before


def test_users_lie_between_two_items(tmp_path: Path) -> None:
    """In a table of one item, a user without noise is that item; with noise, the cosine is at least 0.98."""
    path = tmp_path / "items.npy"
    np.save(path, ROWS[1:2])
    taste = world(path)[1].taste
    # |2 e + 0.3 n|: the angle is at most asin(0.15)
    assert (taste @ torch.tensor([0.6, 0.8])).min() >= (1 - 0.15**2) ** 0.5 - 1e-6
    assert len(taste.unique(dim=0)) == 6


def test_items_of_a_cluster_are_similar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 clusters: cosine 1 / (1 + 0.25) within a cluster, 0 between, within 0.1 in 64 dimensions."""
    monkeypatch.setattr(clustered, "_ROWS", 33)  # parts of 33 items, the last of 1
    items = torch.from_numpy(np.concatenate(list(clustered_items(100, 64, 0))))
    assert torch.allclose(items.norm(dim=1), torch.ones(100))
    cosines = (items @ items.T)[~torch.eye(100, dtype=torch.bool)]
    near = cosines > 0.5
    assert abs(cosines[near].mean().item() - 0.8) < 0.05 and abs(cosines[~near].mean().item()) < 0.05
    neighbours = ((items @ items.T) > 0.5).int()
    assert len(neighbours.unique(dim=0)) <= 10


def test_clustered_table_is_drawn_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = clustered_world(50, 10, 8, 0.2, 3, tmp_path)
    (path,) = tmp_path.glob("clustered-*.npy")
    assert "Drawing 50 items" in capsys.readouterr().err
    two = clustered_world(50, 10, 8, 0.2, 3, tmp_path)
    assert capsys.readouterr().err == ""
    assert torch.equal(one[0].embedding, two[0].embedding) and torch.equal(one[1].taste, two[1].taste)
    once = one[0].embedding.clone()  # a copy: a mapped tensor changes with the file
    whole = path.read_bytes()
    (proof,) = tmp_path.glob("clustered-*.npy.sha256")
    assert proof.read_text() == f"{hashlib.sha256(whole).hexdigest()}  {path.name}\n"
    for damaged in (whole[:-4], whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:]):  # one bit: the norm is 1
        path.write_bytes(damaged)
        three = clustered_world(50, 10, 8, 0.2, 3, tmp_path)
        assert "damaged; made again" in capsys.readouterr().err
        assert torch.equal(once, three[0].embedding) and path.read_bytes() == whole
    proof.unlink()  # a run killed before it writes this file leaves none
    clustered_world(50, 10, 8, 0.2, 3, tmp_path)
    assert "made again" in capsys.readouterr().err and proof.exists()
    assert not torch.equal(once, clustered_world(50, 10, 8, 0.2, 4, tmp_path)[0].embedding)
    assert {*tmp_path.iterdir()} == {*tmp_path.glob("clustered-*.npy*")}  # no half-written file


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def of_shape(shape: tuple[int, ...]) -> bytes:
    """640 bytes with a header that declares float32 of that shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(640)


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, ROWS)
    return file.getvalue()


NAN, ZERO, LONG = ROWS.copy(), ROWS.copy(), ROWS.copy()
NAN[1, 0], ZERO[2], LONG[0, 0] = np.nan, 0, 3


@pytest.mark.parametrize(
    "content",
    [
        npy(ROWS)[:-4],
        npy(ROWS)[:40],
        b"",
        b"user,item\n1,2\n",
        npy(np.array([{}], dtype=object)),
        of_shape((-5, 32)),
        of_shape((-5, -32)),
        of_shape((2**63, 1)),
        of_shape((True, 2)),
        archive(),
        npy(ROWS.astype(np.float64)),
        npy(ROWS.astype(">f4")),
        npy(ROWS[0]),
        npy(ROWS[:0]),
        npy(np.asfortranarray(ROWS)),
        npy(NAN),
        npy(ZERO),
        npy(LONG),
    ],
)
def test_bad_table_file_is_a_user_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "items.npy"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        world(path)
    assert str(caught.value).startswith(f"{path} ") and str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: world(folder / "none.npy"),
        lambda folder: open_table(folder),
        lambda folder: world(folder / "items.npy", embedding_dim=3),
        lambda folder: world(folder / "items.npy", heldout_fraction=0.01),
        lambda folder: clustered_world(9, 9, 2, 0.5, 0, folder / "items.npy"),
    ],
)
def test_wrong_embedding_size_is_a_user_error(call: Callable[[Path], Any], tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", ROWS)
    with pytest.raises(UserError):
        call(tmp_path)


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "items.npy"
    np.save(path, ROWS)

    def broken() -> Any:
        yield ROWS
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError):
        write_table(path, broken(), (6, 2))
    assert np.load(path).tolist() == ROWS.tolist() and list(tmp_path.iterdir()) == [path]


# Checkpoints that name a table.


def saved(folder: Path) -> Path:
    np.save(folder / "items.npy", ROWS)
    small = World(*world(folder / "items.npy", num_items=2))
    config = Config(num_items=2, embedding_dim=2, hidden_dims=[1])
    interface, agent = Interface((("user", 2),), (2,), session_length=20), {"weights": torch.zeros(4)}
    save(folder / "ppo.pt", Checkpoint(config, interface, small, agent, {}, {}, {}, 0, 0, {}))
    return folder / "ppo.pt"


def test_checkpoint_maps_the_table_again(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert "catalogue.embedding" not in sealed.read(path)[1]
    catalogue = load(path).catalogue
    assert catalogue.embedding.tolist() == ROWS[:2].tolist()
    assert catalogue.title(1) == "item 1"


@pytest.mark.parametrize(
    "change",
    [
        {"table_file": "nowhere.npy"},
        {"table_file": "no\0file"},
        {"table_file": 3},
        {"table_file": "/dev/zero"},
        {"table_sha256": "0" * 64},
        {"table_sha256": None},
        {"table_file": ""},
        {"titles": ["one"]},
    ],
)
def test_checkpoint_with_a_changed_table_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path)
    texts, tensors = sealed.read(path)
    texts["catalogue"] |= change
    sealed.write(path, texts, tensors)
    previous(path).unlink()
    with pytest.raises(UserError):
        load(path)


@pytest.mark.parametrize("ids", [torch.tensor(2), torch.zeros(0), torch.arange(9), torch.zeros(2, 2)])
def test_checkpoint_with_wrong_item_ids_is_refused(ids: torch.Tensor, tmp_path: Path) -> None:
    path = saved(tmp_path)
    texts, tensors = sealed.read(path)
    sealed.write(path, texts, {**tensors, "catalogue.item_ids": ids})
    previous(path).unlink()
    with pytest.raises(UserError):
        load(path)

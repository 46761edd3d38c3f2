"""KuaiRand: views of short videos, and views of videos that were put into the feed at random.

Gao et al. 2022, "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos",
CIKM, DOI 10.1145/3511808.3557624; CC BY-SA 4.0. A like is a view with ``is_click``: the video was opened, or
watched for long where the feed plays by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys_rl.data.catalogue import DatasetConfig, world_of_log
from recsys_rl.data.kuaishou import video_facts
from recsys_rl.data.tables.events import make_log
from recsys_rl.data.tables.items import ItemFacts
from recsys_rl.data.tables.read import parsing
from recsys_rl.records import Source
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import InteractionLog, UserError, World
from recsys_rl.utils.download import NoNetwork, cache_folder, fetch, has_member, read_member

URL = "https://zenodo.org/records/10439422/files/"
ARCHIVES = {
    "KuaiRand-Pure.tar.gz": (47_432_272, "0820331067a3784d9691136f772b35a7"),
    "KuaiRand-1K.tar.gz": (1_135_436_720, "6b0b9c8222d67fcd4c676218edca3f1f"),
}
DEFAULT = "KuaiRand-Pure.tar.gz"
STANDARD = ("log_standard_4_08_to_4_21_{}.csv", "log_standard_4_22_to_5_08_{}.csv")
RANDOM = "log_random_4_22_to_5_08_{}.csv"
FEATURES = "video_features_basic_{}.csv"


@dataclass(frozen=True)
class KuaiRand:
    """Views with rating 1 (clicked) or 0. Times are seconds; weights are seconds watched, at least 0.001."""

    standard: InteractionLog  # videos that the app recommended
    random: InteractionLog  # videos drawn uniformly from a fixed pool: exposure known by design


def load_kuairand(data_dir: str | Path | None = None, cache_dir: str | Path | None = None) -> KuaiRand:
    """Load KuaiRand-Pure or -1K from ``data_dir``, else from the cache, else download Pure (47 MB).

    ``data_dir`` is an official archive, its unpacked folder, or the folder of its CSV files (gzipped or not).
    Repeated views (same user, video and time) count once. Videos have the durations [s], creators and tags
    of the file ``FEATURES`` where it stands beside the logs. Raises UserError.
    """
    location, kind, source, facts = _open(data_dir, cache_dir)
    return KuaiRand(
        _log(location, [name.format(kind) for name in STANDARD], source, facts),
        _log(location, [RANDOM.format(kind)], f"{source}, random exposures", facts),
    )


def random_exposures(
    data_dir: str | Path | None = None, cache_dir: str | Path | None = None
) -> tuple[InteractionLog, ItemFacts]:
    """The random exposures of ``load_kuairand``, and what is known of their videos. Raises UserError."""
    location, kind, source, facts = _open(data_dir, cache_dir)
    return _log(location, [RANDOM.format(kind)], f"{source}, random exposures", facts), facts


def _open(data_dir: str | Path | None, cache_dir: str | Path | None) -> tuple[Path, str, str, ItemFacts]:
    """The archive or folder, the kind in the names of its logs, the name of the source, and the videos."""
    root = cache_folder(cache_dir) if data_dir is None else Path(data_dir)
    release = _find(root)
    if release is None and data_dir is not None:
        raise UserError(
            f"{root} holds no KuaiRand data: --data-dir takes an official archive or the folder of "
            f"{STANDARD[0].format('pure')}."
        )
    if release is None:
        size, md5 = ARCHIVES[DEFAULT]
        try:
            release = fetch(URL + DEFAULT, root / DEFAULT, size=size, md5=md5), "pure"
        except NoNetwork as error:
            raise UserError(
                f"No kuairand data here and no way to download it ({error}): give a folder that has it "
                "(--data-dir), go online, or train on made-up items (--data synthetic)."
            ) from error
    location, kind = release
    source = f"kuairand ({location.name})"
    facts = video_facts(location, FEATURES.format(kind), source)
    source = f"kuairand ({location.name}; {facts.note})" if facts.note else source
    return location, kind, source, facts


def _find(root: Path) -> tuple[Path, str] | None:
    """The archive or folder with the logs, and the kind in their names."""
    folders = [root / folder / "data" for folder in ("KuaiRand-Pure", "KuaiRand-1K")]
    for location in (root, root / "data", *folders, *(root / name for name in ARCHIVES)):
        for kind in ("pure", "1k"):
            if has_member(location, STANDARD[0].format(kind)):
                return location, kind
    return None


def _log(location: Path, names: list[str], source: str, facts: ItemFacts) -> InteractionLog:
    schema = {
        "user_id": pl.Int64,
        "video_id": pl.Int64,
        "time_ms": pl.Int64,
        "is_click": pl.Float32,
        "play_time_ms": pl.Float32,
    }
    parts = []
    for name in names:
        with parsing(f"{source}: {name}"):
            raw = read_member(location, name)
            table = pl.read_csv(raw, columns=list(schema), schema_overrides=schema)
            parts.append(table.select(list(schema)))
    frame = pl.concat(parts).drop_nulls().unique(["user_id", "video_id", "time_ms"], maintain_order=True)
    videos = frame["video_id"].unique().to_list()
    return make_log(
        frame["user_id"],
        frame["video_id"],
        frame["time_ms"] / 1000,
        frame["is_click"],
        weights=(frame["play_time_ms"] / 1000).clip(lower_bound=1e-3),
        source=source,
        titles={video: f"video {video}" for video in videos},
        rating_range=(0.0, 1.0),
        genres=facts.genres,
        attributes=facts.attributes,
    )


def _make_world(config: DatasetConfig, sizes: EnvConfig, seed: int) -> World:
    return world_of_log(load_kuairand(config.data_dir, config.cache_dir).standard, config, sizes, seed)


SOURCE = Source(DatasetConfig, _make_world)

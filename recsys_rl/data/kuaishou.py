"""Files about videos whose columns KuaiRec and KuaiRand share."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys_rl.data.tables.items import ItemFacts
from recsys_rl.data.tables.read import parsing
from recsys_rl.utils.download import has_member, read_member


def video_facts(location: Path, name: str, source: str) -> ItemFacts:
    """Duration [s], creator and, where there is a column ``tag``, tags of each video of the file ``name``.

    ``location``: a folder or archive. Without the file there are no facts. A file with several rows of a
    video gives its longest duration and its first creator. ``note`` states how many videos lack a duration.
    """
    if not has_member(location, name):
        return ItemFacts()
    schema = {"video_id": pl.Int64, "author_id": pl.Int64, "video_duration": pl.Float64, "tag": pl.String}
    with parsing(f"{source}: {name}"):
        raw = read_member(location, name)
        names = pl.read_csv(raw, n_rows=0).columns
        wanted = {column: kind for column, kind in schema.items() if column in names or column != "tag"}
        frame = pl.read_csv(raw, columns=list(wanted), schema_overrides=wanted)
        tags = _tags(frame) if "tag" in frame.columns else {}
    videos = frame["video_id"].unique().to_list()
    longest = frame.filter(pl.col("video_duration") > 0).group_by("video_id").agg(pl.max("video_duration"))
    authors = frame.drop_nulls("author_id").unique("video_id", keep="first", maintain_order=True)
    lacking = len(videos) - longest.height
    return ItemFacts(
        ids=videos,
        genres=tags,
        attributes={
            "duration": {video: milliseconds / 1000 for video, milliseconds in longest.rows()},
            "creator": dict(authors.select("video_id", "author_id").rows()),
        },
        note=f"{lacking:,} of {len(videos):,} videos without a duration have the mean" if lacking else "",
    )


def tag_name(number: str | int) -> str:
    """The name of a tag, as the datasets give none. These names sort by number."""
    return f"tag {int(number):02}"


def _tags(frame: pl.DataFrame) -> dict[int, list[str]]:
    """The tags of each video, from texts like 27,9."""
    rows = frame.select("video_id", "tag").drop_nulls().rows()
    return {video: [tag_name(number) for number in text.split(",")] for video, text in rows}

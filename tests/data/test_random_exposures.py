"""The loaders of datasets with random exposures, on small files of the official layout and on real data."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from recsys_rl.data.kuairand import load_kuairand
from recsys_rl.make import assumptions, make_world
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import UserError
from tests.worlds import shared_data

HEAD = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,play_time_ms,duration_ms,is_rand\n"


@pytest.mark.parametrize("packed", [False, True])
def test_kuairand_by_hand(tmp_path: Path, packed: bool) -> None:
    files = {
        "log_standard_4_08_to_4_21_pure.csv": "7,3,20220408,1,5000,1,0,2500,9000,0\n" * 2,
        "log_standard_4_22_to_5_08_pure.csv": "6,3,20220422,1,9000,0,0,0,9000,0\n",
        "log_random_4_22_to_5_08_pure.csv": "6,4,20220422,1,8000,1,0,10,9000,1\n",
    }
    for name, rows in files.items():
        raw = (HEAD + rows).encode()
        (tmp_path / (name + ".gz" * packed)).write_bytes(gzip.compress(raw) if packed else raw)
    found = load_kuairand(tmp_path)
    assert found.standard.user_ids.tolist() == [6, 7] and found.standard.item_ids.tolist() == [3]
    assert found.standard.ratings.tolist() == [0.0, 1.0] and found.standard.times.tolist() == [9, 5]
    assert found.standard.weights is not None
    assert found.standard.weights.tolist() == pytest.approx([0.001, 2.5])
    assert found.random.item_ids.tolist() == [4] and found.random.source.endswith("random exposures")
    assert found.standard.attributes.keys() == {"genres", "year"}
    assert not found.standard.features[0].values
    with pytest.raises(UserError):
        load_kuairand(tmp_path / "absent")


def write_views(folder: Path, videos: list[int], users: int) -> None:
    """Logs in which each user clicked all of these videos."""
    for name in ("log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv"):
        views = [
            f"{user},{video},20220408,1,{1000 * number},1,0,2500,9000,0\n"
            for user in range(users)
            for number, video in enumerate(videos)
        ]
        (folder / name).write_text(HEAD + "".join(views))
    (folder / "log_random_4_22_to_5_08_pure.csv").write_text(
        HEAD + f"0,{videos[0]},20220422,1,9,0,0,10,9000,1\n"
    )


def test_kuairand_durations_creators_and_tags(tmp_path: Path) -> None:
    write_views(tmp_path, [3, 4, 8], users=1)
    (tmp_path / "video_features_basic_pure.csv").write_text(
        'video_id,author_id,video_type,video_duration,tag\n3,90,NORMAL,1500.0,"27,9"\n4,7,AD,2500.0,\n8,90,AD,,5\n'
    )
    log = load_kuairand(tmp_path).standard
    assert log.item_ids.tolist() == [3, 4, 8]
    assert log.attributes["duration"].tolist() == [1.5, 2.5, 2.0]  # the mean for a gap
    assert log.attributes["creator"].tolist() == [1, 0, 1]  # classes of the texts 7 and 90
    assert log.features[0].values == ("tag 05", "tag 09", "tag 27")
    assert log.attributes["genres"].tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert log.source == "kuairand (" + tmp_path.name + "; 1 of 3 videos without a duration have the mean)"


def test_short_video_keeps_the_durations_of_the_real_videos(tmp_path: Path) -> None:
    """The official file of KuaiRand-Pure's videos, with made-up views of its first 30."""
    features = shared_data("kuairand") / "video_features_basic_pure.csv.gz"
    (tmp_path / features.name).write_bytes(features.read_bytes())
    write_views(tmp_path, list(range(30)), users=12)
    log = load_kuairand(tmp_path).standard
    assert log.attributes["duration"][:3].tolist() == pytest.approx([87.433, 218.066, 9.233])
    assert "239 of 7,583 videos without a duration" in log.source
    assert log.features[0].values[0] == "tag 01" and len(log.attributes["creator"].unique()) > 20
    data = {"data": "kuairand", "data_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache")}
    sizes = {"num_items": 30, "embedding_dim": 4, "max_episode_steps": 20}
    config = from_dict(Config, {"env": "short-video", "env_config": sizes, "data_config": data})
    world = make_world(config)
    assert world.catalogue.drawn == ("hook",)
    assert assumptions(config, world).startswith("durations and creators come from the data; hooks")

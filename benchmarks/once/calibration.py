"""How near do the simulated users come to real ones? One row for each statistic.

    python -m benchmarks.once.calibration [--views 1000000] [--requests 160000] [--lives 2000]
        [--only social-feed] [--real FOLDER] [--json FILE] [--csv FILE] [--smoke]

A row has the real value and its source, the simulated value under the uniform policy (videos drawn
uniformly), their distance, the limit and True if the distance is within it. The real values come from the
files in FOLDER (default: ../shared/data), from the half of the users that chose no setting: those with odd
places in the order of their ids. Rows whose file is absent are "not available". The official statistics of
KuaiRec are of all its users. The simulated users are all users of the default world. The rows of visits are
of whole lives under the popularity policy; the heavy users are the tenth with the most videos in 14 days.

The rows of ads (social-feed) are of --lives simulated lives of a year under each load of ads.
``--only social-feed`` makes these rows alone.

The rows of long-video compare settings with a fit of the choice model to --requests simulated requests, as no
log is open (calibration_choice.py).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from benchmarks.once import calibration_choice as choice
from benchmarks.once import calibration_feed as feed
from benchmarks.once import calibration_visits as visits
from benchmarks.once.calibration_rows import difference, missing, relative, row
from benchmarks.once.calibration_statistics import aucs, gain_of_taste, variance_share
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.short_video import ShortVideoState
from recsys_rl.make import make_env, make_world
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import World

Array = NDArray[Any]
ENV = "short-video"
KUAIREC = "KuaiRec small matrix"
OFFICIAL = {"quartiles": (0.466, 0.766, 1.114), "mean": 0.855, "deviation": 0.595}
NUM_ENVS = 4096
FIFTHS = np.array([0.2, 0.4, 0.6, 0.8])
DISLIKED = 0.1  # a simulated view with a satisfaction below this counts as disliked
WORLDS = 8  # in which the videos have other durations


@dataclasses.dataclass(frozen=True)
class Views:
    """Views of videos, (V,) each."""

    user: Array
    video: Array
    ratio: Array
    seconds: Array
    duration: Array
    liked: Array
    shared: Array
    followed: Array
    commented: Array
    satisfaction: Array
    hour: Array  # of the day, at the start of the view
    affinity: Array  # cosine of the user's true taste and the video


def simulate(config: Config, world: World, count: int, num_envs: int, seed: int = 0) -> Views:
    """At least ``count`` views of videos that are drawn uniformly, each once in a session."""
    env = make_env(config, world, num_envs, torch.Generator().manual_seed(seed))
    assert isinstance(env, RecEnv)
    everyone = torch.arange(len(world.population.user_ids))
    env.users = everyone
    env.reset(everyone.repeat(-(-num_envs // len(everyone)))[:num_envs])
    generator = torch.Generator().manual_seed(seed + 1)
    parts: list[list[torch.Tensor]] = []
    seen = 0
    with torch.inference_mode():
        while seen < count:
            users, state = env.session.users, env.user_state
            assert isinstance(state, ShortVideoState)
            items = torch.randint(world.catalogue.num_items, (num_envs, 1), generator=generator)
            feedback = env.step(items).feedback
            assert feedback is not None
            shown = feedback.shown[:, 0]
            signals = {s.name: feedback.signals[:, 0, index] for index, s in enumerate(env.signals)}
            duration = world.catalogue.attributes["duration"][items[:, 0]]
            names = ("liked", "shared", "followed", "commented", "satisfaction")
            columns = (
                *(users, items[:, 0], signals["watch_ratio"], signals["seconds"], duration),
                *(signals[name] for name in names),
                state.hour % 24,
                (state.taste * world.catalogue.embedding[items[:, 0]]).sum(1),
            )
            parts.append([column[shown] for column in columns])
            seen += int(shown.sum())
    return Views(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))


def watch_ratio_rows(views: Views, folder: Path) -> list[Row]:
    """Watch ratios under the uniform policy against KuaiRec."""
    ratio, often = views.ratio, views.ratio > 2
    quartiles = np.quantile(ratio, (0.25, 0.5, 0.75))
    gap = float(np.abs(quartiles - OFFICIAL["quartiles"]).mean())
    official = f"{KUAIREC}, official statistics"
    wanted = " ".join(f"{value:.3f}" for value in np.array(OFFICIAL["quartiles"]))
    rows = [
        row(
            "watch ratio, quartiles",
            official,
            wanted,
            " ".join(f"{value:.3f}" for value in quartiles),
            gap,
            0.05,
        ),
        difference("watch ratio, mean", official, float(str(OFFICIAL["mean"])), float(ratio.mean()), 0.05),
        difference("watch ratio, sd", official, float(str(OFFICIAL["deviation"])), float(ratio.std()), 0.05),
    ]
    log_ratio = np.log(0.05 + ratio)
    simulated = aucs(views.user, views.video, often)
    gains = [gain_of_taste(views.user, views.video, often, affinity) for affinity in (None, views.affinity)]
    names = ("watch ratio above 2", "AUC of above 2, video", "AUC of above 2, user and video")
    likes = folder / "kuairec" / "small_matrix_like.npz"
    if likes.is_file():
        real, theirs, gain = _real_likes(likes)
        rows += [
            difference(names[0], KUAIREC, real, float(often.mean()), 0.01),
            difference(names[1], KUAIREC, theirs[0], simulated[0], 0.03),
            difference(names[2], KUAIREC, theirs[1], simulated[1], 0.03),
        ]
    else:
        rows += [missing(name, KUAIREC, limit) for name, limit in zip(names, (0.01, 0.03, 0.03), strict=True)]
        gain = None
    rows.append(taste_row(gain, *gains))
    sample = folder / "kuairec" / "small_matrix_watch_ratio_sample.csv.gz"
    shares = {"user": views.user, "video": views.video}
    if not sample.is_file():
        return rows + [missing(f"variance of ln(0.05 + ratio), {name}", KUAIREC, 0.05) for name in shares]
    frame = _odd(pl.read_csv(sample))
    log_real = np.log(0.05 + frame["watch_ratio"].to_numpy())
    for name, group in shares.items():
        real = variance_share(log_real, frame[f"{name}_id"].to_numpy())
        statistic = f"variance of ln(0.05 + ratio), {name}"
        rows.append(difference(statistic, KUAIREC, real, variance_share(log_ratio, group), 0.05))
    return rows


def taste_row(real: float | None, simulated: float, most: float) -> Row:
    """Gains of the AUC by a taste; no limit is set, and the row says which world is more personal.

    Args:
        real: by a low-rank fit, in KuaiRec; None if the file is absent.
        simulated: by the same fit to the simulated views.
        most: by the true taste of the simulated users.
    """
    name = "AUC of above 2, gain by a low-rank taste"
    note = f"the true taste gains {most:.4f}; all users of KuaiRec with another fit: 0.011"
    if real is None:
        return {**missing(name, KUAIREC, 0.0), "simulated": simulated, "limit": None}
    which = "more" if simulated > real else "less"
    note = f"this world is {which} personal by {abs(simulated - real):.4f}; {note}"
    compared = row(name, KUAIREC, real, simulated, abs(simulated - real), 0.0)
    return {**compared, "limit": None, "passed": None, "note": note}


def _real_likes(path: Path) -> tuple[float, tuple[float, float], float]:
    """Share of the cells above 2, the AUCs and the gain by a taste, of users with odd places."""
    with np.load(path, allow_pickle=False) as file:
        likes = np.unpackbits(file["like_packed"], axis=1, count=len(file["video_id"]))[1::2]
    users, videos = np.indices(likes.shape)
    cells = users.ravel(), videos.ravel(), likes.ravel()
    return float(likes.mean()), aucs(*cells), gain_of_taste(*cells)


def explicit_views(folder: Path) -> pl.DataFrame | None:
    """Liked and disliked views of KuaiRand by users with odd places; None if the file is absent."""
    path = folder / "kuairand" / "kuairand27k_explicit_kcore15.tsv.gz"
    if not path.is_file():
        return None
    return _odd(pl.read_csv(path, separator="\t"))


def _odd(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of users with odd places, counted from 0, in the order of their ids."""
    return frame.filter(pl.col("user_id").rank("dense") % 2 == 0)


def kuairand_rows(
    config: Config, world: World, count: int, num_envs: int, real: pl.DataFrame | None
) -> list[Row]:
    """Behaviour by length of the video, after a like, and by hour, against KuaiRand."""
    source, parts = "KuaiRand, explicit feedback", range(1, 6)
    left = [f"disliked: median seconds, fifth {k} of length" for k in parts]
    ends = [f"liked: median watch ratio, fifth {k} of length" for k in parts]
    after = {
        "follow, given a like": "is_follow",
        "forward, given a like": "is_forward",
        "comment, given a like": "is_comment",
    }
    if real is None:
        names = [(name, 0.15) for name in left + ends]
        names += [*((name, 1 / 3) for name in after), ("hour of the day, total variation", 0.05)]
        return [missing(name, source, limit) for name, limit in names]
    timed = real.filter(pl.col("duration_ms") > 0)
    length, played, label = (timed[name].to_numpy() for name in ("duration_ms", "play_time_ms", "label"))
    length, played = length / 1000, played / 1000
    worlds = [_with_durations(world, length, seed) for seed in range(WORLDS)]
    drawn = [simulate(config, world, count // WORLDS, num_envs, seed) for seed, world in enumerate(worlds)]
    views = Views(*(np.concatenate(columns) for columns in zip(*map(_columns, drawn), strict=True)))
    rows = []
    of_dislikes = (label == 0, views.satisfaction < DISLIKED)
    rows += _by_length(left, source, (length, played), (views.duration, views.seconds), of_dislikes)
    of_likes = (label == 1, views.liked == 1)
    rows += _by_length(ends, source, (length, played / length), (views.duration, views.ratio), of_likes)
    liked = real.filter(pl.col("label") == 1)
    flags = views.followed, views.shared, views.commented
    for (name, column), flag in zip(after.items(), flags, strict=True):
        share = float(flag[views.liked == 1].mean())
        rows.append(relative(name, source, float(liked[column].to_numpy().mean()), share, 1 / 3))
    hours = np.bincount(real["hourmin"].to_numpy() // 100, minlength=24) / len(real)
    simulated = np.bincount(views.hour.astype(int), minlength=24) / len(views.hour)
    variation = float(np.abs(hours - simulated).sum() / 2)
    rows.append(row("hour of the day, total variation", source, None, None, variation, 0.05))
    return rows


def visit_rows(config: Config, world: World, real: pl.DataFrame | None) -> list[Row]:
    """Days between active days of heavy users, against KuaiRand; and retention, for which no log is open."""
    name, source = "gaps of 1, 2, 3, more days, total variation", "KuaiRand, explicit feedback"
    counts = visits.simulate_days(config, world)
    shares = visits.gap_shares(visits.gaps_of(visits.heavy_users(counts)))
    if real is None:
        rows = [missing(name, source, 0.05)]
    else:
        wanted = visits.gap_shares(visits.real_gaps(real))
        gap = float(np.abs(wanted - shares).sum() / 2)
        theirs, ours = (" ".join(f"{share:.3f}" for share in values) for values in (wanted, shares))
        rows = [row(name, source, theirs, ours, gap, 0.05)]
    retained = {day: visits.retention(counts, day) for day in (1, 7, 30)}
    for day, share in retained.items():
        rows.append({**missing(f"D{day}", "none", 1.0, "assumed"), "simulated": share, "limit": None})
    slower = (retained[7] - retained[30]) / 23 / max(1e-9, (retained[1] - retained[7]) / 6)
    name = "fall of retention a day, D7 to D30 over D1 to D7"
    return [*rows, {**row(name, "none", None, slower, slower, 1.0), "note": "assumed"}]


def _columns(views: Views) -> list[Array]:
    return [getattr(views, field.name) for field in dataclasses.fields(views)]


def _with_durations(world: World, length: Array, seed: int) -> World:
    """The world with durations drawn from ``length``, in seconds."""
    drawn = np.random.default_rng(seed).choice(length, world.catalogue.num_items)
    attributes = {**world.catalogue.attributes, "duration": torch.from_numpy(drawn).float()}
    return World(dataclasses.replace(world.catalogue, attributes=attributes), world.population)


def _by_length(
    names: list[str],
    source: str,
    real: tuple[Array, Array],
    simulated: tuple[Array, Array],
    chosen: tuple[Array, Array],
) -> list[Row]:
    """Medians of the second column in fifths of the first; the fifths are those of the real views."""
    edges = np.quantile(real[0][chosen[0]], FIFTHS)
    medians = []
    for (length, value), mask in zip((real, simulated), chosen, strict=True):
        fifth = np.searchsorted(edges, length[mask])
        medians.append([float(np.median(value[mask][fifth == k])) for k in range(5)])
    return [relative(name, source, one, two, 0.15) for name, one, two in zip(names, *medians, strict=True)]


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--views", type=int, default=1_000_000, help="simulated views of each world")
    parser.add_argument(
        "--requests",
        type=int,
        default=choice.REQUESTS,
        help=f"simulated requests of long-video, a multiple of {choice.STEPS}",
    )
    parser.add_argument(
        "--lives", type=int, default=feed.USERS, help="lives of social-feed under each load of ads"
    )
    parser.add_argument("--only", choices=[feed.ENV], help="make the rows of this platform alone")
    parser.add_argument("--real", type=Path, default=tables.ROOT.parent / "shared" / "data")
    parser.add_argument("--seed", type=int, default=1)
    args = tables.parse(parser, "calibration")
    torch.set_num_threads(args.threads or 1)
    settings: dict[str, Any] = {"train_config": {"seed": args.seed}}
    num_envs, months = NUM_ENVS, feed.MONTHS
    slates: dict[str, Any] = {}  # settings of long-video alone
    if args.smoke:
        small: dict[str, Any] = {"num_items": 60, "embedding_dim": 8, "max_episode_steps": 30}
        settings |= {"data_config": {"data": "synthetic", "num_users": 50}, "env_config": small}
        slates = {"env_config": {**small, "num_items": 300}}
        args.views, args.requests, args.lives = 20_000, 4_000, 20
        num_envs, months = 256, 3
    if args.only == feed.ENV:
        tables.publish(feed_rows(settings, args.lives, months), args)
        return
    config = from_dict(Config, {"env": ENV, **settings})
    world = make_world(config)
    rows = watch_ratio_rows(simulate(config, world, args.views, num_envs), args.real)
    real = explicit_views(args.real)
    rows += kuairand_rows(config, world, args.views, num_envs, real)
    rows += visit_rows(config, world, real)
    config = from_dict(Config, {"env": choice.ENV, **settings, **slates})
    rows += choice.choice_rows(config, make_world(config), args.requests)
    rows += feed_rows(settings, args.lives, months)
    tables.publish(rows, args)


def feed_rows(settings: dict[str, Any], lives: int, months: int) -> list[Row]:
    """The rows of ads."""
    config = from_dict(Config, {"env": feed.ENV, **settings})
    return feed.feed_rows(config, make_world(config), lives, months)


if __name__ == "__main__":
    tables.run(main)

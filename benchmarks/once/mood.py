"""How much of the mood's worth do encoders of histories reach, on `short-video`?

    python -m benchmarks.once.mood [--seeds 0-3] [--first-steps 400000] [--steps 400000]
        [--set mood_deviation=2 ...] [--keep FOLDER]

PPO with the sums is trained for ``--first-steps``. Four runs then begin with its weights, and learn for
``--steps`` more. Those with the sums and the transformer see the platform's observation. Two more
with the sums see more: ``filter`` a Bayesian estimate of the mood from the same history, by the platform's
equations, and ``shown`` the mood itself. The weights of what is new are 0 at first, so all four begin as one
policy. (Trainings from nothing differ by more than the mood is worth.)

Each then plays several sessions with each held-out user, and the means over a user's sessions are compared.
"share" is that of the distance from the sums to ``shown`` that a row closes. Intervals (95 %, Student's t)
are over the users of all seeds, paired by user; they leave out that another training of the same seed ends
elsewhere, so the mean of each seed stands beside them.

With ``--keep`` the first weights and the returns of each run are written to files of the folder. A file that
is there already is read, and its training is left out: give each set of options a folder of its own. So
several processes can train other seeds, and the command for all seeds then prints the table.

The filter is an extended Kalman filter of four numbers: the mood (2), the user's ease and loop habit. It
knows all settings, the hooks of videos, weariness (which follows from the history), and the profile in place
of the taste. It estimates patience by its equation.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from benchmarks.once.added_encoder import with_encoder, with_zeros
from recsys_rl.agents.ppo import PPO
from recsys_rl.env import short_video as platform
from recsys_rl.env.short_video import PLATFORM, Facts, ShortVideo, ShortVideoState
from recsys_rl.errors import UserError
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_env
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.training.train import Update, updates
from recsys_rl.types import Feedback
from recsys_rl.utils.files import write_text
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds
from recsys_rl.utils.tensor_cache import read_tensors, write_tensors

RUNS = {
    "sums": ("short-video", "mlp"),
    "filter": ("benchmarks.once.mood:FILTERED", "mlp"),
    "shown": ("benchmarks.once.mood:SHOWN", "mlp"),
    "transformer": ("short-video", "transformer"),
}
CONTEXT = (*ShortVideo.context, "mood")


class ShowsMood(ShortVideo):
    """The users, with their mood among what a recommender sees."""

    context: ClassVar[tuple[str, ...]] = CONTEXT

    def visible(self, user_state: ShortVideoState) -> dict[str, Tensor]:
        return {**super().visible(user_state), "mood": user_state.mood}


@dataclass(frozen=True)
class FilteredState(ShortVideoState):
    """A user's state, and what the filter believes of it."""

    mean: Tensor = field(kw_only=True)  # (N, 4): mood along both axes, ease, loop habit
    covariance: Tensor = field(kw_only=True)  # (N, 4, 4)
    believed_patience: Tensor = field(kw_only=True)  # (N,)


class FiltersMood(ShortVideo):
    """The users, with a filter's estimate of their mood among what a recommender sees."""

    context: ClassVar[tuple[str, ...]] = CONTEXT

    def sample(self, users: Tensor) -> FilteredState:
        state, config = super().sample(users), self.config
        first = torch.tensor([0.0, 0.0, config.ease_deviation**2, config.loop_deviation**2])
        return FilteredState(
            **vars(state),
            mean=torch.zeros(len(users), 4),
            covariance=torch.diag(first).expand(len(users), 4, 4).contiguous(),
            believed_patience=state.patience.clone(),
        )

    def visible(self, user_state: ShortVideoState) -> dict[str, Tensor]:
        assert isinstance(user_state, FilteredState)
        return {**super().visible(user_state), "mood": user_state.mean[:, :2]}

    def advance(
        self, user_state: ShortVideoState, items: Tensor, feedback: Feedback
    ) -> tuple[ShortVideoState, Tensor]:
        assert isinstance(user_state, FilteredState)
        after, leaves = super().advance(user_state, items, feedback)
        assert isinstance(after, FilteredState)
        believed = self._believed(user_state)
        mean, covariance = self._learn(user_state, believed, items, feedback)
        return replace(
            after,
            mean=mean,
            covariance=covariance,
            believed_patience=self._patience(believed, items, feedback),
        ), leaves

    def _believed(self, state: FilteredState) -> ShortVideoState:
        return replace(
            self.as_known(state),
            mood=state.mean[:, :2],
            ease=state.mean[:, 2],
            habit=state.mean[:, 3],
            patience=state.believed_patience,
        )

    def _patience(self, believed: ShortVideoState, items: Tensor, feedback: Feedback) -> Tensor:
        signals = feedback.signals.clone()
        signals[..., 7] = self._appeal_of(believed, items, Facts(*self.facts[items].unbind(-1))).sigmoid()
        after, _ = super().advance(believed, items, replace(feedback, signals=signals))
        return after.patience.clamp_min(0.1)  # the user is still there

    def _learn(
        self, state: FilteredState, believed: ShortVideoState, items: Tensor, feedback: Feedback
    ) -> tuple[Tensor, Tensor]:
        """The belief (N, 4) and its covariance (N, 4, 4) after a video and one step of the mood."""
        config = self.config
        facts = Facts(*self.facts[items].unbind(-1))
        appeal = self._appeal_of(believed, items, facts)  # (N, 1)
        location = self._of_stayers(believed, appeal, facts)[:, 0]  # (N,)
        ratio, liked = feedback.signals[:, 0, :2].unbind(1)
        seen, appeal, leave = ratio.clamp_min(1e-4).log(), appeal[:, 0], facts.leave[:, 0]
        noise = config.ratio_noise * math.exp(config.loop_spread**2)  # of an average user
        odds = _log_density(seen, location, noise) - _log_density(
            seen, leave - facts.duration[:, 0].log(), config.leave_noise
        )
        stays, expected = (appeal + odds).sigmoid(), appeal.sigmoid()
        likes = (appeal - platform.LIKE_COST).sigmoid()
        # Of the log-likelihood in the appeal: its slope and the information of one video, at least 0.
        slope = stays - expected + stays * (liked - likes)
        known = (expected * (1 - expected) - stays * (1 - stays)).clamp_min(0)
        known = known + stays * likes * (1 - likes)
        along = torch.cat([self.coordinates[items[:, 0]], torch.tensor([1.0, 0.0]).expand(len(items), 2)], 1)
        of_ratio = platform.RATIO_SLOPE * along + torch.tensor([0.0, 0.0, 0.0, 1.0])  # (N, 4)
        trust = (stays / noise**2).unsqueeze(1)  # (N, 1)
        certain = 1e-6 * torch.eye(4)  # before the first video the mood is 0 for certain
        information = (state.covariance + certain).inverse() + known.view(-1, 1, 1) * along.unsqueeze(
            2
        ) * along.unsqueeze(1)
        information = information + trust.unsqueeze(2) * of_ratio.unsqueeze(2) * of_ratio.unsqueeze(1)
        covariance = information.inverse()
        gradient = slope.unsqueeze(1) * along + trust * (seen - location).unsqueeze(1) * of_ratio
        mean = state.mean + (covariance @ gradient.unsqueeze(2)).squeeze(2)
        persistence = torch.tensor([platform.MOOD_KEPT, platform.MOOD_KEPT, 1.0, 1.0])
        moved = torch.where(state.begun, 1 - platform.MOOD_KEPT**2, 1.0) * config.mood_deviation**2  # (N,)
        steps = moved.unsqueeze(1) * torch.tensor([1.0, 1.0, 0.0, 0.0])
        return mean * persistence, covariance * persistence * persistence.unsqueeze(1) + torch.diag_embed(
            steps
        )


def _log_density(x: Tensor, mean: Tensor, deviation: float) -> Tensor:
    return -0.5 * ((x - mean) / deviation) ** 2 - math.log(deviation)


SHOWN, FILTERED = replace(PLATFORM, users=ShowsMood), replace(PLATFORM, users=FiltersMood)


def settings(args: Any, name: str, seed: int, first: bool = False) -> Config:
    """Of the ``first`` training, or of the run ``name`` that begins with its weights."""
    env, encoder = RUNS[name]
    agent, steps = ({}, args.first_steps) if first else ({"lr": args.lr}, args.steps)
    fields: dict[str, Any] = {
        "env": env,
        "env_config": {"num_items": args.num_items, **numbers(args.set)},
        "model_config": {"encoder": encoder},
        "agent_config": agent,
        "train_config": {"total_timesteps": steps, "eval_interval": 0, "seed": seed},
    }
    if args.smoke:
        fields["data_config"] = {"data": "synthetic", "num_users": 40}
        fields["env_config"] |= {"embedding_dim": 4, "max_episode_steps": 8}
        fields["agent_config"] |= {"num_envs": 8, "n_steps": 16, "batch_size": 64}
    return from_dict(Config, fields)


def numbers(words: Sequence[str]) -> dict[str, float]:
    """Settings of the platform from words NAME=NUMBER. Raises UserError for other words."""
    try:
        return {name: float(value) for name, value in (word.split("=") for word in words)}
    except ValueError:
        raise UserError(f"--set {' '.join(words)}: each word must be NAME=NUMBER.") from None


def trained(config: Config, weights: Mapping[str, Tensor] | None = None) -> Update:
    """Train to the end. With ``weights`` of the first training, begin with these after the first update."""
    with tempfile.TemporaryDirectory() as folder:
        for update in updates(config, folder=Path(folder) / "run"):
            if weights is not None:
                _begin_with(update, weights)
                weights = None
    return update


def _begin_with(update: Update, weights: Mapping[str, Tensor]) -> None:
    """Give the network these weights, with 0 for the inputs from the mood or from an encoder."""
    model, context = network(update), update.run.env.interface.context
    tensors = dict(weights)
    if model.encoder is not None:
        tensors = with_encoder(tensors, model)
    elif "mood" in dict(context):  # the last of the context; the sums follow
        first = "hidden.weights.0"  # (2, in, out)
        others = sum(size for name, size in context if name != "mood")
        tensors[first] = with_zeros(tensors[first], 1, others, dict(context)["mood"])
    model.load_state_dict(tensors)


def network(update: Update) -> ActorCritic:
    assert isinstance(update.agent, PPO)
    return update.agent.model


def first_weights(args: Any, seed: int) -> dict[str, Tensor]:
    """The network's weights after the first training, from the folder ``args.keep`` if it has them."""
    file = args.keep / f"first-{seed}.safetensors"
    weights = read_tensors(file)
    if weights is None:
        weights = network(trained(settings(args, "sums", seed, first=True))).state_dict()
        write_tensors(file, weights)
    return weights


def returns(args: Any, name: str, seed: int) -> Tensor:
    """(U,): mean return of a run over several sessions with each held-out user; see ``--keep``."""
    file = args.keep / f"{name}-{seed}.json"
    if file.is_file():
        return torch.tensor(json.loads(file.read_text()), dtype=torch.float64)
    config = settings(args, name, seed)
    last = trained(config, first_weights(args, seed))
    world = last.run.world
    users = world.population.heldout
    env = make_env(
        config, world, args.sessions * len(users), torch.Generator().manual_seed(seed), heldout=True
    )
    played = play(env, last.agent, users.repeat(args.sessions))
    means = played.returns.view(args.sessions, -1).double().mean(0)
    write_text(file, json.dumps(means.tolist()))
    return means


def summary(by_run: Mapping[str, Tensor]) -> list[Row]:
    """Rows of the mean return (all users), of its distance to the sums, and of the share that it closes."""
    sums, shown = by_run["sums"], by_run["shown"]
    gap = (shown - sums).mean().item()
    rows: list[Row] = []
    for name, values in by_run.items():
        mean, more = interval(values), interval(values - sums)
        # The interval of the share treats the gap as known.
        row: Row = {"run": name, "return": mean.mean, "low": mean.low, "high": mean.high}
        if name != "sums":
            row |= {"more": more.mean, "more_low": more.low, "more_high": more.high}
        if name != "sums" and gap > 0:
            row |= {"share": more.mean / gap, "share_low": more.low / gap, "share_high": more.high / gap}
        rows.append(row)
    return rows


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--seeds", type=parse_seeds, default="0-3", help="as in 0-3 or 0,2 (default: 0-3)")
    parser.add_argument("--first-steps", type=int, default=400_000, help="of the training with the sums")
    parser.add_argument("--steps", type=int, default=400_000, help="of each run that begins with its weights")
    parser.add_argument("--lr", type=float, default=2e-3, help="first learning rate of these runs")
    parser.add_argument("--num-items", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=8, help="with each held-out user")
    parser.add_argument("--set", nargs="+", default=[], help="settings of the platform, as NAME=NUMBER")
    parser.add_argument("--keep", type=Path, help="folder for first weights and returns")
    args = tables.parse(parser, "mood", folder=Path(__file__).parent)
    torch.set_num_threads(args.threads or 1)
    if args.smoke:
        args.seeds, args.first_steps, args.steps, args.num_items, args.sessions = [0], 256, 256, 20, 2
    with tempfile.TemporaryDirectory() as folder:
        args.keep = args.keep or Path(folder)
        args.keep.mkdir(parents=True, exist_ok=True)
        by_run: dict[str, list[Tensor]] = {name: [] for name in RUNS}
        for seed in args.seeds:
            for name, values in by_run.items():
                values.append(returns(args, name, seed))
                print(name, "seed", seed, round(values[-1].mean().item(), 2), flush=True)
    rows = summary({name: torch.cat(values) for name, values in by_run.items()})
    for row, values in zip(rows, by_run.values(), strict=True):
        row["by_seed"] = " ".join(f"{one.mean():.1f}" for one in values)
        row |= {"seeds": " ".join(map(str, args.seeds)), "settings": " ".join(args.set)}
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)

"""Simulated people who use a running server over HTTP: the same user model as in the environment."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import UserError, amount
from recsys_rl.make import make_env
from recsys_rl.serving.loop.client import Client
from recsys_rl.settings.fields import Count, Range, check_fields
from recsys_rl.settings.names import DEFAULT_ALGO, platform_of
from recsys_rl.settings.shared import Seed
from recsys_rl.training.latest import print_latest
from recsys_rl.types import Catalogue, Feedback, Interface, Signal
from recsys_rl.utils.files import check_writable, write_text
from recsys_rl.utils.metrics import Interval, interval
from recsys_rl.utils.progress import counted
from recsys_rl.utils.seeding import generators


@dataclass(frozen=True)
class VisitorsConfig:
    """Visits to a server."""

    url: str = "http://127.0.0.1:8000"
    """The server."""
    checkpoint: str = f"checkpoints/{DEFAULT_ALGO}.pt"
    """A checkpoint with the users and items that the server has."""
    env: str | None = None
    """Environment of the checkpoint; another one is refused."""
    sessions: Count = 200
    """Sessions to play."""
    users: Literal["heldout", "train", "all"] = "heldout"
    """The users who visit, each equally often."""
    width: Annotated[int, Range(1, 256)] = 16
    """Visitors at a time."""
    token: str | None = None
    """A token of the server."""
    seed: Seed = 0
    """The seed of users and responses."""
    json: str | None = None
    """JSON file with the results."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.env is not None:
            platform_of(self.env)


@dataclass
class Visits:
    """The measurements of the visitors."""

    returns: list[float] = field(default_factory=list)  # of each session
    lengths: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each recommendation
    events: int = 0  # that were accepted
    refused: int = 0  # that were not
    degraded: int = 0  # decisions by popularity

    @property
    def mean(self) -> Interval:
        """The mean return, with its 95 % interval."""
        return interval(torch.tensor(self.returns))


def visitors(options: VisitorsConfig) -> Visits:
    """Play the sessions, and print return, latency and events. Raises UserError."""
    if options.json is not None:
        check_writable(Path(options.json), "--json")
    checkpoint = load_at_home(options.checkpoint, options.env)
    if options.env is not None and options.env != checkpoint.config.env:
        raise UserError(
            f"{options.checkpoint} is of {checkpoint.config.env}, and --env is {options.env}: give a "
            "checkpoint of this platform."
        )
    if checkpoint.world.is_empty or checkpoint.interface.visits > 1:
        raise UserError(f"{options.checkpoint} has no people who visit a server: give one of a catalogue.")
    if not checkpoint.config.platform.simulates:
        raise UserError(
            f"{options.checkpoint} is of a log of your own, which has no simulated people: real ones use the "
            "server."
        )
    print_latest(options.checkpoint, checkpoint)
    streams, population = generators(options.seed, "visitors", "visiting users"), checkpoint.population
    env = make_env(checkpoint.config, checkpoint.world, options.width, streams["visitors"], training=False)
    assert isinstance(env, RecEnv)
    of = {"heldout": population.heldout, "train": population.train}
    users = of.get(options.users, torch.arange(len(population.user_ids)))
    order = torch.randperm(len(users), generator=streams["visiting users"])
    queue = users[order.repeat(-(-options.sessions // len(users)))][: options.sessions]
    pieces = checkpoint.config.platform.visit_pieces
    by_hour, visits, client = (
        pieces is not None and pieces.by_hour,
        Visits(),
        Client(options.url, options.token),
    )
    client.wait()
    with (
        ThreadPoolExecutor(options.width) as pool,
        counted("visits", options.sessions) as show,
    ):
        # The server has one session of a user at a time, so nobody is in one part twice.
        for group in queue.split(min(options.width, len(users))):
            names = [str(population.id_of(row)) for row in group.tolist()]
            _play(env, group, names, by_hour, client, pool, visits)
            show(len(visits.returns))
    _print(visits)
    if options.json is not None:
        write_text(Path(options.json), _json(visits))
    return visits


@torch.inference_mode()
def _play(
    env: RecEnv,
    users: Tensor,
    names: Sequence[str],
    by_hour: bool,
    client: Client,
    pool: ThreadPoolExecutor,
    visits: Visits,
) -> None:
    """One session of each user, stepped together; each request is of one user."""
    env.reset(users)
    n, places = len(users), env.interface.slate_size
    alive, returns = [True] * n, torch.zeros(n)
    lengths = [0] * n
    rows = _rows_of(env.catalogue)
    while any(alive):
        going = [at for at in range(n) if alive[at]]
        hours = env.user_state.hour.tolist() if by_hour else None
        bodies = [
            {
                "user_id": names[at],
                "request_id": secrets.token_hex(12),
                **({} if hours is None else {"context": {"hour": hours[at]}}),
            }
            for at in going
        ]
        answers = dict(zip(going, pool.map(client.recommend, bodies), strict=True))
        items = torch.arange(places).repeat(n, 1)  # any items for those who have left
        for at, (answer, seconds) in answers.items():
            visits.seconds.append(seconds)
            visits.degraded += answer["degraded"] is not None
            shown = [item["item_id"] for item in answer["items"]]
            if not rows.keys() >= {*shown}:
                raise UserError(
                    f"The server at {client.url} shows items that --checkpoint has not: give its checkpoint."
                )
            items[at] = torch.tensor([rows[item] for item in shown])
        step = env.step_without_reset(items)
        assert step.feedback is not None
        messages = []
        for at, (answer, _) in answers.items():
            returns[at] += step.reward[at]
            lengths[at] += 1
            events = events_of(
                step.feedback, at, str(answer["decision_id"]), env.interface, env.signals, env.catalogue
            )
            if bool(step.terminated[at]):
                events.append({"decision_id": answer["decision_id"], "signal": "leave"})
            alive[at] = not bool(step.terminated[at] | step.truncated[at])
            if events:
                messages.append(events)
        for accepted, refused in pool.map(client.feedback, messages):
            visits.events += accepted
            visits.refused += refused
    visits.returns += returns.tolist()
    visits.lengths += lengths


def events_of(
    feedback: Feedback,
    row: int,
    decision: str,
    interface: Interface,
    signals: Sequence[Signal],
    catalogue: Catalogue,
) -> list[dict[str, Any]]:
    """The events with which a client tells the server the visible part of a response.

    Signals that are 0 need no event, but an item that was left does.
    """
    visible = [index for index, signal in enumerate(signals) if signal.visible]
    events: list[dict[str, Any]] = []

    def add(values: Tensor, always: bool, **where: Any) -> None:
        given = dict(zip(interface.signals, values[visible].tolist(), strict=True))
        reported = {name: value for name, value in given.items() if value}
        if always and not reported:
            reported = {interface.signals[0]: 0.0}
        events.extend(
            {"decision_id": decision, "signal": name, "value": value, **where}
            for name, value in reported.items()
        )

    for position, values in enumerate(feedback.signals[row]):
        add(values, False, position=position)
    if feedback.events is not None:
        left = zip(feedback.events.items[row].tolist(), feedback.events.signals[row], strict=True)
        for item, values in left:
            if item >= 0:
                add(values, True, left=str(catalogue.id_of(item)))
    return events


def _rows_of(catalogue: Catalogue) -> dict[str, int]:
    return {str(catalogue.id_of(row)): row for row in range(catalogue.num_items)}


def _print(visits: Visits) -> None:
    mean, seconds = visits.mean, sorted(visits.seconds)
    played = f"{amount(len(visits.returns), 'session')}, {amount(len(seconds), 'decision')}"
    length = sum(visits.lengths) / len(visits.lengths)
    print(f"{played}: return {mean.mean:.3f} ({mean.low:.3f} to {mean.high:.3f}), length {length:.1f}")
    half, most = (1000 * seconds[int(share * (len(seconds) - 1))] for share in (0.5, 0.99))
    print(f"latency: median {half:.1f} ms, 99 % within {most:.1f} ms")
    refused = f", {visits.refused:,} refused" if visits.refused else ""
    print(f"{amount(visits.events, 'event')} accepted{refused}")
    if visits.degraded:
        print(f"{amount(visits.degraded, 'decision')} by popularity: see the server's log", file=sys.stderr)


def _json(visits: Visits) -> str:
    mean = visits.mean
    content = {
        "return": {"mean": mean.mean, "low": mean.low, "high": mean.high},
        "sessions": len(visits.returns),
        "decisions": len(visits.seconds),
        "events": visits.events,
        "refused": visits.refused,
        "degraded": visits.degraded,
    }
    return json.dumps(content, indent=1) + "\n"

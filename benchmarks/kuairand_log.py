"""A log of a real service, end to end: users learned from its first part, policies judged on its second part.

    python -m benchmarks.kuairand_log [--log kuairand-random] [--data-dir FOLDER] [--share 0.5] [--seed 1]
                                      [--json FILE] [--csv FILE] [--smoke]

The log is of random exposures, so that the propensity is that of the design: KuaiRand's (`kuairand-random`,
the default), or Open Bandit's (`open-bandit`). It is split by time. From the first part an ensemble of users
is learned, each with the context of one logged decision. Policies are made inside these users alone: PPO, and
the item with the highest mean response, with and without a penalty of the networks' spread (MOPO). The second
part judges them by `ope`, and gives each one's difference to the random policy that made the log, with a 95 %
interval over people. ``answer`` is `better`, `worse`, `no difference seen` or `not enough data`, the last if
`ope` does not recommend the estimate; ``rows_needed`` are the further rows that would settle the difference.
``auc`` is that of the learned users for the answers of the second part, ``auc_items`` that of the items'
means in the first.

What is known of a person in KuaiRand is the share of clicks, and the mean of the clicked videos' attributes,
before the random exposures began.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from benchmarks.once.calibration_statistics import auc
from recsys_rl.checkpoint import load
from recsys_rl.data.kuairand import load_kuairand
from recsys_rl.evaluation.mixture import Fixed
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.decision_table import DecisionTable
from recsys_rl.logs.ope.compare import compare, recommend
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.judge import judge
from recsys_rl.logs.ope.ope import fit_of, replayed, settings_of, trusted_of
from recsys_rl.logs.ope.playable import loggers_of, playable
from recsys_rl.logs.ope.read_log import STREAMS, ReadLog
from recsys_rl.logs.ope.result import LOGGED
from recsys_rl.logs.ope.rows import plain_row
from recsys_rl.logs.public import LOGS
from recsys_rl.logs.rewards import of_signals
from recsys_rl.logs.users.file import LearnedFile, save_users
from recsys_rl.logs.users.fit_users import FitUsersConfig, begin_fit
from recsys_rl.logs.users.fit_users_log import LogToFit
from recsys_rl.logs.users.session_table import session_table
from recsys_rl.make import agent_of
from recsys_rl.training.train import train
from recsys_rl.types import Action, Catalogue, Obs, Population, UserError, World
from recsys_rl.utils.find import find
from recsys_rl.utils.seeding import generators

MOST_FITTED, MOST_JUDGED = 200_000, 400_000
"""Decisions of each part that are used; of more, a sample is."""
PERSON = "person"
BLOCK = 2**18  # persons times items whose responses are computed together


@dataclasses.dataclass(frozen=True)
class Work:
    """How much is learned."""

    members: int = 5
    epochs: int = 5
    steps: int = 200_000  # of PPO


class BestByUsers:
    """Shows the item with the highest mean response of learned users, less ``doubt`` times their spread."""

    def __init__(self, file: LearnedFile, doubt: float = 0.0) -> None:
        self.file, self.doubt = file, doubt

    @torch.no_grad()
    def act(self, obs: Obs, greedy: bool = False) -> Action:
        members, interface = self.file.members, self.file.facts.interface
        names = self.file.facts.given
        number, scores = self.file.world.catalogue.num_items, []
        for context in obs.context.split(max(1, BLOCK // number)):
            given = {name: context[:, interface.place_of(name)] for name in names}
            items = torch.arange(number).expand(len(context), -1)
            starts = [member.begin(given, len(context)) for member in members]
            answers = [member.respond(memory, items) for member, memory in zip(members, starts, strict=True)]
            means = torch.stack([answer.expected()[..., 0] for answer in answers])  # (E, n, I)
            scores.append((means.mean(0) - self.doubt * means.std(0, correction=0)).argmax(1))
        items = torch.cat(scores).unsqueeze(1)  # (N, 1)
        return Action(items, torch.zeros(len(items)))


def with_person(table: DecisionTable, person: Tensor | None) -> tuple[DecisionLog, Catalogue]:
    """The log with a first piece of the context about the person, of the size of the items' embeddings.

    ``person``: (E, F); None: the piece ``user`` of the log. The shorter of both is filled up with zeros.
    """
    log, catalogue = table.log, table.catalogue
    given = dict(log.given)
    known = given.pop("user") if person is None else person
    width = max(known.shape[1], catalogue.embedding.shape[1])
    known, embedding = (
        torch.nn.functional.pad(table, (0, width - table.shape[1])) for table in (known, catalogue.embedding)
    )
    given[PERSON] = known.float()
    rest = [(name, values.shape[1]) for name, values in given.items() if name != PERSON]
    context = ((PERSON, width), *rest, ("clock", 1))
    interface = dataclasses.replace(log.header.interface, context=context)
    header = dataclasses.replace(log.header, interface=interface)
    return (
        dataclasses.replace(log, header=header, given=given),
        dataclasses.replace(catalogue, embedding=embedding),
    )


def people_of_kuairand(table: DecisionTable, data_dir: Path | None) -> Tensor:
    """(E, 1 + D): the person's share of clicks before the log began, and the mean of the clicked videos."""
    before, log, catalogue = load_kuairand(data_dir).standard, table.log, table.catalogue
    past = before.times < log.times.min()
    ids, index = catalogue.item_ids.sort()
    items = before.item_ids[before.items[past]]
    at = torch.searchsorted(ids, items).clamp_max(len(ids) - 1)
    there = ids[at] == items
    clicks = before.ratings[past]
    # Users of both logs by their ids in the data.
    random = load_kuairand(data_dir).random
    known, row = random.user_ids.sort()
    users = before.user_ids[before.users[past]]
    of = torch.searchsorted(known, users).clamp_max(len(known) - 1)
    there &= known[of] == users
    user, item, click = row[of[there]], index[at[there]], clicks[there]
    number = len(random.user_ids)
    views = torch.zeros(number).index_add_(0, user, torch.ones_like(click))
    liked = torch.zeros(number).index_add_(0, user, click)
    sums = torch.zeros(number, catalogue.embedding.shape[1])
    sums.index_add_(0, user, click.unsqueeze(1) * catalogue.embedding[item])
    share = (liked + 1) / (views + 3)
    people = torch.cat([(share / (1 - share)).log().unsqueeze(1), sums / (liked + 1).unsqueeze(1)], 1)
    return people[log.users]


def split_by_time(log: DecisionLog, share: float) -> tuple[DecisionLog, DecisionLog]:
    """The earlier decisions, at most a ``share`` (0 to 1) of all, and the others; each is its own session.

    Raises UserError if a side would be empty.
    """
    ordered = log.times.sort().values
    earlier = log.times < ordered[min(int(share * len(ordered)), len(ordered) - 1)]  # (E,)
    if not bool(earlier.any()):
        raise UserError(f"--share {share} leaves no decisions to learn from: give a larger share.")
    return log.rows(earlier), log.rows(~earlier)


def sample(log: DecisionLog, most: int, generator: torch.Generator) -> DecisionLog:
    """At most ``most`` rows of a log of single decisions, in their order."""
    if log.num_rows <= most:
        return log
    return log.rows(torch.randperm(log.num_rows, generator=generator)[:most].sort().values)


def learn(log: DecisionLog, catalogue: Catalogue, seed: int, work: Work) -> LearnedFile:
    """Users of whom each has the context of one decision of ``log``."""
    number = torch.arange(log.num_rows)
    single = dataclasses.replace(log, users=number, sessions=number)
    person = log.given[PERSON]
    order = torch.randperm(len(number), generator=torch.Generator().manual_seed(seed))
    size = max(1, len(number) // 10)
    population = Population(
        taste=person, profile=person, user_ids=number, train=order[size:], heldout=order[:size]
    )
    options = FitUsersConfig(
        members=work.members,
        epochs=work.epochs,
        heldout="users",
        heldout_share=0.1,
    )
    data = {"data": "synthetic", "num_users": 2}  # the file brings its world
    weights = {log.header.signals[0]: 1.0}
    read = LogToFit(single, World(catalogue, population), data, number >= 0, weights=weights)
    fit = begin_fit(options, read, seed)
    while not fit.fitting.finished:
        fit.fitting.epoch()
    return fit.file


@torch.no_grad()
def aucs(file: LearnedFile, first: DecisionLog, second: DecisionLog) -> dict[str, float]:
    """The areas under the ROC curve for the answers of the second part; {} if all answers are equal."""
    answers = second.signals[:, 0, 0].bool().numpy()
    if answers.all() or not answers.any():
        return {}
    items, number = first.items[:, 0], file.world.catalogue.num_items
    views = torch.ones(number).index_add_(0, items, torch.ones(len(items)))
    means = torch.zeros(number).index_add_(0, items, first.signals[:, 0, 0]) / views
    table = session_table(second, second.signals[:, 0, 0])
    every = [member.of_sessions(table)[0].expected().flatten() for member in file.members]
    learned = torch.stack(every).mean(0).double().numpy()
    return {"auc": auc(learned, answers), "auc_items": auc(means[second.items[:, 0]].numpy(), answers)}


def judged(
    log: DecisionLog, catalogue: Catalogue, policies: dict[str, Any], name: str, seed: int
) -> list[Row]:
    """The rows of the table on the second part."""
    options = OpeConfig(log=(name,), world=False, seed=seed)
    streams = generators(seed, *STREAMS)

    rewards = of_signals(log.header.signals, dict.fromkeys(log.header.signals, 1.0))
    read = ReadLog(log, catalogue, rewards, streams)
    replay, _, _ = replayed(options, read)
    result = judge(
        replay,
        [replay],
        [playable(policy, made) for policy, made in policies.items()],
        {},
        fit_of(options, replay, read),
        rewards,
        loggers_of(options, read, replay),
        settings_of(options),
        streams,
    )
    trusted = trusted_of(replay)
    logged = plain_row(LOGGED, "mean", result.earned, result.users)
    terms = {**result.terms, LOGGED: {"mean": result.earned}}
    rows: list[Row] = [
        {"policy": "logged (random)", "value": logged.value, "low": logged.low, "high": logged.high}
    ]
    for policy in policies:
        mine = recommend([row for row in result.rows if row.policy == policy] + [logged], trusted)
        both = (policy, LOGGED)
        versus = compare(both, both, mine, terms, result.users, log.num_rows, trusted, ())
        row = next(row for row in mine if row.estimator == trusted)
        rows.append(
            {
                "policy": policy,
                "estimator": trusted,
                "value": row.value,
                "low": row.low,
                "high": row.high,
                "ess": None if row.weights is None else row.weights.ess,
                "over_logged": versus.value,
                "over_low": versus.low,
                "over_high": versus.high,
                "rows_needed": versus.more_rows if math.isfinite(versus.more_rows) else None,
                "answer": answer_of(row.recommended, versus.low, versus.high),
            }
        )
    return rows


def answer_of(trusted: bool, low: float, high: float) -> str:
    """The answer in words."""
    if not trusted:
        return "not enough data"
    return "better" if low > 0 else "worse" if high < 0 else "no difference seen"


def main() -> None:
    parser = tables.parser(__doc__, "seed", 1)
    parser.add_argument("--log", choices=tuple(LOGS), default="kuairand-random")
    parser.add_argument("--data-dir", type=Path, help="the folder of the log's own files")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the decisions that users are learned from"
    )
    args = tables.parse(parser, "kuairand_log")
    torch.set_num_threads(args.threads or 1)
    work = Work(2, 1, 2_000) if args.smoke else Work()
    started = time.process_time()
    table: DecisionTable = find(LOGS[args.log], "--log")(args.data_dir, None)
    person = people_of_kuairand(table, args.data_dir) if "user" not in table.log.given else None
    log, catalogue = with_person(table, person)
    noise = torch.Generator().manual_seed(args.seed)
    parts = split_by_time(log, args.share)
    first, second = (
        sample(part, most, noise) for part, most in zip(parts, (MOST_FITTED, MOST_JUDGED), strict=True)
    )
    file = learn(first, catalogue, args.seed, work)
    with tempfile.TemporaryDirectory() as folder:
        users = Path(folder) / "users.pt"
        save_users(users, file)
        path = train(
            algo="ppo",
            env="learned",
            user_model=str(users),
            total_timesteps=work.steps,
            num_envs=512,
            n_steps=4,
            batch_size=512,
            eval_interval=0,
            save_interval=10**6,
            seed=args.seed,
            folder=Path(folder) / "run",
            quiet=True,
        )
        agent = agent_of(load(path))
    policies = {
        "ppo": agent,
        "ppo-greedy": Fixed(agent, greedy=True),
        "best by the users": Fixed(BestByUsers(file)),
        "best less the spread": Fixed(BestByUsers(file, doubt=1.0)),
    }
    rows = judged(second, catalogue, policies, args.log, args.seed)
    more: dict[str, Any] = aucs(file, first, second)
    tables.publish(
        [{"log": args.log, **row} for row in rows],
        args,
        learned_from=first.num_rows,
        judged_on=second.num_rows,
        items=catalogue.num_items,
        **more,
        seconds=time.process_time() - started,
    )


if __name__ == "__main__":
    tables.run(main)

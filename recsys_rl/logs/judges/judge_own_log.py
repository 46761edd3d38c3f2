"""The judgement of a run on people's own tables: one small table on the users who were held out.

Its rows: what the log earned; the best single item and the clone, which a team has without learning from
rewards; and the policy, as it draws (so a server plays it, and its log can be learned from) and greedy.
All that is chosen or learned is from the training side of the log, the rivals from all its sessions.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.data.tables.columns import log_name
from recsys_rl.errors import UserError, amount, listed, one_line
from recsys_rl.evaluation.checkpoints import row_name
from recsys_rl.evaluation.mixture import Fixed
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.experience.logged import Logged
from recsys_rl.logs.judges.best_item import BestItems, item_scores
from recsys_rl.logs.judges.judge_run import ESTIMATES
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.ope import estimates, write_result
from recsys_rl.logs.ope.playable import playable
from recsys_rl.logs.ope.policies import Playable
from recsys_rl.logs.ope.read_log import read_log
from recsys_rl.logs.ope.result import LOGGED
from recsys_rl.logs.ope.verdict import read_verdicts, verdict_lines
from recsys_rl.logs.transitions import observations
from recsys_rl.make import make_agent
from recsys_rl.protocols import Behaviour, Policy
from recsys_rl.settings.config import Config
from recsys_rl.training.run import Run
from recsys_rl.types import Catalogue
from recsys_rl.utils.progress import announce
from recsys_rl.utils.seeding import generators
from recsys_rl.utils.terminal import say


def agreement(policy: Policy, log: DecisionLog, catalogue: Catalogue) -> float:
    """Share of the decisions in which the policy's likeliest items are the logged ones, at every place."""
    same = 0
    for rows, obs in observations(log, catalogue):
        same += int((policy.act(obs, greedy=True).items == log.items[rows]).all(1).sum())
    return same / log.num_rows


def agreement_line(name: str, policy: Policy, log: DecisionLog, catalogue: Catalogue) -> str:
    """The agreement in words, in per cent."""
    share = agreement(policy, log, catalogue)
    return (
        f"{name}-greedy shows what the log shows in {100 * share:.1f} % of {amount(log.num_rows, 'decision')}"
    )


def print_estimates(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Print the small table that `train` wrote beside the checkpoint at ``path``. Returns its values.

    Raises UserError without such a file.
    """
    log = one_line(" + ".join(Path(log_name(file)).name for file in checkpoint.config.agent_config.log))
    file = path.resolve().with_name(ESTIMATES)
    judge = f"recsys-rl ope --log FILE --checkpoint {path}"
    if not file.is_file():
        raise UserError(
            f"{path} is of {log or 'a log'}, which has no simulator that could play a policy, and no "
            f"{ESTIMATES} is beside it: judge it on a log with {judge}."
        )
    try:
        values = json.loads(file.read_bytes())
        table, headline = read_verdicts(values["verdicts"]), str(values["headline"])
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{path} is of {log}, which has no simulator, and {file} holds no table of estimates: judge it "
            f"on a log with {judge}."
        ) from error
    announce(
        f"{path} is of {log}, which has no simulator that could play a policy: these are the estimates on "
        f"the held-out side of that log; on a newer one, {judge}"
    )
    for line in verdict_lines(table, headline):
        say(line)
    return {"headline": headline, "verdicts": [row.values() for row in table]}


BEST, CLONE, CLONED = "best item", "clone", "bc"
CLONE_DECISIONS = 100_000
"""Decisions from which the clone learns, if the run itself has as many: it is soon as good as it gets."""


def judge_on_tables(run: Run, checkpoint: Path) -> None:
    """Print the small table, and write all estimates beside the ``checkpoint`` as ope.json.

    A finished run that has them is not judged again. If nothing can judge the policy, the reason is printed:
    the run itself is whole.
    """
    path = checkpoint.with_name(ESTIMATES)
    if path.exists():
        return
    name, settings = row_name(run.config), run.config.train_config
    options = OpeConfig(
        log=run.config.agent_config.log,
        checkpoint=str(checkpoint),
        env=run.config.env,
        policy=(name, f"{name}-greedy"),
        compare=(name, LOGGED),
        world=run.interface.session_length > 1,
        threads=settings.threads,
    )
    announce("judging the policy on the held-out side of the log")
    experience = run.experience
    assert isinstance(experience, Logged)
    logged, places = experience.of_all_sessions(), run.interface.slate_size
    best = BestItems(item_scores(_decisions(logged), run.world.catalogue.num_items), places)
    try:
        read = read_log(options)
        result, _ = estimates(options, read, [*_rivals(run, logged, best)])
    except UserError as error:
        announce(f"the policy is trained, and not judged: {error}")
        return
    order = [LOGGED, BEST, CLONE]
    table = sorted(
        result.verdicts, key=lambda row: order.index(row.policy) if row.policy in order else len(order)
    )
    rows, catalogue = best.rows.tolist(), run.world.catalogue
    found = {"headline": name, "best_items": [catalogue.id_of(row) for row in rows]}
    write_result(path, result.json() | {"verdicts": [row.values() for row in table], **found})
    for line in verdict_lines(table, name):
        say(line)
    say(f"{BEST}: {listed([str(catalogue.id_of(row)) for row in rows])}, for everybody")
    say(agreement_line(name, run.agent, read.log, read.catalogue))
    again = to_judge_again(options.log, checkpoint)
    announce(f"all estimates: {path}; to print them for this log or a newer one: {again}")


def to_judge_again(log: Sequence[str], checkpoint: Path) -> str:
    """The command that prints the estimates of a policy; of a data frame, the call of Python."""
    if any(log_name(file) != file for file in log):
        return f"recsys_rl.ope(log=FRAME, checkpoint={str(checkpoint)!r})"
    files = [word for file in log for word in ("--log", file)]
    return shlex.join(["recsys-rl", "ope", *files, "--checkpoint", str(checkpoint)])


def _rivals(run: Run, logged: Logged, best: BestItems) -> Iterator[Playable]:
    """The rivals that need no learning from rewards: one item for everybody, and the clone of the logger.

    Both see all sessions of the training side: among the best ones alone, every item looks good.
    """
    yield playable(BEST, Fixed(best))
    settings = run.config.agent_config
    by_reward = getattr(settings, "weighted", False) or getattr(settings, "best_sessions", 1.0) < 1
    if run.config.algo != CLONED or by_reward:
        yield playable(CLONE, _clone(run, logged))


def _decisions(logged: Logged) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Items (E, K), weight (E,) and reward (E,) of the training side of a log, a part at a time.

    The weight is the inverse of the propensity; 1 for slates, whose propensities are of all items together,
    and where the log has none. A place with a reward of its own is a decision.
    """
    for table in [logged.table] if logged.in_one_part else logged.tables():
        if table.place_rewards is not None and table.place_logprobs is not None:
            inverse, rewards = (-table.place_logprobs).exp().flatten(), table.place_rewards.flatten()
            there = table.items.flatten() >= 0
            yield table.items.flatten()[there].unsqueeze(1), inverse[there], rewards[there]
            continue
        inverse = (-table.logprobs).exp()
        weighted = table.items.shape[1] == 1 and not bool(inverse.isnan().any())
        yield table.items, inverse if weighted else torch.ones_like(inverse), table.rewards


def _clone(run: Run, logged: Logged) -> Behaviour:
    """The clone of the log's policy, trained briefly on batches of ``logged``."""
    size = run.per_update
    updates = max(1, min(run.num_updates, CLONE_DECISIONS // size))
    announce(f"training the clone of the log's policy on {updates * size:,} decisions")
    config = run.config
    settings = dataclasses.replace(config.train_config, total_timesteps=updates * size)
    own = {name: getattr(config.agent_config, name) for name in ("log", "batch_size", "gradient_steps")}
    clone_config = Config(
        CLONED, config.env, config.data_config, config.env_config, config.model_config, own, settings
    )
    streams = generators(settings.seed, "model", "policy", "shuffle")
    clone = make_agent(clone_config, run.interface, run.world.catalogue, updates, streams)
    for _ in range(updates):
        clone.update(logged.batch().data)
    behaviour: Behaviour = clone
    return behaviour

"""`world`: users learned from the log, in whom the policy is played.

    V = mean over sessions of sum_t g^t prod_{s<t} (1 - leave_s) reward_t

The users are those of `fit-users` (logs/users/network.py): one network for each fold, which gives the
visible signals, the mean reward of a step, and the probability of leaving after it. Its features have the
form of no simulator. Visible signals are drawn, as a policy that reads them needs signals that exist; reward
and leaving are means given these, so that the draws add little noise.

What a request asked, candidates or exclusions, limits the policy at the same step of the session.

It uses no weights, so it needs no overlap; in return it is only as good as its model, and no interval covers
that error. Cross-fitted by user: a session is played in the network that its user did not train. A session
keeps the pieces of the context that its first row has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.data.timeline import ItemTimeline
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.ope.diagnostics import student_t
from recsys_rl.logs.ope.estimators import discounts
from recsys_rl.logs.ope.networks import held_out, shares
from recsys_rl.logs.ope.replay import ReplayedLog
from recsys_rl.logs.ope.result import WorldCheck
from recsys_rl.logs.users.fit import FitSizes, UserFitting, set_means
from recsys_rl.logs.users.inputs import context_sizes, item_tables
from recsys_rl.logs.users.network import ContextSizes, ItemTables, UserNetwork
from recsys_rl.logs.users.session_table import SessionTable, session_table
from recsys_rl.logs.users.signals import SignalKinds, SignalOutputs, are_binary, kinds_of
from recsys_rl.protocols import Policy
from recsys_rl.session import Session
from recsys_rl.types import Catalogue, Obs, UserError
from recsys_rl.utils.progress import announce
from recsys_rl.utils.seeding import generators

WARNING = (
    "Model-based, no promise of coverage: this is the answer of a learned model, and the interval does not "
    "cover its error."
)
WIDTH = 4096  # sessions played together
EPOCHS = 10
ROWS = (256, 1280)  # least and most decisions of a gradient step: a fortieth of those of the fit


@dataclass(frozen=True)
class FittedUsers:
    """Users who were fitted to sessions; the last signal of the network is the reward, from 0 to 1."""

    network: UserNetwork
    low: float  # the smallest reward of a step in these sessions
    size: float  # the largest one minus the smallest

    def reward(self, answer: SignalOutputs) -> Tensor:
        """(B,) float64: the mean reward of the step. Every place has it."""
        return self.low + self.size * answer.probability(-1)[:, 0].double()

    def leaving(self, logit: Tensor) -> Tensor:
        """(B,) float64: the probability of leaving; 0 or 1 if nobody left, or all after one step."""
        kinds = self.network.kinds
        constant = torch.full_like(logit, float(kinds.leave_start > 0))
        return (logit.sigmoid() if kinds.leave_weight else constant).double()


@dataclass(frozen=True)
class Worlds:
    """The cross-fitted users of a log, and the starts of its sessions."""

    models: Sequence[FittedUsers]
    seed: int  # of the drawn signals, the same for each policy: their differences have less noise
    catalogue: Catalogue
    gamma: float  # discount per step
    log: DecisionLog
    grid: Tensor  # (N, T) int64: the row of each step of the N sessions, -1 after the end
    folds: Tensor  # (N,) int64: the model of each session, which its user did not train


def why_no_world(log: DecisionLog) -> str:
    """The reason why the log can have no world model; "" if it can have one."""
    if log.header.interface.events:
        return "no world model predicts the events in this log"
    if log.header.candidates:
        return "no world model predicts the candidates of a first stage"
    return "no world model predicts which items a step forbids" if log.forbids else ""


def fit_world(
    of: ReplayedLog,
    generator: torch.Generator,
    keep: Tensor | None = None,
) -> Worlds:
    """Fit one network for each fold to the sessions of the other folds.

    Args:
        keep: (E,) bool, only these rows, of whole sessions.

    Raises UserError for a log that can have no world model (``why_no_world``), and if a fit fails.
    """
    log = of.log
    if reason := why_no_world(log):
        raise UserError(f"The users of the log can't be fitted, as {reason}: choose another estimator.")
    mask = torch.ones_like(log.terminated) if keep is None else keep
    grid = of.grid[mask[of.grid[:, 0]]]
    folds = of.folds[grid[:, 0]]
    table = session_table(log.rows(mask), of.rewards[mask], log.visible)
    tables = item_tables(of.catalogue)
    sizes = context_sizes(log.header.interface, log.given, of.catalogue)
    models = [
        _fitted(table.rows((folds != fold).nonzero().squeeze(1)), tables, sizes, generator)
        for fold in range(int(folds.max()) + 1)
    ]
    seed = int(torch.randint(2**31, (), generator=generator))
    return Worlds(models, seed, of.catalogue, of.gamma, log, grid, folds)


def try_world(
    of: ReplayedLog, generator: torch.Generator, keep: Tensor | None = None
) -> tuple[Worlds | None, str]:
    """``fit_world``; or None and the reason for which the fit failed, as the end of a sentence."""
    try:
        return fit_world(of, generator, keep), ""
    except UserError as error:  # the other estimators do not need it
        text = str(error).rstrip(".")
        return None, text[:1].lower() + text[1:]


def _fitted(
    table: SessionTable, tables: ItemTables, sizes: ContextSizes, generator: torch.Generator
) -> FittedUsers:
    """The users of these sessions.

    The reward of the step is one more signal, the last one, at each place: the log may have a column of
    rewards, or hidden signals behind them.
    """
    earned = table.rewards[table.under_way]  # (R,)
    low, size = float(earned.min()), float(earned.max() - earned.min())
    unit = torch.where(table.under_way, (table.rewards - low) / (size or 1.0), 0.0)  # (G, T)
    unit = unit[..., None, None].expand(-1, -1, table.items.shape[2], 1)  # (G, T, K, 1)
    table = dataclasses.replace(table, signals=torch.cat([table.signals, unit], 3))
    held = held_out(table.users, generator)
    network = UserNetwork(tables, sizes, _kinds(table), generator)
    inner = table.rows((~held).nonzero().squeeze(1))
    checked = table.rows(held.nonzero().squeeze(1)) if bool(held.any()) else inner
    decisions, (least, most) = int(inner.lengths.sum()), ROWS
    step = min(most, max(least, decisions // 40)) * inner.under_way.numel() // decisions  # of full sessions
    fitting = UserFitting([network], inner, checked, FitSizes(EPOCHS, step), generator)
    while not fitting.finished:
        fitting.epoch()
    set_means(network, table)
    return FittedUsers(network, low, size)


def _kinds(table: SessionTable) -> SignalKinds:
    """The kinds of the signals; the reward is a mean from 0 to 1, and counts as all signals together."""
    shown, left = table.signals[table.shown], table.left_after[table.under_way]
    rewards = shown[:, -1:]  # (R, 1)
    kinds = kinds_of(shown, left, (*are_binary(shown)[:-1], True))
    of_rewards = float(shares(rewards, rewards.mean(0).clamp(1e-6, 1 - 1e-6)))
    number = max(1, sum(weight > 0 for weight in kinds.weights[:-1]))
    weights = (*(weight / number for weight in kinds.weights[:-1]), of_rewards)
    of_step = (*(False for _ in kinds.weights[:-1]), True)
    return dataclasses.replace(kinds, weights=weights, of_step=of_step)


@torch.no_grad()
def world(
    worlds: Worlds,
    policy: Policy,
    log: ReplayedLog | None = None,
    sessions: int | None = None,
    part: int = 0,
) -> Tensor:
    """The terms (N,) float64: the expected return of each logged session's user under ``policy``.

    Args:
        log: another part of the log; None: the sessions on which the models were fitted.
        sessions: only the first of them; None for all.
        part: its number. Each part has noise of its own, which is the same for each policy.
    """
    decisions, grid, folds = worlds.log, worlds.grid, worlds.folds
    if log is not None:
        decisions, grid, folds = log.log, log.grid, log.folds[log.grid[:, 0]]
    folds = folds[:sessions]
    earned = torch.zeros(len(folds), dtype=torch.float64)
    name = f"part {part}"
    noise = generators(worlds.seed, name)[name]
    for fold, users in enumerate(worlds.models):
        mine = (folds == fold).nonzero().squeeze(1)
        for rows in mine.split(WIDTH) if len(mine) else ():  # a small part may have no user of a fold
            earned[rows] = _play(worlds, users, policy, decisions, grid[rows], noise)
    return earned


def _play(
    worlds: Worlds,
    users: FittedUsers,
    policy: Policy,
    log: DecisionLog,
    grid: Tensor,
    noise: torch.Generator,
) -> Tensor:
    """(B,) float64 for the sessions with the rows ``grid`` (B, T) of ``log``, of these ``users``."""
    starts = log.rows(grid[:, 0])
    interface, catalogue, network = starts.header.interface, worlds.catalogue, users.network
    number, signals = starts.num_rows, len(network.kinds.binary)
    session = Session.begin(interface, catalogue, starts.users)
    every = catalogue.own or bool(catalogue.available.all())  # a team's log has its own moments
    available = None if every else catalogue.available.expand(number, -1)
    memory = network.begin(starts.given, number)
    total = torch.zeros(number, dtype=torch.float64)
    alive = torch.ones(number, dtype=torch.float64)
    for step in range(interface.session_length):
        obs = _asked(session.request(starts.given, available), log, grid, step, catalogue)
        items = policy.act(obs).items  # (B, K)
        shown, rows = items >= 0, items.clamp_min(0)
        answer = network.respond(memory, rows, shown)
        total += worlds.gamma**step * alive * users.reward(answer)
        # No user answers with the mean of their signals: network and policy have no data there.
        given = answer.at(torch.rand(*items.shape, signals, generator=noise))  # (B, K, S)
        memory, logit = network.after(memory, rows, shown, given)
        alive *= 1 - users.leaving(logit)
        session = session.record(items, given[..., :-1], shown)
    return total


def _asked(obs: Obs, log: DecisionLog, grid: Tensor, step: int, catalogue: Catalogue) -> Obs:
    """The observation (B) with what the requests of the logged sessions asked at this step.

    At a team's own place it is limited to the items that were there then.
    The last request of a session holds on after its logged end. Where a session shows no item twice, the log
    may leave out of the candidates what the logged policy had shown; here another policy plays, and they
    count. Candidates of which fewer than K are left limit nothing.
    """
    longest = (grid >= 0).sum(1) - 1  # (B,)
    rows = grid.gather(1, longest.clamp_max(step).unsqueeze(1)).squeeze(1)
    if log.exclude is not None:
        more = log.exclude[rows]
        known = more if obs.exclude is None else torch.cat([obs.exclude, more], 1)
        obs = dataclasses.replace(obs, exclude=known)
    if log.stock is not None:
        could = ItemTimeline.of(catalogue).available_at(log.stock[rows])  # (B, I)
        obs = dataclasses.replace(obs, mask=could if obs.mask is None else could & obs.mask)
    if log.candidates is None:
        return obs
    candidates, num_items = log.candidates[rows], log.header.num_items
    if not log.header.interface.repeats:
        before = grid[:, :step]
        shown = log.items[before.clamp_min(0)].masked_fill((before < 0).unsqueeze(2), -1)  # (B, t, K)
        candidates = torch.cat([candidates, shown.flatten(1)], 1)
    allowed = obs.allowed(num_items)  # (B, I)
    mask = allowed & obs.among(candidates).showable(num_items)
    enough = mask.sum(1, keepdim=True) >= log.items.shape[1]
    return dataclasses.replace(obs, mask=torch.where(enough, mask, allowed))


def check_world(
    of: ReplayedLog, logger: Callable[[int], Policy | None], generator: torch.Generator
) -> tuple[list[WorldCheck], list[str]]:
    """A check of the model by each logger: its prediction for sessions on which it was not fitted.

    ``logger`` gives the policy at a place in the log's loggers; None for one that can't be played.
    Returns also a sentence for each logger without whose sessions the fit failed.
    """
    loggers = of.log.loggers
    checks: list[WorldCheck] = []
    failed: list[str] = []
    for number in loggers.unique().tolist():
        others = loggers != number
        policy = logger(number) if bool(others.any()) else None
        # The model of a fold needs rows of another one.
        if policy is None or len(of.folds[others].unique()) < 2:
            continue
        mine, name = loggers[of.grid[:, 0]] == number, of.log.header.loggers[number]
        returns = of.on_grid(of.rewards)[mine] @ discounts(of.gamma, of.grid.shape[1])
        if len(of.users[mine].unique()) < 2:
            continue
        announce("fitting the world model without the sessions of one logger")
        worlds, reason = try_world(of, generator, others)
        if worlds is None:
            failed.append(f"The model was not checked without the sessions of {name}: {reason}.")
            continue
        low, high = student_t(returns, of.users[mine])
        predicted = float(world(worlds, policy).mean())
        checks.append(WorldCheck(name, predicted, float(returns.mean()), low, high))
    return checks, failed


def not_checked(reason: str, needed: str) -> str:
    """The sentence for a world without a check: the ``reason``, and what the check needs."""
    where = "on a policy that it was not fitted on"
    return f"The model was not checked {where}, {reason}: the check needs {needed}."


def why_not_checked(of: ReplayedLog, with_checkpoint: bool) -> str:
    """The sentence for a world of this log without a check."""
    if not with_checkpoint:
        return not_checked(
            "as none of the policies that logged can be played without a checkpoint",
            "a log of recsys-rl record by two policies, with its --checkpoint",
        )
    if of.estimated:
        return not_checked(
            "as the propensities are estimated, so that no logger can be recognised by them",
            "a log with propensities",
        )
    if len(of.log.loggers.unique()) < 2:
        return not_checked(
            "as one policy logged all sessions",
            "sessions of a second policy (record --policy A --policy B)",
        )
    return not_checked(
        "as no logger's policy can be played with this checkpoint, or too few users are left without its "
        "sessions",
        "the checkpoint of the loggers, and sessions of more users",
    )

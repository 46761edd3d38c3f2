"""The policies of `recsys-rl ope`: those to judge, and those that made the log."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys_rl.evaluation.mixture import EpsilonMixture, Fixed
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.policies import Loggers, Playable, logged_places
from recsys_rl.logs.ope.read_log import ReadLog
from recsys_rl.logs.ope.replay import Probabilities, ReplayedLog
from recsys_rl.logs.ope.result import LOGGED
from recsys_rl.logs.ope.slate_choices import Choices, choices_of, mixed, showable, uniform_marginals
from recsys_rl.logs.ope.slates import uniform_choices
from recsys_rl.protocols import Behaviour
from recsys_rl.records import PRIVILEGED
from recsys_rl.types import Obs, UserError


def policies_of(options: OpeConfig, read: ReadLog) -> list[Playable]:
    """The policies of the table to judge. Raises UserError for one that the log can't judge."""
    names = options.table_policies
    if not names and not options.target and LOGGED not in options.names and read.behaviours is not None:
        names = [read.behaviours.name]
    return [playable(name, _policy(read, name)) for name in names]


def _policy(read: ReadLog, name: str) -> Behaviour:
    if read.behaviours is None:
        sizes = (read.catalogue.num_items,)
        return RandomPolicy(sizes, read.streams["random"], read.log.items.shape[1])
    if name in PRIVILEGED:
        raise UserError(f"{name} reads the simulator's state, which no log holds: choose another policy.")
    behaviours = read.versions.get(name, read.behaviours)
    own = behaviours.name if name in read.versions else name
    policy = behaviours.make(own)
    rule, theirs = behaviours.candidate_rule([own]), read.log.header.candidates
    if rule != theirs and (rule or name != "random"):
        raise UserError(
            f"{name} chooses among {rule or 'all items'}, but the log's policy among "
            f"{theirs or 'all items'}: their probabilities can't be compared."
        )
    return policy


def playable(name: str, policy: Behaviour) -> Playable:
    """The policy, with its choices of slates by its kind."""

    def choices(log: ReplayedLog, slates: Tensor | None, draws: int, logged: bool) -> Choices:
        return slate_choices(log, policy, slates, draws, logged)

    return Playable(name, policy, isinstance(policy, Fixed), choices)


def slate_choices(
    log: ReplayedLog, policy: Behaviour, slates: Tensor | None, draws: int, logged: bool = False
) -> Choices:
    """As ``choices_of``; exact for policies without chance, for `random`, and for mixtures of these."""
    if isinstance(policy, EpsilonMixture):
        parts = [slate_choices(log, side, slates, draws, logged) for side in (policy.policy, policy.other)]
        return mixed(parts[0], parts[1], policy.epsilon)
    if slates is None and isinstance(policy, RandomPolicy):
        return Choices(uniform_marginals(showable(log), log.places))
    if slates is None and isinstance(policy, Fixed):
        # What stands above does not change its items, so the logged slate alone gives 0 or 1.
        return choices_of(log, policy, None, draws=0, logged=True)
    return choices_of(log, policy, slates, draws, logged)


def loggers_of(options: OpeConfig, read: ReadLog, log: ReplayedLog) -> Loggers:
    """Facts about the policies that made the log."""
    # Other processes get it without the rows of the sample.
    makers = Makers(replace(read, log=read.log.rows(torch.arange(1)), parts=None))
    return Loggers(
        makers.policy, makers.probabilities, _unknown(options, read, log), read.behaviours is not None
    )


def _unknown(options: OpeConfig, read: ReadLog, log: ReplayedLog) -> str:
    """Why no policy is known to be the log's: the end of a sentence; "" without a checkpoint."""
    if read.behaviours is None:
        return ""
    if log.estimated or log.log.header.estimated:
        return ", and no policy is recognised by estimated propensities"
    if options.logger:
        files = ", ".join(map(str, (read.checkpoint, *options.logger)))
        return f", and no policy of {files} gives the logged probabilities"
    return f", and no policy of {read.checkpoint} gives the logged probabilities (give --logger FILE)"


@dataclass(frozen=True)
class Makers:
    """The policies that made a log, where their probability of every item is known."""

    read: ReadLog

    def probabilities(self, log: ReplayedLog) -> Probabilities | None:
        """The probability of each item under the average of the loggers; None if it is unknown."""
        names, size, table = log.log.header.loggers, log.num_items, self.read.table
        if table is not None and table.probabilities is not None:
            every = table.probabilities
            return lambda rows, obs: every[rows]
        if len(names) == 1 and uniform_choices(log) is not None:
            uniform = RandomPolicy((size,), torch.Generator())  # draws nothing here
            return lambda rows, obs: uniform.item_probabilities(obs, size)
        shares = log.totals.logger_rows.double() / log.totals.rows
        makers = [
            (float(share), self.policy(log, logger)) for logger, share in enumerate(shares) if share > 0
        ]
        if any(maker is None for _, maker in makers):
            return None

        def average(rows: Tensor, obs: Obs) -> Tensor:
            parts = [
                share * maker.policy.item_probabilities(obs, size)
                for share, maker in makers
                if maker is not None
            ]
            return torch.stack(parts).sum(0)

        return average

    def policy(self, log: ReplayedLog, logger: int) -> Playable | None:
        """The logger, if a checkpoint has a policy with its name and its probabilities."""
        name = log.log.header.loggers[logger]
        mixture = re.fullmatch(r"\S+ (\S+) \+ (\S+) (\S+)", name)
        parts = [mixture[1], mixture[3]] if mixture else [name]
        # Estimated propensities can't tell one policy from another.
        known = (
            ()
            if self.read.behaviours is None or log.estimated or log.log.header.estimated
            else (self.read.behaviours, *self.read.others)
        )
        for behaviours in known:
            if any(component not in behaviours.names or component in PRIVILEGED for component in parts):
                continue
            policy = (
                behaviours.mix(parts[0], parts[1], float(mixture[2])) if mixture else behaviours.make(name)
            )
            if _made(policy, log, logger):
                return playable(name, policy)
        return None


def _made(policy: Behaviour, log: ReplayedLog, logger: int) -> bool:
    """True if ``policy`` gives the log's own probabilities under its logger number ``logger``."""
    of = log.log
    theirs = of.logprobs if of.logger_logprobs is None else of.logger_logprobs[:, logger]
    mine = logged_places(log, policy).sum(1)
    # Logarithms: in a large catalogue all probabilities are near 0, and so near each other.
    return torch.allclose(mine, theirs, rtol=1e-4, atol=1e-3)

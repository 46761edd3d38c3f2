"""One log with all that is needed to judge policies on it (ope_judge.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.agents.baselines import RandomPolicy
from recsys_rl.decisions.table import OwnLog
from recsys_rl.decisions.table_catalogue import knows_items
from recsys_rl.evaluation.behaviours import Behaviours
from recsys_rl.ope.fits import Fit, logistic, mlp, of_each_value, ridge
from recsys_rl.ope.judging import Way
from recsys_rl.ope.logged import Prepared, every_item
from recsys_rl.ope.logged_clusters import ClusterBench, k_means
from recsys_rl.ope.logged_slates import SlateBench, place_rewards, uniform_choices
from recsys_rl.ope.propensities import PropensityFit
from recsys_rl.ope.slate_choices import possible_slates
from recsys_rl.ope.world import Worlds, fit_world
from recsys_rl.ope.world_model import mlp_of_shares
from recsys_rl.protocols import SEERS, Behaviour
from recsys_rl.types import Feedback, UserError
from recsys_rl.utils.progress import announce
from recsys_rl.workflows.ope_choices import slate_choices
from recsys_rl.workflows.ope_config import LOGGED, OpeConfig
from recsys_rl.workflows.ope_loggers import Loggers

Rewards = Callable[[Feedback], Tensor]
CLUSTERED = ("mips", "offcem")
LOGGER_DRAWS = 64  # slates, at least: a weight divides by the logger's probability, so its noise is a bias
Reasons = dict[str, str]
"""Estimators that can't be computed, each with the reason."""


@dataclass(frozen=True)
class Bench:
    """One log, its rewards, and what all judged policies share."""

    options: OpeConfig
    prepared: Prepared
    rewards: Rewards
    behaviours: Behaviours | None  # of the checkpoint; None for a log without one
    streams: dict[str, torch.Generator]
    fitted: PropensityFit | None  # of estimated propensities; None: the log has its own
    own: OwnLog | None  # people's own file
    checkpoint: str | None
    others: tuple[Behaviours, ...] = ()  # of further checkpoints whose policies may have made the log
    left_out: dict[str, Reasons] = field(default_factory=dict)  # by policy

    @property
    def steps(self) -> int:
        return self.prepared.grid.shape[1]

    @property
    def places(self) -> int:
        return self.prepared.log.items.shape[1]

    @property
    def trusted(self) -> str:
        return "wdr" if self.steps > 1 else "dr"

    @property
    def target_name(self) -> str:
        return f"target {Path(self.options.target or '').name}"

    @property
    def names(self) -> list[str]:
        """The policies of the table to judge."""
        chosen = self.options.table_policies
        if chosen or self.options.target or LOGGED in self.options.names or self.behaviours is None:
            return chosen
        return [self.behaviours.name]

    def policy(self, name: str) -> Behaviour:
        """The policy of the table. Raises UserError if the log can't judge it."""
        if self.behaviours is None:
            sizes = (self.prepared.catalogue.num_items,)
            return RandomPolicy(sizes, self.streams["random"], self.places)
        if name in SEERS:
            raise UserError(f"{name} reads the simulator's state, which no log holds: choose another policy.")
        policy = self.behaviours.make(name)
        rule, theirs = self.behaviours.candidate_rule([name]), self.prepared.log.header.candidates
        if rule != theirs and (rule or name != "random"):
            raise UserError(
                f"{name} chooses among {rule or 'all items'}, but the log's policy among "
                f"{theirs or 'all items'}: their probabilities can't be compared."
            )
        return policy

    def fit(self) -> Fit:
        """The regression of the reward model. Of several steps, it predicts sums of rewards."""
        if self.options.q_by is None:
            return self._fit()
        columns = self.prepared.features.columns_of(self.options.q_by)
        assert columns is not None  # checked before
        return of_each_value(self._fit(), columns)

    def _fit(self) -> Fit:
        if self.options.q == "mlp":
            rewards = self.prepared.rewards
            if self.steps == 1 and bool(((rewards == 0) | (rewards == 1)).all()):
                return mlp_of_shares(self.streams["ope"])
            return mlp(self.streams["ope"], epochs=10)
        return logistic() if self.options.q == "logistic" else ridge()

    @cached_property
    def way(self) -> Way:
        options = self.options
        return Way(
            options.interval, largest_weight=options.largest_weight, seed=options.seed, clip=options.clip
        )

    @cached_property
    def no_world(self) -> str:
        """The reason why the log has no world model; "" if it can have one."""
        of = self.prepared.log
        if not self.options.world:
            return "--no-world"
        if of.header.interface.events:
            return "no world model predicts the events in this log"
        return "" if of.candidates is None else "no world model predicts the candidates of a row"

    def worlds(self, keep: Tensor | None = None) -> Worlds | None:
        """The world model, of the rows where ``keep`` (E,) is True; None if the log can't have one."""
        of = self.prepared
        if self.no_world:
            return None
        log, rows, rewards, folds = of.log, of.rows, of.rewards, of.folds
        announce("fitting the world model" + ("" if keep is None else " without the sessions of one logger"))
        if keep is not None:
            log, rows, rewards, folds = log.rows(keep), rows[keep], rewards[keep], folds[keep]
        return fit_world(log, of.catalogue, of.features, rows, rewards, folds, of.gamma, self.streams["ope"])

    @property
    def loggers(self) -> Loggers:
        known = [] if self.behaviours is None else [self.behaviours, *self.others]
        return Loggers(self.prepared, known, self.own, self.fitted is not None)

    @property
    def unknown_logger(self) -> str:
        """Why no policy is known to be the log's: the end of a sentence; "" without a checkpoint."""
        if self.behaviours is None:
            return ""
        if self.fitted is not None:
            return ", and no policy is recognised by estimated propensities"
        if self.options.logger:
            files = ", ".join(map(str, (self.checkpoint, *self.options.logger)))
            return f", and no policy of {files} gives the logged probabilities"
        return f", and no policy of {self.checkpoint} gives the logged probabilities (give --logger FILE)"

    @cached_property
    def every_item(self) -> Tensor | None:
        """The features of all items in each row, the same for all policies; None if they are too many."""
        return every_item(self.prepared)

    @cached_property
    def slates(self) -> SlateBench | None:
        """For slates of several items."""
        if self.places == 1:
            return None
        of = self.prepared
        whole = self.own is not None and self.own.whole
        each = None if whole else place_rewards(self.rewards, of.log.feedback)
        if of.log.logger_logprobs is not None:
            return SlateBench(of, each, None)
        numbers, slates = uniform_choices(of), possible_slates(of)
        logger = self.loggers.behaviour(0) if numbers is None and not whole else None
        logging = None
        if logger is not None:
            draws = max(self.options.draws, LOGGER_DRAWS)
            logging = slate_choices(of, logger, slates, draws, logged=True)
        return SlateBench(of, each, numbers, slates, logging, self.unknown_logger)

    @cached_property
    def clusters(self) -> tuple[ClusterBench | None, str]:
        """For single decisions, or the reason why there are no clusters."""
        of = self.prepared
        if self.steps > 1 or self.places > 1:
            return None, "for logs of one step and one item"
        if self.behaviours is None and not knows_items(of.catalogue):
            return None, "nothing is known of the items that could group them: give --items FILE"
        logging = self.loggers.probabilities()
        if logging is None:
            return None, "the logger's probability of each item is not known"
        number = self.options.clusters or max(2, round(of.catalogue.num_items**0.5))
        found = k_means(of.catalogue.embedding, number, self.streams["clusters"])
        return ClusterBench.make(of, found, logging), ""

    def leave_out(self, policy: str, reasons: Reasons) -> None:
        self.left_out.setdefault(policy, {}).update(reasons)

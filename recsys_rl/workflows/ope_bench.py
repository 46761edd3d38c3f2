"""One log with all that is needed to judge policies on it, and the policies' results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.agents.baselines import RandomPolicy
from recsys_rl.agents.behaviours import Fixed
from recsys_rl.data.own_catalogue import knows_items
from recsys_rl.data.own_decisions import OwnLog
from recsys_rl.data.target import Ids, Target, check_support, read_target
from recsys_rl.data.transitions import observations
from recsys_rl.evaluation.behaviours import Behaviours
from recsys_rl.ope.bandit import BANDIT, CLIPPED
from recsys_rl.ope.diagnostics import unsupported_mass
from recsys_rl.ope.estimate import estimated, with_doubt
from recsys_rl.ope.fits import Fit, logistic, mlp, ridge
from recsys_rl.ope.judging import (
    NEEDS_MODEL,
    Judgement,
    Terms,
    Way,
    at_one_step,
    judgement,
)
from recsys_rl.ope.logged import (
    Actions,
    Prepared,
    Probabilities,
    certain_mass,
    check_weights,
    every_item,
    features_of,
    judge,
    probabilities_of,
    sessions_of,
)
from recsys_rl.ope.logged_clusters import ClusterBench, k_means
from recsys_rl.ope.logged_slates import (
    Places,
    SlateBench,
    place_rewards,
    uniform_choices,
    uniform_marginals,
)
from recsys_rl.ope.propensities import WARNING, PropensityFit
from recsys_rl.ope.sequential import SEQUENTIAL
from recsys_rl.ope.slate_choices import Choices, choices_of, logger_choices, possible_slates
from recsys_rl.ope.world import Worlds, fit_world, world
from recsys_rl.ope.world_model import mlp_of_shares
from recsys_rl.protocols import SEERS, Behaviour
from recsys_rl.types import Feedback, Obs, UserError
from recsys_rl.workflows.ope_config import LOGGED, OpeConfig
from recsys_rl.workflows.ope_errors import errors_of
from recsys_rl.workflows.ope_loggers import Loggers

Rewards = Callable[[Feedback], Tensor]
CLUSTERED = ("mips", "offcem")
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
        asked = {*self.options.policy, *(self.options.compare or ())}
        if chosen or self.options.target or LOGGED in asked or self.behaviours is None:
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
        if keep is not None:
            log, rows, rewards, folds = log.rows(keep), rows[keep], rewards[keep], folds[keep]
        return fit_world(log, of.catalogue, of.features, rows, rewards, folds, of.gamma, self.streams["ope"])

    @property
    def loggers(self) -> Loggers:
        known = [] if self.behaviours is None else [self.behaviours, *self.others]
        return Loggers(self.prepared, known, self.own, self.fitted is not None)

    @cached_property
    def every_item(self) -> Tensor | None:
        """The features of all items in each row, the same for all policies; None if they are too many."""
        return every_item(self.prepared)

    def _all_items(self, policy: Probabilities) -> Actions | None:
        """All items with the policy's probabilities; None if they are too many."""
        if self.every_item is None:
            return None
        return Actions(self.every_item, probabilities_of(self.prepared, policy))

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
        logging = None if logger is None else logger_choices(of, logger, slates, self.options.draws)
        return SlateBench(of, each, numbers, slates, logging)

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

    def judge_all(self) -> dict[str, Judgement]:
        policies = {name: self.policy(name) for name in self.names}  # all refusals come first
        target = None
        if self.options.target is not None:
            with errors_of(self.options.target, self.own):
                target = read_target(self.options.target, self.prepared.log, self._ids)
        worlds = self.worlds() if policies else None
        found = {name: self._judge(name, policy, worlds) for name, policy in policies.items()}
        if target is not None:
            found[self.target_name] = self._judge_target(target)
        asked = {*self.options.policy, *(self.options.compare or ())}
        if self.behaviours is None or LOGGED in asked:
            found[LOGGED] = self._logged()
        return found

    def _judge(self, name: str, policy: Behaviour, worlds: Worlds | None) -> Judgement:
        certain = isinstance(policy, Fixed)
        draws = 1 if certain else self.options.draws
        size = self.prepared.catalogue.num_items

        def probabilities(rows: Tensor, obs: Obs) -> Tensor:
            return policy.item_probabilities(obs, size)

        sums = self.places == 1 and not certain
        actions = self._all_items(probabilities) if sums else None
        mine = judge(self.prepared, policy, draws if actions is None else 0)
        choices = None
        if self.slates is not None and self.slates.known:
            numbers = self.slates.numbers
            if isinstance(policy, RandomPolicy) and numbers is not None:
                choices = Choices(uniform_marginals(numbers, self.places))
            else:
                choices = choices_of(self.prepared, policy, self.slates.slates, draws)
        more = {} if worlds is None else {"world": Terms(world(worlds, policy))}
        if worlds is None:
            self._leave_out(name, {"world": self.no_world})
        return self._judgement(
            name,
            mine.logprobs,
            actions or Actions(mine.draws),
            Places(mine.places, choices),
            probabilities,
            more,
        )

    def _judge_target(self, target: Target) -> Judgement:
        name, of, every = self.target_name, self.prepared, target.every
        self._leave_out(name, {"world": self.no_world or "a target file holds no policy to play"})
        places = Places(target.places, None)
        if every is None:
            return self._judgement(name, target.logprobs, None, places, None, {})
        for at, obs in observations(of.log, of.catalogue):
            with errors_of(self.options.target, self.own):
                check_support(every[at], obs.showable(every.shape[1]), at, of.log)

        def probabilities(rows: Tensor, obs: Obs) -> Tensor:
            return every[rows]

        actions = self._all_items(probabilities) or self._drawn(every)
        return self._judgement(name, target.logprobs, actions, places, probabilities, {})

    def _drawn(self, every: Tensor) -> Actions:
        """Items that are drawn with the probabilities ``every`` (E, I)."""
        number, generator = self.options.draws, self.streams["policy"]
        drawn = torch.multinomial(every, number, replacement=True, generator=generator)
        return Actions(features_of(self.prepared, drawn))

    def _judgement(
        self,
        name: str,
        logprobs: Tensor,
        actions: Actions | None,
        places: Places,
        probabilities: Probabilities | None,
        more: dict[str, Terms],
    ) -> Judgement:
        of = self.prepared
        sessions = sessions_of(of, logprobs, actions, self.fit())
        with errors_of(self.options.log, self.own):
            check_weights(of, sessions.weights)
        unknown = "the target file has no probabilities of every item"
        if actions is None:
            mine = (*BANDIT, *CLIPPED) if self.steps == 1 else tuple(SEQUENTIAL)
            self._leave_out(name, {x: unknown for x in mine if x in NEEDS_MODEL})
        if self.slates is not None:
            of_slates, reasons = self.slates.terms(sessions.weights, places)
            more = of_slates | more
            self._leave_out(name, reasons)
        clusters, reason = self.clusters
        if clusters is not None and probabilities is not None:
            more = clusters.terms(probabilities, at_one_step(sessions)) | more
        elif self.steps == 1 and self.places == 1:
            self._leave_out(name, dict.fromkeys(CLUSTERED, reason or unknown))
        lost = certain_mass(of, logprobs)
        if probabilities is not None and self.steps == 1 and self.places == 1:
            lost = max(lost, self._lost(probabilities))
        found = judgement(sessions, of.users, self.way, lost, of.most, more)
        rows = found.estimates if self.fitted is None else with_doubt(found.estimates, WARNING)
        least, best = of.bounds
        if least == best:
            text = f"Every reward of the log is {best:g}: it shows no difference between policies."
            rows = [dataclasses.replace(row, warnings=(*row.warnings, text)) for row in rows]
        return dataclasses.replace(found, estimates=rows)

    def _lost(self, policy: Probabilities) -> float:
        """Share of the policy's mass on items that the logger never shows, if the log holds its own."""
        of = self.prepared
        if self.own is None or self.own.probabilities is None:
            return 0.0
        parts = [
            unsupported_mass(policy(rows, obs), self.own.probabilities[rows]) * len(rows)
            for rows, obs in observations(of.log, of.catalogue)
        ]
        return sum(parts) / of.log.num_rows

    @property
    def _ids(self) -> Ids | None:
        of = self.own
        return None if of is None else Ids(of.items, of.rows, of.sessions, of.session_column)

    def _logged(self) -> Judgement:
        """The mean return of the log's own policies over its sessions; it is no estimate."""
        of = self.prepared
        discounts = of.gamma ** torch.arange(self.steps, dtype=torch.float64)
        earned = of.on_grid(of.rewards) @ discounts
        return Judgement({"mean": earned}, [estimated("mean", earned, None, of.users)])

    def _leave_out(self, policy: str, reasons: Reasons) -> None:
        self.left_out.setdefault(policy, {}).update(reasons)

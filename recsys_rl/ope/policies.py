"""A policy on a log: its probability of each logged decision, and the actions that a model averages over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.ope.estimators import CLUSTERS, MODEL, WORLD, Evidence
from recsys_rl.ope.replay import Probabilities, ReplayedLog, check_weights
from recsys_rl.ope.reward_model import Alternatives, Fit, StepModels, fit_q, with_q
from recsys_rl.ope.slate_choices import Choices
from recsys_rl.protocols import Behaviour
from recsys_rl.tables.target import Target, check_support
from recsys_rl.types import Obs


@dataclass(frozen=True)
class Playable:
    """A policy that can be played."""

    name: str
    policy: Behaviour
    certain: bool  # True if the same observation always gives the same items
    # Its slates on a log: of these possible slates (M, K), or a mean over so many drawn slates; True if the
    # policy made the log (slate_choices.py).
    choices: Callable[[ReplayedLog, Tensor | None, int, bool], Choices]


@dataclass(frozen=True)
class Loggers:
    """Facts about the policies that made a log."""

    # The policy at a place in the log's loggers; None if it is not known.
    policy: Callable[[ReplayedLog, int], Playable | None]
    # The probability of each item under the average of the loggers; None if it is not known.
    probabilities: Callable[[ReplayedLog], Probabilities | None]
    unknown: str = ""  # why no policy is known, as the end of a sentence
    with_checkpoint: bool = False


@dataclass(frozen=True)
class Actions:
    """M actions of each row, over which a reward model is averaged."""

    features: Tensor  # (E, M, F) float32
    probabilities: Tensor | None = None  # (E, M) float64; None: draws of the policy, each with 1 / M


@dataclass(frozen=True)
class PolicyOnLog:
    """The probabilities of one policy on the E rows of a log; a part is None if it is unknown."""

    name: str
    logprobs: Tensor  # (E,) float64: of the logged actions
    places: Tensor | None  # (E, K) float64: the terms of logprobs, each place given those above
    actions: Actions | None = None
    probabilities: Probabilities | None = None
    # Its slates, of the possible ones (M, K) or drawn.
    choices: Callable[[Tensor | None], Choices] | None = None
    policy: Behaviour | None = None  # to be played in a model of the users
    lacking: dict[str, str] = dataclasses.field(default_factory=dict)  # reasons of estimators.py's needs


@torch.no_grad()
def read_policy(log: ReplayedLog, of: Playable, draws: int) -> PolicyOnLog:
    """``draws``: number of actions drawn in each row, if they are not averaged over all items."""
    policy, size = of.policy, log.num_items
    draws = 1 if of.certain else draws

    def probabilities(rows: Tensor, obs: Obs) -> Tensor:
        return policy.item_probabilities(obs, size)

    every = log.every_item if log.places == 1 and not of.certain else None
    if every is not None:
        actions = Actions(every, log.of_rows(probabilities).double())
        places = log.of_rows(lambda at, obs: _place_logprobs(log, policy, at, obs))
    else:
        drawn = torch.empty(log.log.num_rows, draws, log.rows.shape[1])

        def read(at: Tensor, obs: Obs) -> Tensor:
            terms = _place_logprobs(log, policy, at, obs)
            for k in range(draws):
                drawn[at, k] = log.features(obs, policy.act(obs).items)
            return terms

        places, actions = log.of_rows(read), Actions(drawn)
    return PolicyOnLog(
        of.name,
        places.sum(1),
        places,
        actions,
        probabilities,
        lambda slates: of.choices(log, slates, draws, False),
        policy,
    )


@torch.no_grad()
def logged_places(log: ReplayedLog, policy: Behaviour) -> Tensor:
    """(E, K) float64: the log-probability of the logged item of each place, given those above."""
    return log.of_rows(lambda at, obs: _place_logprobs(log, policy, at, obs))


def _place_logprobs(log: ReplayedLog, policy: Behaviour, rows: Tensor, obs: Obs) -> Tensor:
    terms = policy.place_logprobs(obs, log.log.items[rows]).double()  # (B, K)
    return terms.nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def read_target(
    log: ReplayedLog, name: str, target: Target, draws: int, generator: torch.Generator
) -> PolicyOnLog:
    """The probabilities of a file. ``draws``: as in ``read_policy``, by ``generator``."""
    lacking = {WORLD: "a target file holds no policy to play"}
    every = target.every
    if every is None:
        unknown = "the target file has no probabilities of every item"
        return PolicyOnLog(
            name, target.logprobs, target.places, lacking=lacking | dict.fromkeys((MODEL, CLUSTERS), unknown)
        )
    if log.every_item is not None:
        actions = Actions(log.every_item, every)
    else:
        drawn = torch.multinomial(every, draws, replacement=True, generator=generator)
        actions = Actions(log.features_of(drawn))
    return PolicyOnLog(
        name, target.logprobs, target.places, actions, lambda rows, obs: every[rows], lacking=lacking
    )


def check_target(log: ReplayedLog, target: Target) -> None:
    """Raise UserError if the file gives an item above 0 that could not be shown."""
    if target.every is None:
        return
    for at, obs in log.observations():
        check_support(target.every[at], obs.showable(log.num_items), at, log.log)


def weighted(log: ReplayedLog, policy: PolicyOnLog) -> Evidence:
    """The sessions with the policy's weights. Raises UserError for weights that are too large."""
    weights = log.weights(policy.logprobs)
    with log.errors():
        check_weights(log, weights)
    return Evidence(weights, log.on_grid(log.rewards), log.alive, log.gamma)


def with_models(
    log: ReplayedLog, evidence: Evidence, policy: PolicyOnLog, fit: Fit
) -> tuple[Evidence, StepModels | None]:
    """The evidence with the policy's Q and V, by models that are fitted on this log, and these.

    Without the policy's actions it stays as it is.
    """
    if policy.actions is None:
        return evidence, None
    features, folds = log.on_grid(log.rows), log.folds[log.grid[:, 0]]
    return fit_q(evidence, features, _alternatives(log, policy.actions), fit, folds, log.bounds)


def with_values(log: ReplayedLog, evidence: Evidence, policy: PolicyOnLog, models: StepModels) -> Evidence:
    """The evidence with the policy's Q and V, by models that were fitted on other sessions."""
    if policy.actions is None:
        return evidence
    features, folds = log.on_grid(log.rows), log.folds[log.grid[:, 0]]
    return with_q(evidence, features, _alternatives(log, policy.actions), models, folds)


def _alternatives(log: ReplayedLog, actions: Actions) -> Alternatives:
    """The actions of each session at a step, and the policy's probability of each."""
    grid, known = log.grid, actions.probabilities

    def of(t: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        at = actions.features[grid[rows, t]]  # (B, M, F)
        if known is not None:
            return at, known[grid[rows, t]]
        return at, torch.full(at.shape[:2], 1 / at.shape[1], dtype=torch.float64)

    return of

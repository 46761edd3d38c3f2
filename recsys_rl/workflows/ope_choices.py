"""The probabilities of items at the places of slates, by the kind of policy."""

from __future__ import annotations

from torch import Tensor

from recsys_rl.agents.baselines import RandomPolicy
from recsys_rl.agents.behaviours import EpsilonMixture, Fixed
from recsys_rl.ope.logged import Prepared
from recsys_rl.ope.logged_slates import showable, uniform_marginals
from recsys_rl.ope.slate_choices import Choices, choices_of, mixed
from recsys_rl.protocols import Behaviour


def slate_choices(
    prepared: Prepared, policy: Behaviour, slates: Tensor | None, draws: int, logged: bool = False
) -> Choices:
    """As ``choices_of``; exact for policies without chance, for `random`, and for mixtures of these."""
    if isinstance(policy, EpsilonMixture):
        parts = [slate_choices(prepared, x, slates, draws, logged) for x in (policy.policy, policy.other)]
        return mixed(parts[0], parts[1], policy.epsilon)
    if slates is None and isinstance(policy, RandomPolicy):
        return Choices(uniform_marginals(showable(prepared), prepared.log.items.shape[1]))
    if slates is None and isinstance(policy, Fixed):
        # What stands above does not change its items, so the logged slate alone gives 0 or 1.
        return choices_of(prepared, policy, None, draws=0, logged=True)
    return choices_of(prepared, policy, slates, draws, logged)

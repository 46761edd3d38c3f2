"""Find the facts of learnable.py in a file of decisions, without holding its rows."""

from __future__ import annotations

from collections.abc import Mapping

from recsys_rl.logs.describe.context_survey import ContextPiece
from recsys_rl.logs.describe.learnable import DecisionFacts
from recsys_rl.logs.describe.logged_choices import LoggedChoices
from recsys_rl.logs.describe.propensity_survey import survey_propensities


def survey_learnable(
    choices: LoggedChoices,
    rewards: Mapping[str, tuple[float, float]],
    users: int | None,
    context: tuple[ContextPiece, ...],
    sound: bool,
) -> DecisionFacts:
    """The facts of a log; the arguments as in ``DecisionFacts``."""
    longest = _longest(choices)
    return DecisionFacts(
        rows=choices.layout.rows,
        users=users,
        longest=longest,
        same_items=_same_items(choices),
        rewards=rewards,
        propensities=survey_propensities(choices, next(iter(rewards), None), longest),
        slate_size=choices.slate_size,
        context=context,
        derived=choices.header is not None,
        sound=sound,
        first=choices.row_name(1),
        has_candidates="candidates" in choices.roles,
    )


def _longest(choices: LoggedChoices) -> int:
    """The decisions of the longest session; 1 without sessions."""
    name, layout = choices.roles.get("session"), choices.layout
    if name is None:
        return 1
    counts = layout.counts(layout.hash(name), layout.scan.filter(~layout.gap(name)))["count"]
    return int(counts.to_numpy().max(initial=1))


def _same_items(choices: LoggedChoices) -> bool:
    """True if each row shows the same; in a slate the order counts."""
    hashes = choices.layout.hash(choices.roles["item"])
    ends = choices.shown.select(least=hashes.min(), largest=hashes.max())
    least, largest = choices.layout.collect(ends).row(0)
    return bool(least == largest)

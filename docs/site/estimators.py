"""A page for each estimator of `ope`, made of its record and the measured tables."""

from __future__ import annotations

import inspect

from benchmarks.harness.newest import table
from docs.site.measured import measured
from recsys_rl.logs.ope import estimators
from recsys_rl.logs.ope.estimators import ESTIMATORS, Estimator

NEEDS = {
    estimators.ONE_STEP: "a log of single decisions",
    estimators.STEPS: "a log of sessions of several steps",
    estimators.ITEM: "one item in each decision, no slates",
    estimators.SLATE: "a log of slates",
    estimators.MODEL: "a reward model, which `ope` fits on the log",
    estimators.CLUSTERS: "the probability of each cluster of items under the policy and under the logger",
    estimators.GIVEN_ABOVE: "the probability of each place's item, given the items above it",
    estimators.ALONE: "the probability of each place's item, whatever stands above",
    estimators.ADDITIVE: "the pseudo-inverse weight of the slate",
    estimators.PLACE_REWARDS: "a reward of each place",
    estimators.PLACE_MODEL: "a model of what a place and those below it bring, which `ope` fits on the log",
    estimators.WORLD: "users learned from the log, in whom the policy is played",
}


def pages() -> dict[str, str]:
    """The text of each page, by its path in the site; the first one lists them."""
    rows = [[f"[`{name}`]({name}.md)", made.paper, NEEDS[made.needs[0]]] for name, made in ESTIMATORS.items()]
    tree = "\n".join(ESTIMATORS)
    index = (
        "# Estimators\n\nWhat would a policy have earned? Each row of `recsys-rl ope` is one of these. "
        "Which one to trust, and when none: [chapter 9](../09_logs.md).\n\n"
        f"{table(['row of `ope`', 'paper', 'for'], rows, words=True)}\n\n"
        f"```{{toctree}}\n:hidden:\n\n{tree}\n```\n"
    )
    made = {name: page(estimator) for name, estimator in ESTIMATORS.items()}
    return {"estimators/index.md": index} | {f"estimators/{name}.md": text for name, text in made.items()}


def page(made: Estimator) -> str:
    parts = [f"# {made.name}", f"{made.paper[0].upper()}{made.paper[1:]}.", "## The formula"]
    parts += [f"```{{eval-rst}}\n{inspect.cleandoc(doc)}\n```" for doc in docs(made)]
    notes = ["- " + NEEDS[need] for need in made.needs]
    parts += ["## Needs", "\n".join(notes), "## Weights and promise", promise(made)]
    parts.append(
        'The code: <a href="../_modules/recsys_rl/logs/ope/estimators.html">'
        "`recsys_rl/logs/ope/estimators.py`</a>."
    )
    return "\n\n".join([*parts, measured(made.name)]) + "\n"


def docs(made: Estimator) -> list[str]:
    """The docstrings of its functions: the score, the weight, the clip."""
    weights = made.weights if made.weights is not estimators.last_weights else None
    functions = [made.score, weights, made.clip]
    return [function.__doc__ for function in functions if function is not None and function.__doc__]


def promise(made: Estimator) -> str:
    if made.weights is None:
        return "It uses no weights: its interval does not cover the error of the model."
    if made.clip is not None:
        grid = ", ".join(f"{clip:g}" for clip in estimators.GRID)
        return f"The clip is chosen on the log, of {grid}: its interval does not cover the error of the clip."
    if estimators.CLUSTERS in made.needs:
        return "Its interval does not cover the error of clusters whose items differ."
    return "Its interval covers the value for many users and light tails of the weights."

"""A page for each algorithm, made of its record, its docstring and the measured tables."""

from __future__ import annotations

import inspect
import sys

from benchmarks.harness.newest import table
from docs.site.chapters import linked
from docs.site.measured import measured
from docs.site.settings import presets, settings
from recsys_rl.agents import AGENTS
from recsys_rl.env import PLATFORMS
from recsys_rl.records import Algorithm, Platform
from recsys_rl.settings.fields import hints
from recsys_rl.utils.find import find

NEEDS = {
    "rewards": "a reward of each decision",
    "single items": "one item in each decision, no slates",
    "propensities": "the probability with which each item was chosen",
    "steps": "sessions of several decisions",
}
BATCHES = {True: "a log of decisions", False: "a simulator"}


def pages() -> dict[str, str]:
    """The text of each page, by its path in the site; the first one lists them."""
    algorithms: dict[str, Algorithm] = {name: find(spec, "AGENTS") for name, spec in AGENTS.items()}
    rows = [
        [f"[`{name}`]({name}.md)", title(name), BATCHES[algorithm.experience.from_log]]
        for name, algorithm in algorithms.items()
    ]
    listed = table(["`--algo`", "what it is", "learns from"], rows, words=True)
    tree = "\n".join(algorithms)
    index = (
        f"# Algorithms\n\n{listed}\n\nA file of `recsys_rl/agents/` is one algorithm, its settings first.\n\n"
        f"```{{toctree}}\n:hidden:\n\n{tree}\n```\n"
    )
    made = {name: page(name, algorithm) for name, algorithm in algorithms.items()}
    return {"algorithms/index.md": index} | {f"algorithms/{name}.md": text for name, text in made.items()}


def page(name: str, algorithm: Algorithm) -> str:
    module = sys.modules[algorithm.config.__module__]
    needs = [NEEDS[need] for need in algorithm.needs]
    source = "recsys_rl/agents/" + module.__name__.rpartition(".")[2]
    platforms: dict[str, Platform] = {key: find(spec, "PLATFORMS") for key, spec in PLATFORMS.items()}
    tuned = presets(platforms, name, hints(algorithm.config))
    parts = [
        f"# {name}",
        f"```{{eval-rst}}\n{linked(inspect.cleandoc(module.__doc__ or ''))}\n```",
        f'The code: <a href="../_modules/{source}.html">`{source}.py`</a>. The names in it: '
        f"[{module.__name__}](/api/{source}/index.rst).",
        "## Needs",
        f"It learns from {BATCHES[algorithm.experience.from_log]}."
        + (f" The log must have {'; '.join(needs)}." if needs else ""),
        "## Settings",
        f"Options of `recsys-rl train --algo {name}`. Other sections of settings are the same for all.",
        settings(algorithm.config),
    ]
    if tuned:
        parts += ["Presets of the platforms:", table(["platform", "settings"], tuned, words=True)]
    return "\n\n".join([*parts, measured(name)]) + "\n"


def title(name: str) -> str:
    """The first sentence of the docstring of an algorithm's file."""
    module = sys.modules[find(AGENTS[name], "AGENTS").config.__module__]
    return (module.__doc__ or "").strip().partition("\n")[0].rstrip(".").removesuffix(", top to bottom")

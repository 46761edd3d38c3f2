"""The rows that trials in the simulator find: `rule` and `searched`, with the cache of their searches."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.data.catalogue_hash import named_for_a_hash
from recsys_rl.evaluation.rivals import form_search, rule_search
from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.forms import Factors, Form, Searched, form_note
from recsys_rl.evaluation.rivals.rankers import Rule, RuleWeights, scored_names
from recsys_rl.evaluation.rivals.tuning import Trainees
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config, to_dict
from recsys_rl.types import Catalogue, Population, World, tensors_of
from recsys_rl.user_columns import UserColumns
from recsys_rl.utils.download import cache_folder
from recsys_rl.utils.tasks import MapTasks, in_this_process
from recsys_rl.utils.tensor_cache import digest, read_tensors, write_tensors

SEARCHED = ("rule", "searched")
VERSION = 9
"""Version of the search and of the user models. Raise it when a change of either changes the result."""


@dataclass(frozen=True)
class Search:
    """The search of a row by its name, with ``budget`` environment steps; another process can do it."""

    config: Config
    budget: int
    trainees: Callable[[str], Trainees]  # from the name of a row

    def __call__(self, row: str) -> Any:
        trainees = self.trainees(row)
        if row == "rule":
            return rule_search.search_rule(trainees, self.budget)
        return form_search.grow(trainees, self.config.platform.split, self.budget)


@dataclass(frozen=True)
class SearchedRows:
    """Makes the rows. Each search has ``budget`` environment steps of training users."""

    config: Config
    world: World
    budget: int
    cache_dir: str | None
    trainees: Callable[[str], Trainees]  # from the name of a row
    strangers: bool = False  # the trainees' profiles are withheld
    map_tasks: MapTasks = in_this_process  # several processes search rows side by side

    def makers(self) -> dict[str, Callable[[], tuple[Policy, str]]]:
        """Functions that make the policy of each row, and its note."""
        return {"rule": self.rule, "searched": self.searched}

    def rule(self) -> tuple[Policy, str]:
        rule, interface, catalogue = self._rule, self.trainees("rule").interface, self.world.catalogue
        agent = Rule(
            catalogue,
            rule.weights,
            BestSlate.of(interface, catalogue),
            rule.leave_rates,
            rerank=True,
            user_columns=UserColumns.of(interface, catalogue),
        )
        return agent, rule_search.rule_note(rule.weights, rule.steps)

    def searched(self) -> tuple[Policy, str]:
        split, trainees = self.config.platform.split, self.trainees("searched")

        def search() -> dict[str, Tensor]:
            rule = self._rule
            best = form_search.or_rule(trainees, self._found("searched"), rule)
            form = best.form
            return {
                "form": torch.tensor([form.split is not None, form.hinges, form.product]),
                "numbers": best.numbers,
                "leave_rates": best.leave_rates,
                "steps": torch.tensor(best.steps),
            }

        stored = self._cached("searched", ("form", "numbers", "leave_rates", "steps"), search)
        has_split, hinges, product = stored["form"].tolist()
        catalogue, population = self.world
        names = scored_names(catalogue, trainees.interface)
        form = Form(split if has_split else None, hinges, product, names)
        factors = Factors.of(catalogue, population.profile[population.train])
        agent = Searched(
            catalogue, trainees.interface, form, stored["numbers"], factors, stored["leave_rates"]
        )
        return agent, form_note(form, stored["numbers"], int(stored["steps"]))

    @cached_property
    def _rule(self) -> rule_search.SearchedRule:
        def search() -> dict[str, Tensor]:
            rule = self._found("rule")
            others = {"leave_rates": rule.leave_rates, "steps": torch.tensor(rule.steps)}
            return tensors_of(rule.weights) | others

        names = [field.name for field in dataclasses.fields(RuleWeights)[:-1]]
        columns = scored_names(self.world.catalogue, self.trainees("rule").interface)
        features = {name: f"features.{name}" for name in columns}
        stored = self._cached("rule", (*names, *features.values(), "leave_rates", "steps"), search)
        of_features = {name: stored[entry] for name, entry in features.items()}
        weights = RuleWeights(*(stored[name] for name in names), features=of_features)
        return rule_search.SearchedRule(weights, stored["leave_rates"], int(stored["steps"]))

    def _cached(
        self, row: str, names: Sequence[str], search: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """The tensors of a search, from the cache if they are there, on the world's device."""

        def announced() -> Mapping[str, Tensor]:
            print(f"searching `{row}` with at most {self.budget:,} steps of training users", file=sys.stderr)
            return search()

        stored = cached(self._file(row), names, announced)
        return {name: tensor.to(self.world.catalogue.embedding.device) for name, tensor in stored.items()}

    def _file(self, row: str) -> Path:
        """The file of the cache for a row."""
        key = search_key(self.config, *self.world, self.budget)
        return cache_file(f"{row}-strangers" if self.strangers else row, key, self.cache_dir)

    def _found(self, row: str) -> Any:
        """The result of the search of a row; other processes search the next rows meanwhile."""
        while row not in self._results:
            found = next(self._searches, None)  # None: the row's file is there, and damaged
            name, result = found or (row, self._search(row))
            self._results[name] = result
        return self._results[row]

    @cached_property
    def _results(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _search(self) -> Search:
        return Search(self.config, self.budget, self.trainees)

    @cached_property
    def _searches(self) -> Iterator[tuple[str, Any]]:
        """The rows that the cache lacks, and the results of their searches, in the order of the table."""
        rows = [row for row in SEARCHED if not self._file(row).exists()]
        return zip(rows, self.map_tasks(self._search, rows), strict=True)


def cache_file(kind: str, key: str, cache_dir: str | None) -> Path:
    """The file for the result of a search.

    Args:
        kind: the first part of the file's name.
        key: hash of everything that the result depends on; see ``search_key``.
        cache_dir: the folder; None for the user's cache folder.
    """
    return Path(cache_folder(cache_dir)) / f"{kind}-{key[:32]}.safetensors"


def cached(
    path: Path, names: Sequence[str], search: Callable[[], Mapping[str, Tensor]]
) -> Mapping[str, Tensor]:
    """The result of ``search``, from the file if it is there.

    ``names``: those of the tensors in the result. A file without them is made again.
    """
    tensors = read_tensors(path)
    if tensors is not None and tensors.keys() == set(names):
        return tensors
    result = search()
    write_tensors(path, {name: result[name].contiguous().cpu() for name in names})
    print(f"kept for the next evaluation: {path}", file=sys.stderr)
    return result


def search_key(config: Config, catalogue: Catalogue, population: Population, budget: int) -> str:
    """sha256 (hex) of everything that a search on training users depends on.

    It includes ``budget``, the steps of the search, and excludes the held-out users.
    """
    parts = named_for_a_hash(catalogue)
    users = {
        name: values for name, values in tensors_of(population).items() if name.startswith("attributes.")
    }
    for name, values in (users | {"taste": population.taste, "profile": population.profile}).items():
        parts[f"training {name}"] = values[population.train]
    brought = config.platform.brought(config)
    if brought is not None:  # the same path may hold other users later
        parts |= {f"learned {name}": values for name, values in brought.tensors.items()}
    tensors = {name: values.cpu() for name, values in parts.items()}
    return digest(tensors, VERSION, config.env, sorted(to_dict(config.env_config).items()), budget)

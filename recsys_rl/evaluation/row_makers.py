"""The rows beside those of the checkpoints: baselines, tuned rankings, searched rows, upper references."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.players import Player, Table
from recsys_rl.evaluation.rivals import tuning
from recsys_rl.evaluation.rivals.baselines import baseline_makers, untried_makers
from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.linear_bandit import (
    BANDITS,
    BanditSettings,
    LinUCB,
    Thompson,
    check_feedback,
    make_bandit,
    signal_weights,
)
from recsys_rl.evaluation.rivals.references import upper_bounds
from recsys_rl.evaluation.searched_rows import SEARCHED, SearchedRows
from recsys_rl.make import one_visit
from recsys_rl.protocols import Policy
from recsys_rl.records import TRADE
from recsys_rl.types import Interface, UserError
from recsys_rl.utils.seeding import generators
from recsys_rl.utils.tasks import MapTasks, in_this_process

SEARCH_FREE = ("random", "popularity")  # rows that are the same in each world of a catalogue
RANKINGS = {"mf": tuning.tune_mf, "mmr": tuning.tune_mmr}
Make = Callable[[], Player]
Tune = Callable[[tuning.Trainees], tuple[Policy, str]]
Trainees = Callable[[str], tuning.Trainees]
"""The training users for the row of a name."""


@dataclass(frozen=True)
class RowMakers:
    """Makes the rows one by one, by their names, each just before it plays.

    Rankings are tuned on single visits, also for a table of lives, in which few users could be played.
    """

    table: Table  # its ``streams`` hold "random"
    env: RecEnv
    budget: int  # environment steps of each search, of `rule` and `searched`
    cache_dir: str | None
    bandits: Sequence[str] = BANDITS  # names of BANDITS
    estimates: bool = False  # the probabilities of bandits are needed
    map_tasks: MapTasks = in_this_process  # does the searches

    def makers(self) -> dict[str, Make]:
        """Functions that make the rows, in the order of the table."""
        table, env, platform = self.table, self.env, self.table.config.platform
        if not platform.simulates:  # the others are found by trials in the simulator
            untried = untried_makers(table.world.catalogue, env.interface, table.streams["random"])
            return {name: partial(_simple, name, make) for name, make in untried.items()}
        profile = bool(env.interface.profile)
        if not profile:
            print(
                f"mf, mmr, rule and searched are left out: they rank items by the user's profile, and "
                f"observations of {table.config.env} hold none",
                file=sys.stderr,
            )
        simple = baseline_makers(env, table.world.population.train, table.streams["random"])
        tuned = {**(RANKINGS if profile else {}), **self._heuristics}
        searched = self._searched.makers() if profile else {}
        return (
            {name: partial(_simple, name, make) for name, make in simple.items()}
            | {name: partial(_noted, partial(self._tuned, name, tune)) for name, tune in tuned.items()}
            | {name: partial(self._bandit, name) for name in self.bandits if profile}
            | {name: partial(_noted, make) for name, make in searched.items()}
            | self._upper_bounds
        )

    def makers_of(self, home: Table) -> dict[str, Make]:
        """``makers`` for a table in another world than ``home``, that of the training.

        Rows are found in the world of the training, as a policy has not seen the other one either, and a note
        says so. The upper references are those of the world of the table. If the world of the training can't
        be made, only `random`, `popularity` and the upper references are left, and a line says so.
        """
        try:
            there = home.env()
        except UserError as error:
            if self.bandits:
                raise
            print(
                f"only {', '.join(SEARCH_FREE)} and upper references are played beside the policies: other "
                f"rows are found in the world of the training, and it can't be made. {error}",
                file=sys.stderr,
            )
            table = self.table
            simple = baseline_makers(self.env, table.world.population.train, table.streams["random"])
            return {name: partial(_simple, name, simple[name]) for name in SEARCH_FREE} | self._upper_bounds
        assert isinstance(there, RecEnv)  # worlds without a catalogue are never moved
        text = f"found in the world of the training ({home.config.env})"

        def found_there(make: Make) -> Player:
            player = make()
            return dataclasses.replace(player, note=f"{player.note}; {text}" if player.note else text)

        at_home = dataclasses.replace(self, table=home, env=there)
        others = at_home._upper_bounds
        return {
            name: make if name in SEARCH_FREE else partial(found_there, make)
            for name, make in at_home.makers().items()
            if name not in others
        } | self._upper_bounds

    @property
    def _upper_bounds(self) -> dict[str, Make]:
        return {name: partial(Player, agent) for name, agent in upper_bounds(self.env).items()}

    @property
    def _heuristics(self) -> dict[str, Tune]:
        """The functions that tune those of the platform's trade."""
        return {
            f"{TRADE}{name}": partial(tuning.tune_heuristic, heuristic=heuristic)
            for name, heuristic in self.table.config.platform.heuristics.items()
        }

    @cached_property
    def _trainees(self) -> Trainees:
        names = (*RANKINGS, *self._heuristics, *BANDITS, *SEARCHED)
        streams = generators(0, *names, device=self.table.device)  # the same result for each --seed
        return partial(_trainees_of, self.table, self.env.interface, streams)

    @property
    def _searched(self) -> SearchedRows:
        return SearchedRows(
            one_visit(self.table.config),
            self.table.world,
            self.budget,
            self.cache_dir,
            self._trainees,
            self.table.strangers,
            self.map_tasks,
        )

    def _tuned(self, name: str, tune: Tune) -> tuple[Policy, str]:
        print(f"tuning {name} on training users", file=sys.stderr)
        return tune(self._trainees(name))

    def _bandit(self, name: str) -> Player:
        """A bandit with tuned settings; users without a profile begin at the mean of the training users'."""
        interface = dataclasses.replace(self.env.interface, visits=1)
        catalogue, population = self.table.world
        check_feedback(interface, name)
        print(f"tuning {name} on training users", file=sys.stderr)
        weights = signal_weights(interface.signals, self.env.streams).to(self.table.device)
        start, slate = (
            population.profile[population.train].mean(0),
            BestSlate.of(interface, catalogue),
        )  # (D,)

        def make(settings: BanditSettings, seed: int = 0, estimates: bool = False) -> LinUCB | Thompson:
            drawn = generators(seed, name, f"{name} estimates", device=self.table.device)
            noise = drawn[name], drawn[f"{name} estimates"]
            return make_bandit(name, catalogue, settings, weights, noise, start, slate, estimates)

        settings, note = tuning.tune_bandit(self._trainees(name), weights, start, make)
        return Player(make(settings, self.table.seed, self.estimates), note=note)


def _trainees_of(
    table: Table, interface: Interface, streams: Mapping[str, torch.Generator], name: str
) -> tuning.Trainees:
    return table.trainees(interface, streams[name])


def _simple(name: str, make: Callable[[], Policy]) -> Player:
    if name == "static-list":  # the others take no time worth a line
        print(f"searching `{name}` on training users", file=sys.stderr, flush=True)
    return Player(make())


def _noted(make: Callable[[], tuple[Policy, str]]) -> Player:
    agent, note = make()
    return Player(agent, note=note)

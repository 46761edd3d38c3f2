"""Evaluation of checkpoints on held-out users: a table with intervals and baselines."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, check_algo, load
from recsys_rl.errors import one_line
from recsys_rl.evaluation.checkpoints import Entry, about_people, tables, with_people, without_previous
from recsys_rl.evaluation.custom import named
from recsys_rl.evaluation.options import EvaluateConfig, options_of, output_files
from recsys_rl.evaluation.play import Stopped, play_all
from recsys_rl.evaluation.players import heldout_users
from recsys_rl.evaluation.printing import as_csv, in_short, print_table, values_of_seed, without_nan
from recsys_rl.evaluation.report.html import STRANGERS, page_of, write_report
from recsys_rl.evaluation.report.regret import mean_regret_by_step, regret_by_step
from recsys_rl.evaluation.rivals.linear_bandit import BANDITS
from recsys_rl.evaluation.table import Played, mean_over_seeds, summarise
from recsys_rl.settings.fields import check_used
from recsys_rl.training.latest import print_latest
from recsys_rl.training.run import choose_device
from recsys_rl.training.worlds import played_in
from recsys_rl.types import UserError
from recsys_rl.utils.allocator import keep_freed_memory
from recsys_rl.utils.files import write_text
from recsys_rl.utils.progress import announce
from recsys_rl.utils.tasks import MapTasks, in_this_process, note_one_task
from recsys_rl.utils.terminal import say

SAME_CELLS = (
    "warning: the users of this table are those of the training, so it tells nothing of other users: train "
    "with a part of the users held out."
)


def evaluate(
    checkpoints: EvaluateConfig | str | Path | Sequence[str | Path] | None = None,
    *,
    policies: object = (),
    quiet: bool = False,
    map_tasks: MapTasks = in_this_process,
    **settings: Any,
) -> dict[str, Any]:
    """Play every policy with the same held-out users, and print the table.

        evaluate("runs/first/ppo.pt", policies=[my_policy], seed=3)

    Several checkpoints with the same world share a table. If they differ only in their seed, each seed is
    played in its own world, and the table holds means over seeds (evaluation/table.py).

    Args:
        checkpoints: one file or several, or all settings as an EvaluateConfig; none: that of the latest run.
            A ``ppo.prev.pt`` beside its ``ppo.pt`` is left out.
        policies: your own policies for the table, one or several: objects as ``--policy`` takes them, in a
            dict to name their rows, or texts "module:NAME".
        quiet: print nothing.
        map_tasks: plays the table of each seed, or does the searches of a single table.
        settings: fields of EvaluateConfig.

    Returns: the values that ``--json`` writes. Raises UserError for a checkpoint or a policy that can't be
    used, for checkpoints that can't share a table, and for outputs that can't be written. After Ctrl-C it
    prints the rows that were finished, writes no file, and raises KeyboardInterrupt.
    """
    options = options_of(checkpoints, settings)
    if not quiet:
        return _evaluate(options, policies, map_tasks)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return _evaluate(options, policies, map_tasks)


def _evaluate(options: EvaluateConfig, policies: object, map_tasks: MapTasks) -> dict[str, Any]:
    device = choose_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    groups = _groups(options)
    entries = [entry for group in groups for entry in group]
    if any(not entry.checkpoint.config.platform.simulates for entry in entries):
        note_one_task(map_tasks, "the policy of a log")
        return _estimates(options, entries)
    _check_asked(options, groups)
    files = output_files(options, [entry.path for entry in entries])
    own = named([name for name in options.policy if name not in BANDITS]) | named(policies)
    _print_facts(options, entries, len(groups))
    keep_freed_memory()
    rounds, stopped = _rounds(groups, options, own, device, map_tasks)
    groups, last = groups[: len(rounds)], rounds[-1]
    if not last.played:
        raise KeyboardInterrupt
    result = _result(rounds, groups, options)
    print_table(
        result,
        _heading(groups, result.get("world")) + (f"; {STRANGERS}" if options.strangers else ""),
        len(groups[0][0].checkpoint.population.heldout) if len(groups) == 1 else 0,
    )
    if stopped:
        print("stopped: the table has the rows that were finished, and no file is written", file=sys.stderr)
        raise KeyboardInterrupt
    _write(files, result, groups[0][0], last)
    if short := in_short(result):
        print()
        say(short)
    return result


def _print_facts(options: EvaluateConfig, entries: Sequence[Entry], num_tables: int) -> None:
    """Print what the table does not say of its checkpoints to standard error."""
    if options.world is not None:
        home = ", ".join(_trained_on(entries))
        print(f"policies trained in {home} play in {options.world}", file=sys.stderr, flush=True)
    for entry in entries:
        print_latest(entry.path, entry.checkpoint)
    source = entries[0].checkpoint.catalogue.source
    if num_tables == 1 and source:
        print(f"data: {source}", file=sys.stderr)
    for entry in entries:
        weights = " ".join(entry.checkpoint.config.train_config.weights)
        if weights:
            said = f"{one_line(entry.path)} was trained with --weights {weights}"
            print(f"note: {said}; the table has the platform's own reward", file=sys.stderr)


def _write(files: Mapping[str, Path | None], result: dict[str, Any], entry: Entry, last: _Round) -> None:
    """Write the files that are wanted. The page is of ``entry``, in the ``last`` table."""
    if (path := files["json"]) is not None:
        write_text(path, json.dumps(without_nan(result), indent=1) + "\n")
        print(f"table: {path}", file=sys.stderr)
    if (path := files["csv"]) is not None:
        write_text(path, as_csv(result["per_seed"]))
        print(f"sessions: {path}", file=sys.stderr)
    if (path := files["report"]) is not None:
        write_report(path, page_of(entry, last.users, result, last.played))
        print(f"report: {path}", file=sys.stderr)


def _estimates(options: EvaluateConfig, entries: Sequence[Entry]) -> dict[str, Any]:
    """The estimates of a policy that no simulator plays. Raises UserError for what only one could answer."""
    path = entries[0].path
    reason = f"{path} is of a log that has no simulator; recsys-rl ope judges policies"
    check_used(
        ("report", options.report is not False, reason),
        ("csv", options.csv is not None, reason),
        ("policy", bool(options.policy), reason),
        ("users", options.users is not None, reason),
    )
    if len(entries) > 1:
        raise UserError(f"{path} is of a log that has no simulator: give that checkpoint alone.")
    json_file = output_files(options, [path])["json"]
    tables = entries[0].checkpoint.config.platform.tables
    assert tables is not None  # nothing simulates it
    result = tables.estimates(path, entries[0].checkpoint)
    if json_file is not None:
        write_text(json_file, json.dumps(result, indent=1) + "\n")
    return result


def _groups(options: EvaluateConfig) -> list[list[Entry]]:
    """The checkpoints of each table, in the world and with the people of the options. Raises UserError."""
    paths, left_out = without_previous([Path(path) for path in options.paths])
    if left_out:
        print(f"left out: {', '.join(map(one_line, left_out))}, which a later file replaced", file=sys.stderr)
    entries = [Entry(path, _load(path, options)) for path in paths]
    if options.algo is not None and options.algo not in {entry.config.algo for entry in entries}:
        check_algo(entries[0].path, entries[0].checkpoint, options.algo)
    if options.behaviour is not None:
        path = Path(options.behaviour)
        entries.append(Entry(path, load(path, options.env)))
    if options.world is not None:
        entries = [
            replace(e, checkpoint=played_in(e.path, e.checkpoint, options.world), trained=e.checkpoint)
            for e in entries
        ]
    groups = tables(entries)
    if options.behaviour is not None:
        groups = [
            [replace(entry, name="behaviour") if entry.path == path else entry for entry in group]
            for group in groups
        ]
    return groups if options.users is None else with_people(groups, options, options.users)


def _check_asked(options: EvaluateConfig, groups: Sequence[Sequence[Entry]]) -> None:
    """Raise UserError for options that these checkpoints can't have; say on stderr if cells are the same."""
    first, home = groups[0][0].checkpoint, groups[0][0].config
    empty, several = first.world.is_empty, len(groups) > 1
    reason = f"{first.config.env} has no users of its own"
    check_used(
        ("max_users", empty and options.max_users != EvaluateConfig.max_users, reason),
        ("strangers", empty and options.strangers, reason),
        ("report", several and options.report is not False, f"only of one seed, and here are {len(groups)}"),
    )
    if _everyone(first) and (home.env, home.env_config) == (first.config.env, first.config.env_config):
        print(SAME_CELLS, file=sys.stderr)


def _rounds(
    groups: Sequence[Sequence[Entry]],
    options: EvaluateConfig,
    own: Mapping[str, Any],
    device: torch.device,
    map_tasks: MapTasks,
) -> tuple[list[_Round], bool]:
    """The tables, at least one, and whether Ctrl-C stopped them. An unfinished one is kept if it is alone."""
    rounds: list[_Round] = []
    searches: MapTasks = in_this_process
    if len(groups) == 1:
        if groups[0][0].checkpoint.world.is_empty:
            note_one_task(map_tasks, "a table without searches")
        searches, map_tasks = map_tasks, in_this_process
    here = map_tasks is in_this_process
    play = PlayRound(options, own, device, len(groups) > 1, here, searches)
    try:
        for one in map_tasks(play, groups):
            if one.finished or not rounds:  # a mean is over finished tables
                rounds.append(one)
            if not one.finished:
                return rounds, True
            if not here:
                announce(f"tables that are finished: {len(rounds)} of {len(groups)}")
    except KeyboardInterrupt:  # of tables in other processes
        if not rounds:
            raise
        return rounds, True
    return rounds, False


@dataclass(frozen=True)
class PlayRound:
    """Plays the table of one seed."""

    options: EvaluateConfig
    own: Mapping[str, Any]  # the policies of the user
    device: torch.device
    of_several: bool
    here: bool  # False in another process, which prints nothing
    searches: MapTasks  # does the searches

    def __call__(self, group: Sequence[Entry]) -> _Round:
        if self.here and self.of_several:
            announce(f"seed {group[0].checkpoint.config.train_config.seed}")
        with contextlib.nullcontext() if self.here else contextlib.redirect_stderr(io.StringIO()):
            return _round(group, self)


def _result(
    rounds: Sequence[_Round], groups: Sequence[Sequence[Entry]], options: EvaluateConfig
) -> dict[str, Any]:
    """The values of the table, or of the mean of several, with what the options say of it."""
    results = [round_.result for round_ in rounds]
    result = results[0] if len(results) == 1 else mean_over_seeds(results)
    if len(results) > 1 and "regret_by_step" in results[0]:
        result["regret_by_step"] = mean_regret_by_step([table["regret_by_step"] for table in results])
    result["per_seed"] = [
        values_of_seed(
            group[0].checkpoint.config.train_config.seed, group[0].checkpoint.world, one.users, one.played
        )
        for group, one in zip(groups, rounds, strict=True)
    ]
    if options.users is not None:
        file = one_line(Path(options.users).name)
        result["new_users"] = {"file": file, "about": about_people(groups)}
    if _everyone(groups[0][0].checkpoint):
        result["everyone"] = True
    if options.strangers:
        result["strangers"] = True
    if options.world is not None:
        result["world"] = options.world
        result["trained_on"] = _trained_on([entry for group in groups for entry in group])
    return result


def _trained_on(entries: Sequence[Entry]) -> list[str]:
    """The names of the platforms on which the policies were trained."""
    return [*dict.fromkeys(entry.config.env for entry in entries)]


def _everyone(checkpoint: Checkpoint) -> bool:
    """True if the users of the test are those of the training (--everyone)."""
    population = checkpoint.population
    return not checkpoint.world.is_empty and torch.equal(population.train, population.heldout)


class _Round(NamedTuple):
    """The table of the checkpoints of one seed."""

    result: dict[str, Any]
    users: Tensor
    played: dict[str, Played]
    finished: bool  # False after Ctrl-C


def _round(group: Sequence[Entry], play: PlayRound) -> _Round:
    """Play one table."""
    options = play.options
    first = group[0].checkpoint
    users = heldout_users(first.world, options.max_users, options.seed)
    finished = True
    try:
        played = play_all(group, users, options, play.device, play.own, play.searches)
    except Stopped as stop:
        played, finished = stop.played, False
    if not played:
        return _Round({}, users, played, finished)
    result = summarise(
        first.config.env,
        played,
        [entry.name for entry in group],
        [name for name in played if name.removesuffix("-greedy") in play.own],
        first.catalogue,
        foreign=first.world.is_empty,
    )
    if options.strangers and first.interface.visits == 1:
        result["regret_by_step"] = regret_by_step(played)
    return _Round(result, users, played, finished)


def _load(path: Path, options: EvaluateConfig) -> Checkpoint:
    """Load the checkpoint. Raises UserError if it is of another environment than typed."""
    checkpoint = load(path, options.env)
    env = checkpoint.config.env
    if options.env is not None and options.env != env:
        raise UserError(
            f"{path} was trained on {env}, not on {options.env}: leave --env out, or give another file."
        )
    return checkpoint


def _heading(groups: Sequence[Sequence[Entry]], world: str | None) -> str:
    """The heading of the table: environment, policies with their steps, and the name of the data.

    ``world``: the text about another world than that of the training.
    """
    first = groups[0][0].checkpoint
    steps = ", ".join(
        f"{entry.name} after {_steps(entry.checkpoint)}{'' if world is None else f' on {entry.config.env}'}"
        for entry in groups[0]
    )
    seeds = ", ".join(str(group[0].checkpoint.config.train_config.seed) for group in groups)
    name = re.split(r" \(|[:;] ", first.catalogue.source, maxsplit=1)[0]
    data = f"; {name}" if name else ""
    return f"{world or first.config.env}, {steps}" + (data if len(groups) == 1 else f"; seeds {seeds}")


def _steps(checkpoint: Checkpoint) -> str:
    earlier = checkpoint.steps_before
    return f"{checkpoint.step:,} steps" + (f" (and {earlier:,} of the run it began with)" if earlier else "")

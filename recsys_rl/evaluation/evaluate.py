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
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, check_algo, load
from recsys_rl.errors import one_line
from recsys_rl.evaluation.checkpoints import Entry, tables
from recsys_rl.evaluation.custom import named
from recsys_rl.evaluation.new_users import PeopleFile, about_people, check_event_options, with_people
from recsys_rl.evaluation.per_user import as_csv, values_of_seed
from recsys_rl.evaluation.players import Stopped, heldout_users, play_all
from recsys_rl.evaluation.printing import in_short, print_table, without_nan
from recsys_rl.evaluation.regret import mean_regret_by_step, regret_by_step
from recsys_rl.evaluation.report import write_report
from recsys_rl.evaluation.rivals.linear_bandit import BANDITS
from recsys_rl.evaluation.sessions import STRANGERS, page_of
from recsys_rl.evaluation.table import Played, mean_over_seeds, summarise
from recsys_rl.settings.fields import CountOrZero, Range, build, check_fields, shown
from recsys_rl.settings.names import DEFAULT_ALGO, algorithm_of, platform_of
from recsys_rl.settings.shared import Seed
from recsys_rl.training.folder import nearby
from recsys_rl.training.latest import print_latest
from recsys_rl.training.run import choose_device
from recsys_rl.training.worlds import check_world, played_in
from recsys_rl.types import UserError
from recsys_rl.utils.allocator import keep_freed_memory
from recsys_rl.utils.files import check_writable, write_text
from recsys_rl.utils.progress import announce
from recsys_rl.utils.tasks import MapTasks, in_this_process, note_one_task
from recsys_rl.utils.terminal import say

SAME_CELLS = (
    "warning: the users of this table are those of the training, so it tells nothing of other users: train "
    "with a part of the users held out."
)


@dataclass(frozen=True)
class EvaluateConfig(PeopleFile):
    """One evaluation of one or more checkpoints."""

    checkpoint: str | Path = f"checkpoints/{DEFAULT_ALGO}.pt"
    """The file to evaluate. Catalogue, settings and weights come from it."""
    algo: str | None = None
    """Reject a checkpoint of another algorithm. Required if its name holds a module. Without --checkpoint,
    evaluate the latest checkpoint of this algorithm."""
    env: str | None = None
    """Reject a checkpoint of another environment. Required if its name holds a module (gym:module:Id)."""
    seed: Seed = 0
    """The seed of the sessions, which are the same for every policy."""
    json: str | Path | None = None
    """Write the table to this file as JSON, with the values of each seed and user."""
    report: str | Path | bool = False
    """Write a self-contained HTML page to this file: learning curve, table, sample sessions. True means
    report.html in the folder of the run, with --users report-FILE.html, with --world report-NAME.html."""
    max_users: CountOrZero = 1000
    """Number of held-out users to play; of more users, an evenly spread part plays. 0 = all."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; auto uses cuda if there is one."""
    threads: Annotated[int, Range(0, 1024)] = 1
    """Threads of torch on the CPU. More are faster on idle cores and slower on busy ones; 0 = torch's choice.
    """
    files: tuple[str | Path, ...] = ()
    """Checkpoints to evaluate in one table, in place of --checkpoint."""
    policy: tuple[str, ...] = ()
    """A further row of the table: linucb or lints, bandits that learn from a user's answers in the session;
    or module:NAME of your own policy: an object with act(obs, greedy), a callable that makes one from the
    catalogue, or a Stable-Baselines3 model. The current folder is searched first."""
    full: bool = False
    """Let the planners play all users of the table, not only 64 of them, or 32 in sessions of more than 50
    steps; this takes minutes."""
    cache_dir: str | Path | None = None
    """Folder for the results of the searches of `rule` and `searched` (default: the user's cache folder)."""
    strangers: bool = False
    """Withhold the profiles of all users, as of people who come for the first time: policies see a profile of
    zeros, and learn what they can from the answers of the session. Rows are tuned on such users too."""
    planner: bool = True
    """Play the planners, the rows informed and planner. They take most of the time of a table."""
    behaviour: str | Path | None = None
    """Checkpoint of the policy that made a log: its rows are named behaviour and behaviour-greedy."""
    world: str | None = None
    """Play in this platform, with the items, users and interface of the checkpoint, in place of the one of
    the training: the simulator behind a log for a policy trained in users learned from the log. Another
    platform has the settings of its preset, the same one those of the training, that simulator its own."""
    csv: str | Path | None = None
    """Write the return and the length of each session to this file: a line for each seed, policy and user."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_event_options(self)
        if self.full and not self.planner:
            raise UserError("--full is for the planners, and --no-planner leaves them out: give one of them.")
        if self.algo is not None:
            algorithm_of(self.algo, typed=True)
        if self.env is not None:
            platform_of(self.env)
        check_world(self.world)

    @property
    def paths(self) -> tuple[str | Path, ...]:
        """The checkpoints of the table."""
        return self.files or (self.checkpoint,)


def evaluate(
    checkpoints: EvaluateConfig | str | Path | Sequence[str | Path] | None = None,
    *,
    policies: object = (),
    map_tasks: MapTasks = in_this_process,
    **settings: Any,
) -> dict[str, Any]:
    """Play every policy with the same held-out users, and print the table.

        evaluate("runs/first/ppo.pt", policies=[my_policy], seed=3)

    Several checkpoints with the same world share a table. If they differ only in their seed, each seed is
    played in its own world, and the table holds means over seeds (evaluation/table.py).

    Args:
        checkpoints: one file or several, or all settings as an EvaluateConfig; none: checkpoints/ppo.pt.
        policies: your own policies for the table, one or several: objects as ``--policy`` takes them, in a
            dict to name their rows, or texts "module:NAME".
        map_tasks: plays the table of each seed, or does the searches of a single table.
        settings: fields of EvaluateConfig.

    Returns: the values that ``--json`` writes. Raises UserError for a checkpoint or a policy that can't be
    used, for checkpoints that can't share a table, and for outputs that can't be written. After Ctrl-C it
    prints the rows that were finished, writes no file, and raises KeyboardInterrupt.
    """
    options = _options(checkpoints, settings)
    device = choose_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    groups = _groups(options)
    if any(not entry.checkpoint.config.platform.simulates for group in groups for entry in group):
        note_one_task(map_tasks, "the policy of a log")
        return _estimates(options, groups)
    _check_asked(options, groups)
    entries = [entry for group in groups for entry in group]
    paths = [entry.path for entry in entries]
    report_path = _report_place(options, paths)
    _check_outputs({"json": options.json, "csv": options.csv, "report": report_path}, paths)
    own = named([name for name in options.policy if name not in BANDITS]) | named(policies)
    if options.world is not None:
        home = ", ".join(_trained_on(groups))
        print(f"policies trained in {home} play in {options.world}", file=sys.stderr, flush=True)
    for entry in entries:
        print_latest(entry.path, entry.checkpoint)
    if len(groups) == 1 and entries[0].checkpoint.catalogue.source:
        print(f"data: {entries[0].checkpoint.catalogue.source}", file=sys.stderr)
    for entry in entries:
        weights = " ".join(entry.checkpoint.config.train_config.weights)
        if weights:
            said = f"{one_line(entry.path)} was trained with --weights {weights}"
            print(f"note: {said}; the table has the platform's own reward", file=sys.stderr)
    keep_freed_memory()
    rounds, stopped = _rounds(groups, options, own, device, map_tasks)
    groups, last = groups[: len(rounds)], rounds[-1]
    if not last.played:
        raise KeyboardInterrupt
    result = _result(rounds, groups, options)
    total_users = len(groups[-1][0].checkpoint.population.heldout) if len(groups) == 1 else 0
    heading = _heading(groups, result.get("world")) + (f"; {STRANGERS}" if options.strangers else "")
    print_table(result, heading, total_users)
    if stopped:
        print("stopped: the table has the rows that were finished, and no file is written", file=sys.stderr)
        raise KeyboardInterrupt
    if options.json is not None:
        write_text(Path(options.json), json.dumps(without_nan(result), indent=1) + "\n")
        print(f"table: {options.json}", file=sys.stderr)
    if options.csv is not None:
        write_text(Path(options.csv), as_csv(result["per_seed"]))
        print(f"sessions: {options.csv}", file=sys.stderr)
    if report_path is not None:
        write_report(report_path, page_of(groups[0][0], last.users, result, last.played))
        print(f"report: {report_path}", file=sys.stderr)
    if short := in_short(result):
        print()
        say(short)
    return result


def _estimates(options: EvaluateConfig, groups: Sequence[Sequence[Entry]]) -> dict[str, Any]:
    """The estimates of a policy that no simulator plays. Raises UserError for what only one could answer."""
    entries = [entry for group in groups for entry in group]
    path = entries[0].path
    played = (options.report is not False, options.policy, options.users is not None, options.csv is not None)
    if len(entries) > 1 or any(played):
        raise UserError(
            f"{path} is of a log that has no simulator: give that checkpoint alone, without --report, "
            "--csv, --policy and --users, or judge policies with recsys-rl ope."
        )
    _check_outputs({"json": options.json}, [path])
    tables = entries[0].checkpoint.config.platform.tables
    assert tables is not None  # nothing simulates it
    result = tables.estimates(path, entries[0].checkpoint)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(result, indent=1) + "\n")
    return result


def _groups(options: EvaluateConfig) -> list[list[Entry]]:
    """The checkpoints of each table, in the world and with the people of the options. Raises UserError."""
    given = [Entry(Path(path), _load(Path(path), options)) for path in options.paths]
    if options.behaviour is not None:
        path = Path(options.behaviour)
        given.append(Entry(path, load(path, options.env)))
    if options.world is not None:
        given = [_moved(entry, options.world) for entry in given]
    groups = tables(given)
    if options.behaviour is not None:
        groups = [
            [replace(entry, name="behaviour") if entry.path == path else entry for entry in group]
            for group in groups
        ]
    return groups if options.users is None else with_people(groups, options, options.users)


def _check_asked(options: EvaluateConfig, groups: Sequence[Sequence[Entry]]) -> None:
    """Raise UserError for options that these checkpoints can't have; say on stderr if cells are the same."""
    path, first, home = groups[0][0].path, groups[0][0].checkpoint, groups[0][0].config
    if first.world.is_empty and options.max_users != EvaluateConfig.max_users:
        raise UserError(
            f"--max-users is for simulated users, and {path} is of {first.config.env}: leave it out."
        )
    if first.world.is_empty and options.strangers:
        raise UserError(
            f"--strangers: the users of {first.config.env} have no profiles to withhold; leave it out."
        )
    if len(groups) > 1 and options.report is not False:
        raise UserError(
            f"--report is for one seed, but these checkpoints are of {len(groups)} seeds: give those of one "
            "seed, or leave --report out."
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
    """Plays the table of one seed; ``own`` are the policies of the user."""

    options: EvaluateConfig
    own: Mapping[str, Any]
    device: torch.device
    of_several: bool
    here: bool  # False in another process, which prints nothing
    searches: MapTasks

    def __call__(self, group: Sequence[Entry]) -> _Round:
        if not self.here:
            with contextlib.redirect_stderr(io.StringIO()):
                return _round(group, self.options, self.own, self.device, self.searches)
        if self.of_several:
            announce(f"seed {group[0].checkpoint.config.train_config.seed}")
        return _round(group, self.options, self.own, self.device, self.searches)


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
        result["trained_on"] = _trained_on(groups)
    return result


def _trained_on(groups: Sequence[Sequence[Entry]]) -> list[str]:
    """The names of the platforms on which the policies were trained."""
    return [*dict.fromkeys(entry.config.env for group in groups for entry in group)]


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


def _round(
    group: Sequence[Entry],
    options: EvaluateConfig,
    own: Mapping[str, Any],
    device: torch.device,
    searches: MapTasks,
) -> _Round:
    """Play one table; ``own`` are the policies of the user, and ``searches`` does its searches."""
    first = group[0].checkpoint
    users = heldout_users(first.world, options.max_users, options.seed)
    cache_dir = None if options.cache_dir is None else str(options.cache_dir)
    finished = True
    try:
        played = play_all(
            group,
            users,
            options.seed,
            device,
            own,
            options.full,
            cache_dir,
            options.planner,
            tuple(dict.fromkeys(name for name in options.policy if name in BANDITS)),
            options.strangers,
            searches,
        )
    except Stopped as stop:
        played, finished = stop.played, False
    names = [entry.name for entry in group]
    rows = [name for name in played if name.removesuffix("-greedy") in own]
    env, items = first.config.env, first.catalogue
    result = summarise(env, played, names, rows, items.num_items, items) if played else {}
    if options.strangers and played and first.interface.visits == 1:
        result["regret_by_step"] = regret_by_step(played)
    return _Round(result, users, played, finished)


def _options(checkpoints: object, settings: Mapping[str, Any]) -> EvaluateConfig:
    """The settings as one EvaluateConfig. Raises UserError."""
    if isinstance(checkpoints, EvaluateConfig):
        return build(EvaluateConfig, {**vars(checkpoints), **settings}) if settings else checkpoints
    if checkpoints is None:
        return build(EvaluateConfig, settings)
    files = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints
    if not isinstance(files, Sequence) or not files:
        raise UserError(f"checkpoints is {shown(checkpoints)}: give the path of a file, or a list of paths.")
    return build(EvaluateConfig, {"files": [*files], **settings})


def _load(path: Path, options: EvaluateConfig) -> Checkpoint:
    """Load the checkpoint. Raises UserError if it is of another algorithm or environment than typed."""
    checkpoint = load(path, options.env)
    env = checkpoint.config.env
    if options.algo is not None:
        check_algo(path, checkpoint, options.algo)
    if options.env is not None and options.env != env:
        raise UserError(
            f"{path} was trained on {env}, not on {options.env}: leave --env out, or give another file."
        )
    return checkpoint


def _moved(entry: Entry, world: str) -> Entry:
    """The checkpoint in another world. Raises UserError if it can't be played there."""
    checkpoint = played_in(entry.path, entry.checkpoint, world)
    return replace(entry, checkpoint=checkpoint, trained=entry.checkpoint)


def _report_place(options: EvaluateConfig, checkpoints: Sequence[Path]) -> Path | None:
    """The file of the report; None without a report.

    The folder of a run is that of its checkpoint, where links are followed. Raises UserError if the report
    has no name and the checkpoints are in several folders.
    """
    if options.report is False:
        return None
    if options.report is not True:
        return Path(options.report)
    folders = {path.resolve().parent for path in checkpoints}
    if len(folders) > 1:
        raise UserError(
            f"--report has no file, and the checkpoints are in {len(folders)} folders: give one, as in "
            "--report report.html."
        )
    # The run keeps its own report.
    people = "" if options.users is None else f"-{Path(options.users).stem}"
    world = "" if options.world is None else f"-{options.world.replace(':', '-')}"
    return nearby(folders.pop()) / f"report{people}{world}.html"


def _check_outputs(outputs: Mapping[str, str | Path | None], checkpoints: Sequence[Path]) -> None:
    """Raise UserError if an output can't be written, or would replace another file of this run.

    ``outputs``: the file of each option.
    """
    taken = {path.resolve(): "the checkpoint itself" for path in checkpoints}
    for name, output in outputs.items():
        if output is None:
            continue
        output = Path(output)
        check_writable(output, f"--{name}")
        if output.resolve() in taken or output.suffix in {path.suffix for path in checkpoints}:
            what = taken.get(output.resolve(), f"named like a checkpoint ({output.suffix})")
            raise UserError(f"--{name} {output} is {what}: give another name.")
        taken[output.resolve()] = f"also the file of --{name}"


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
    before = checkpoint.steps_before
    return f"{checkpoint.step:,} steps" + (f" (and {before:,} of the run it began with)" if before else "")

"""The options of an evaluation, and the files that it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from recsys_rl.data.tables.columns import EventFile
from recsys_rl.evaluation.rivals.linear_bandit import BANDITS
from recsys_rl.settings.fields import CountOrZero, Finite, Range, build, check_fields, check_used, shown
from recsys_rl.settings.names import algorithm_of, platform_of
from recsys_rl.settings.shared import Seed
from recsys_rl.training.folder import latest_checkpoint, nearby
from recsys_rl.training.worlds import check_world
from recsys_rl.types import UserError
from recsys_rl.utils.files import check_writable


@dataclass(frozen=True, kw_only=True)
class PeopleFile(EventFile):
    """People who play in place of the held-out users."""

    users: str | Path | None = None
    """File of events of other people with the same items: they play in place of the held-out users, with
    profiles folded in from their likes. The options of columns, kinds and gaps are about this file."""
    like_threshold: Finite | None = None
    """A rating of at least this much in this file is a like (default: the option of the training; if that was
    not given, the threshold that fits the ratings of this file)."""


@dataclass(frozen=True)
class EvaluateConfig(PeopleFile):
    """One evaluation of one or more checkpoints."""

    checkpoint: str | Path | None = None
    """The file to evaluate: catalogue, settings and weights come from it. By default that of the latest run.
    """
    algo: str | None = None
    """Refuse a table without a checkpoint of this algorithm. Required if its name holds a module. Without a
    file, evaluate the latest checkpoint of this algorithm."""
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
        of_people = {x.name: getattr(self, x.name) != x.default for x in fields(PeopleFile)}
        check_used(
            *((name, given and self.users is None, "only with --users") for name, given in of_people.items()),
            ("full", self.full and not self.planner, "--no-planner leaves the planners out"),
        )
        if self.algo is not None:
            algorithm_of(self.algo, typed=True)
        if self.env is not None:
            platform_of(self.env)
        check_world(self.world)

    @property
    def paths(self) -> tuple[str | Path, ...]:
        """The checkpoints of the table."""
        if self.files:
            return self.files
        return (latest_checkpoint(self.algo) if self.checkpoint is None else self.checkpoint,)

    @property
    def bandits(self) -> tuple[str, ...]:
        """The rows of BANDITS."""
        return tuple(dict.fromkeys(name for name in self.policy if name in BANDITS))


def options_of(checkpoints: object, settings: Mapping[str, Any]) -> EvaluateConfig:
    """The settings as one EvaluateConfig. Raises UserError."""
    if isinstance(checkpoints, EvaluateConfig):
        return build(EvaluateConfig, {**vars(checkpoints), **settings}) if settings else checkpoints
    if checkpoints is None:
        return build(EvaluateConfig, settings)
    files = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints
    if not isinstance(files, Sequence) or not files:
        raise UserError(f"checkpoints is {shown(checkpoints)}: give the path of a file, or a list of paths.")
    return build(EvaluateConfig, {"files": [*files], **settings})


def output_files(options: EvaluateConfig, checkpoints: Sequence[Path]) -> dict[str, Path | None]:
    """The files of ``json``, ``csv`` and ``report``, None for those that are not wanted.

    Raises UserError if one can't be written, or would replace another file of this run.
    """
    outputs = {
        "json": None if options.json is None else Path(options.json),
        "csv": None if options.csv is None else Path(options.csv),
        "report": _report_place(options, checkpoints),
    }
    taken = {path.resolve(): "the checkpoint itself" for path in checkpoints}
    for name, output in outputs.items():
        if output is None:
            continue
        check_writable(output, f"--{name}")
        if output.resolve() in taken or output.suffix in {path.suffix for path in checkpoints}:
            what = taken.get(output.resolve(), f"named like a checkpoint ({output.suffix})")
            raise UserError(f"--{name} {output} is {what}: give another name.")
        taken[output.resolve()] = f"also the file of --{name}"
    return outputs


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

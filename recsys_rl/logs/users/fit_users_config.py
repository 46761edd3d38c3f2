"""The settings of `recsys-rl fit-users`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Literal

from recsys_rl.data.tables.columns import DecisionFile, log_name
from recsys_rl.settings.fields import Count, Range, check_fields
from recsys_rl.settings.shared import Seed


@dataclass(frozen=True)
class FitUsersConfig(DecisionFile):
    """One fit of users to a log."""

    log: tuple[str, ...] = ()
    """The log of decisions to learn from: a Parquet file of `record`, a folder of them, or tables of your own
    with sessions (docs/11), for which --log may be repeated. Of one with more than 524,288 decisions, whole
    sessions are drawn by the seed."""
    checkpoint: str | None = None
    """A checkpoint with the log's items and users."""
    env: str | None = None
    """Platform of the items and users that --data makes (default: that of the log). Required if its name
    holds a module."""
    data: str | None = None
    """Data of the items and users, in place of a checkpoint, with the settings of the platform's preset and
    --seed."""
    items: str | None = None
    """File about the items of a table of your own; without it each item is known by its id alone."""
    out: str = "users.pt"
    """The file to write."""
    members: Annotated[int, Range(1, 100)] = 5
    """Networks of the ensemble."""
    epochs: Count = 10
    """Passes over the sessions for each network, more where these are fewer than 400 steps of the optimiser;
    the best on a tenth of the users is kept."""
    heldout: Literal["users", "time"] = "users"
    """Sessions that are held out for the report: those of some users, or the latest."""
    heldout_share: Annotated[float, Range(above=0, below=1)] = 0.2
    """Their share. Sessions of the population's held-out users are never learned from: if the log has some,
    these are the ones of --heldout users, and a share has no effect."""
    weights: tuple[str, ...] = ()
    """Rewards of a log that people made, or of a table of your own: NAME=NUMBER for its signals."""
    json: str | None = None
    """Write the report to this file as JSON."""
    resume: bool = False
    """Finish the fit that was interrupted, in the file of --out."""
    seed: Seed = 0
    """The seed of the networks, the order of the sessions and the held-out part; with --data of the world."""
    threads: Annotated[int, Range(0, 1024)] = 1
    """Threads of torch; 0 = torch's choice."""
    quiet: bool = False
    """Print no progress and no report."""

    def __post_init__(self) -> None:
        if isinstance(self.log, str | PurePath):
            object.__setattr__(self, "log", (str(self.log),))
        check_fields(self)

    @property
    def source(self) -> str:
        """The log as one text for people."""
        return " + ".join(map(log_name, self.log))

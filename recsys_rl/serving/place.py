"""A place without a policy: a team's items, signals and context, where its own decisions are recorded.

It is a Version of the platform of people's own tables, without an agent, until a version of a policy serves.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.data.tables.pieces import Piece, pieces_of_file
from recsys_rl.errors import UserError, one_line
from recsys_rl.recommender import Recommender
from recsys_rl.recommender.directory import Directory
from recsys_rl.serving.messages import Problem
from recsys_rl.serving.record.record_schema import ServedPolicy
from recsys_rl.serving.versions import Version
from recsys_rl.settings.config import Config
from recsys_rl.settings.names import OF_TABLES, platform_of
from recsys_rl.utils.files import read_text

NOBODY = ServedPolicy(0, "", "", "")
"""The policy of a place without one."""


class Silent(Recommender):
    """Items and people, and no policy."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        Directory.__init__(self, checkpoint)
        self.agent = None


def place_of(items: str, signals: Sequence[str], context: str | None, slate_size: int) -> Version:
    """The place of these ``items``, a file, with the pieces that the TOML file ``context`` describes.

    Raises UserError for a file that can't be read.
    """
    pieces = () if context is None else read_schema(Path(context))
    tables = platform_of(OF_TABLES).tables
    assert tables is not None
    brought = tables.before_a_log(items, signals, pieces, slate_size)
    config = Config(env=OF_TABLES, **brought.settings)
    interface = tables.interface(config.env_config, brought.world.catalogue)
    checkpoint = Checkpoint(config, interface, brought.world, {}, {}, {}, {}, 0, 0, {})
    return Version(NOBODY, Silent(checkpoint))


def read_schema(path: Path) -> tuple[Piece, ...]:
    """The pieces of the context that a TOML file describes. Raises UserError."""
    try:
        sections = tomllib.loads(read_text(path, "--context", "a TOML file with a section for each piece"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{one_line(path)} is not TOML ({one_line(error)}): correct the line.") from error
    return pieces_of_file(path, sections)


def no_policy() -> Problem:
    """There is nobody who could recommend."""
    return Problem(
        409,
        "no-policy",
        "No policy serves yet: put a version into the folder of --checkpoint, and make it the champion: "
        "recsys-rl release alias FILE.",
    )

"""The facts of a record: what all of its rows depend on, and what must be known at the next start.

They are one table of names and JSON values. The facts of the checkpoint never change, the others do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.errors import UserError
from recsys_rl.recommender.contexts import pieces_of
from recsys_rl.utils.tensor_cache import digest

CHAMPION = "champion"
"""The fact that keeps the SHA-256 of the version that serves."""
FEATURES = "features"
"""The fact that names the columns of the items of a team's own place, with the kind of each."""
TAGS = "tags"
"""The fact that keeps the name of the column of tags in the team's file of items."""
COLUMNS = "columns"
"""The fact that names the column of each role in the log that the first policy of a team learned from."""
HIGHEST = "highest"
"""The fact that keeps the highest number that may have been given, also to rows that are erased or lost."""


def facts_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The facts that no row may contradict, as JSON primitives.

    Sessions name a user of the data by the row, so the users are among them. Of a team's own log the names of
    the signals and of the pieces of the context are enough: the items are rows of the record (stock.py), and
    what was shown and answered can be read with them, whatever a version knows of the items.
    """
    if pieces_of(checkpoint) is not None:
        return own_facts(checkpoint)
    population = checkpoint.population
    facts: dict[str, Any] = json.loads(
        json.dumps(
            {
                "platform": checkpoint.config.env,
                "catalogue": catalogue_hash(checkpoint.catalogue),
                "interface": asdict(checkpoint.interface),
                "population": digest({"ids": population.user_ids.cpu()}, *population.user_names),
            }
        )
    )
    return facts


def own_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """``facts_of`` a policy of a team's own log, or of the place where it begins to record."""
    interface = checkpoint.interface
    pieces = pieces_of(checkpoint) or ()
    return {
        "platform": checkpoint.config.env,
        "signals": list(interface.signals),
        "slate_size": interface.slate_size,
        "context": sorted([piece.name, piece.kind, len(piece.low)] for piece in pieces),
    }


def of_own_place(facts: Mapping[str, Any]) -> bool:
    """True for the facts of a team's own place."""
    return "slate_size" in facts


def check_facts(name: str, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise UserError if the record ``name`` has other facts than the checkpoint."""
    for key, value in wanted.items():
        if known.get(key) != value:
            raise UserError(
                f"{name} is the record of another {key} than the checkpoint's: give the checkpoint of "
                "the same data and settings, or a new file with --db."
            )

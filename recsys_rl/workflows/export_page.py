"""The page beside an ONNX file: its inputs, its output, and the encodings of a context that callers give."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.errors import one_line
from recsys_rl.recommender.contexts import pieces_of
from recsys_rl.tables.pieces import Piece


def page_of(name: str, checkpoint: Checkpoint, inputs: dict[str, Tensor], file: str) -> str:
    """The page on the file, in Markdown. ``file`` is the checkpoint's: links to the latest run move."""
    interface, config = checkpoint.interface, checkpoint.config
    meanings = {
        "context": "the pieces below, one after another",
        "history": "rows of the items of this session, the latest last, -1 in front where there are fewer",
        "signals": f"of each item of the history: {', '.join(interface.signals)}; 0 where there is no item",
    }
    dtypes = {"context": "float32", "history": "int64", "signals": "float32"}
    lines = [
        f"# {name}",
        "",
        f"Scores of the policy of `{config.algo}` on `{config.env}` after {checkpoint.total_steps:,} steps "
        f"(`{one_line(file)}`), by `recsys-rl export`. N, the number of rows, is free.",
        "",
        "| input | shape | dtype | |",
        "|---|---|---|---|",
        *(
            f"| `{key}` | ({', '.join(['N', *map(str, rows.shape[1:])])}) | {dtypes[key]} | {meanings[key]} |"
            for key, rows in inputs.items()
        ),
        "",
        "| output | shape | dtype | |",
        "|---|---|---|---|",
        f"| `scores` | (N, {checkpoint.catalogue.num_items}) | float32 | one logit for each item |",
        "",
        "| piece of `context` | columns |",
        "|---|---|",
        *(
            f"| `{piece}` | {start} .. {start + size - 1} |"
            for start, (piece, size) in zip(interface.starts, interface.context, strict=True)
        ),
        "",
        *_encodings(checkpoint),
        "Row i is the item with the i-th id in the file's metadata `item_ids`, from 0. The file knows "
        "nothing of what may be shown: before the draw, set the scores of the rows in the metadata "
        "`unavailable`"
        + ("" if interface.repeats else ", and of the items that this session has shown,")
        + " to minus infinity.",
        "The policy then draws an item with probability softmax(scores)"
        + (
            f"; a slate has {interface.slate_size} items, drawn one after another without those before."
            if interface.slate_size > 1
            else "."
        ),
        *_chance(checkpoint),
    ]
    return "\n".join(lines) + "\n"


def _chance(checkpoint: Checkpoint) -> list[str]:
    """The line about the chance that the policy keeps for all items; none without it."""
    chance = float(checkpoint.agent.get("chance", 0.0))
    if not chance:
        return []
    return [
        f"With probability {chance:g} it draws by softmax(r) in place of that, where r are the scores of the "
        "items that may be shown, scaled to 0 .. 1: (scores - smallest) / (largest - smallest).",
    ]


def encodings_of(checkpoint: Checkpoint) -> list[dict[str, Any]] | None:
    """The pieces of the context that a caller encodes, for the file's metadata; None if there are none.

    Each has its first column of `context`, ``start``, and the fields of ``tables.pieces.Piece``.
    """
    pieces, interface = pieces_of(checkpoint), checkpoint.interface
    if pieces is None:
        return None
    starts = {name: start for start, (name, _) in zip(interface.starts, interface.context, strict=True)}
    return [{"start": starts[piece.name], **dataclasses.asdict(piece)} for piece in pieces]


def _encodings(checkpoint: Checkpoint) -> list[str]:
    """The lines about the encodings; none if the platform makes the context."""
    pieces = pieces_of(checkpoint)
    if not pieces:
        return []
    return [
        "A caller encodes the pieces of the context that the log had. The file's metadata `context_pieces` "
        "has them as JSON: their first column (`start`), kind, range, `shift`, `scale` and `values`.",
        "",
        "| piece | value | columns of `context` |",
        "|---|---|---|",
        *(f"| `{piece.name}` | {piece.rule} | {_encoding(piece)} |" for piece in pieces),
        "",
    ]


def _encoding(piece: Piece) -> str:
    if piece.kind == "text":
        last = "the last but one" if piece.gaps else "the last"
        none = ", in the last for none" * piece.gaps
        return (
            f"a 1 in the place of the text among `values`, in {last} of {piece.size} for others{none}; else 0"
        )
    plain = set(piece.shift) == {0.0} and set(piece.scale) == {1.0}
    how = "as it is" if plain else "(value - `shift`) / `scale`"
    if not piece.gaps:
        return how
    none = "0" if piece.kind == "list" else "`mean` in its place, then 1,"
    return f"{how}{', then 0' if piece.kind == 'number' else ''}; {none} for none"

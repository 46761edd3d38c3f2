"""`recsys-rl items`: the items of a file to a running server, which has them from then on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys_rl.data.tables.item_encoding import EMBEDDING, GENRES
from recsys_rl.data.tables.items import check_columns, read_items, stock_items
from recsys_rl.errors import UserError, amount, listed, one_line
from recsys_rl.serving.loop.client import Client


@dataclass(frozen=True)
class Posted:
    """The server's answer, and what of the file it did not get."""

    answer: Mapping[str, Any]
    left_out: tuple[str, ...]  # columns that the place does not have
    note: str

    @property
    def lines(self) -> list[str]:
        """What the command prints."""
        of, lines = self.answer, [self.note]
        if self.left_out:
            lines.append(f"left out, as the place has no such columns: {listed(self.left_out)}")
        lines.append(
            f"{of['added']:,} added, {of['changed']:,} changed, {of['withdrawn']:,} withdrawn, "
            f"{of['unchanged']:,} unchanged: {amount(of['items'], 'item')} at the place"
        )
        if of["unknown_values"]:
            some = amount(of["unknown_values"], "item")
            lines.append(f"{some} with texts that the champion does not know, which are other to it")
        if of["incomplete"]:
            some = amount(len(of["incomplete"]), "item")
            lines.append(f"{some} of which nothing is known: {listed(of['incomplete'][:5])}")
        if of["not_showable"]:
            some = amount(of["not_showable"], "item")
            lines.append(f"{some} that the champion can't show: train again with --checkpoint")
        return lines


def post_items(path: str, url: str, token: str | None = None, only: bool = False) -> Posted:
    """Post the items of the file. Raises UserError.

    ``only``: items that the file lacks are withdrawn.
    """
    client = Client(url, token)
    columns: dict[str, str] | None = client.get("/v1/platform")["features"]
    if columns is None:
        raise UserError(f"The server at {one_line(url)} serves a platform whose items never change.")
    tags = next((name for name, kind in columns.items() if kind == "names"), GENRES)
    own = {GENRES if name == tags else name: kind for name, kind in columns.items()}
    facts = read_items(path, "item", True, own)
    if facts.former or facts.clock:
        raise UserError(
            f"{one_line(path)} has columns of moments, as an export of a record has: give the items of now."
        )
    check_columns(path, facts, own)
    items, found = [], dict[str, None]()
    of_file = {name for name in own if name in facts.columns or (name == GENRES and facts.genres)}
    for item in stock_items(facts.ids, facts):
        features = dict.fromkeys((tags if name == GENRES else name for name in own if name in of_file), None)
        for name, value in item.features.items():
            if name in own:
                cell = facts.attributes.get(name, {}).get(item.id)
                features[tags if name == GENRES else name] = _value(own[name], name, value, cell)
            else:
                found[name] = None
        items.append({"item_id": str(item.id), "title": item.title, "features": features})
    answer = client.post("/v1/items", {"items": items, "only": only})
    name = one_line(Path(path).name)
    return Posted(answer, tuple(found), f"{amount(len(items), 'item')} of {name} to {one_line(url)}")


def _value(kind: str, name: str, value: Any, cell: Any) -> Any:
    """A value as the place has it: a column of numbers in this file may be one of texts there."""
    if kind == "text" and name not in (GENRES, EMBEDDING):
        return str(value if cell is None else cell)
    return value

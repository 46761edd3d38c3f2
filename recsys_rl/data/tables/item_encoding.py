"""The encodings of the columns of a team's items, and the catalogue of items that they give.

A column of items is a piece, as those of the context are (pieces.py): a number is standardised, and where it
is missing it is the mean; a text is a code, and a text that the encoding does not know is *other*. Genres
have a column each. The encodings are made once, of the items of a training, and lie in the settings of its
policy: so the policy reads other items by the same numbers.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from recsys_rl.data.tables.pieces import MOST_TEXTS, Piece, pieces_text, read_pieces
from recsys_rl.data.timeline import ALWAYS, COLUMNS, NEVER, Clock, ItemTimeline
from recsys_rl.types import Catalogue, ItemFeature

T = TypeVar("T")
Features = Mapping[str, Any]
"""The values of an item, by column: a number, or a text; under GENRES a list of texts, under EMBEDDING a
list of numbers. A column without a value is absent."""
GENRES, YEAR, EMBEDDING = "genres", "year", "embedding"
RESERVED = ("popularity", "quality", "genres", "kind", "creator")
"""Names of attributes that have a meaning of their own in a catalogue."""
MOST_ALONE = 256
"""Items without a known fact that get a feature each."""
NOTHING = "[]"
"""The facts of items that are known by their ids alone."""


class StockItem(NamedTuple):
    """One item of a team's place."""

    id: int | str
    title: str
    features: Features
    live: bool = True  # it may be shown from now on
    since: int = ALWAYS  # moments on the clock of the log (data/timeline.py)
    until: int = NEVER


@dataclass(frozen=True)
class ItemEncoding:
    """The encodings of all columns of the items."""

    pieces: tuple[Piece, ...] = ()  # numbers and texts
    genres: tuple[str, ...] = ()
    vector: int = 0  # numbers of the column EMBEDDING, which are used as they are; 0 without it
    alone: tuple[str, ...] = ()  # items with a feature of their own, where nothing is known of any
    genres_column: str = GENRES  # its name in the team's file

    @property
    def columns(self) -> dict[str, str]:
        """The kind of each column that is read: number, text, list (of numbers) or names."""
        kinds = {piece.name: str(piece.kind) for piece in self.pieces}
        if self.genres:
            kinds[GENRES] = "names"
        if self.vector:
            kinds[EMBEDDING] = "list"
        return kinds

    def internal(self, name: str) -> str:
        """The name in ``Features`` of a column that callers name; another name is returned as it is."""
        return GENRES if name == self.genres_column and self.genres else name

    def named(self, columns: Mapping[str, T]) -> dict[str, T]:
        """What is said of each of the ``columns`` by the names that callers use."""
        return {self.genres_column if name == GENRES else name: of for name, of in columns.items()}

    @property
    def knows_items(self) -> bool:
        """True if more is known of an item than its id."""
        return bool(self.pieces or self.genres or self.vector)

    def unknown(self, items: Collection[Features]) -> int:
        """The number of these items with a text or a genre that the encoding does not know."""
        known = {piece.name: {*piece.values} for piece in self.pieces if piece.kind == "text"}
        return sum(
            any(name in row and row[name] not in texts for name, texts in known.items())
            or bool(self.genres and {*row.get(GENRES, ())} - {*self.genres})
            for row in items
        )

    def _genres_of(self, rows: Sequence[Features]) -> Tensor:
        """(I, number of genres) float32: 1 where an item has the genre."""
        found, known = torch.zeros(len(rows), len(self.genres)), {x: at for at, x in enumerate(self.genres)}
        if known:
            pairs = [(at, known[x]) for at, row in enumerate(rows) for x in row.get(GENRES, ()) if x in known]
            found[torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(1)] = 1.0
        return found

    def catalogue(
        self, items: Sequence[StockItem], popularity: Tensor, source: str, clock: Clock = ""
    ) -> Catalogue:
        """The catalogue of the items, in their order; ``popularity`` (I,).

        Its embedding is the vector of the column EMBEDDING, with all else in features beside it; without such
        vectors it holds the encodings themselves.
        """
        rows, number = [item.features for item in items], len(items)
        columns = {piece.name: encoded(piece, [row.get(piece.name) for row in rows]) for piece in self.pieces}
        genres = self._genres_of(rows)
        attributes: dict[str, Tensor] = {"genres": genres}
        if clock:
            ends = torch.tensor([(item.since, item.until) for item in items], dtype=torch.int64).view(-1, 2)
            attributes |= dict(zip(COLUMNS[clock], ends.unbind(1), strict=True))
        features = [ItemFeature("genres", "tags", self.genres)]
        if self.vector:
            none = [0.0] * self.vector
            embedding = torch.tensor([row.get(EMBEDDING, none) for row in rows]).view(number, self.vector)
            for piece in self.pieces:
                own_name = f"own_{piece.name}" if piece.name in RESERVED else piece.name
                for at, name in enumerate(_names(piece, own_name)):
                    attributes[name] = columns[piece.name][:, at]
                    features.append(ItemFeature(name, "plain"))
        else:
            places = {name: place for place, name in enumerate(self.alone)}
            alone = torch.zeros(number, len(places))
            for at, item in enumerate(items):
                if (place := places.get(str(item.id))) is not None:
                    alone[at, place] = 1.0
            # Two columns of zeros: never of size 1, as single pieces are.
            embedding = torch.cat([genres, *columns.values(), alone, torch.zeros(number, 2)], 1)
        ids = [item.id for item in items]
        texts = bool(ids) and isinstance(ids[0], str)
        return Catalogue(
            embedding=embedding.float(),
            item_ids=torch.arange(number) if texts else torch.tensor(ids, dtype=torch.int64),
            titles=tuple(item.title for item in items),
            popularity=popularity,
            quality=torch.zeros(number),
            available=torch.tensor([item.live for item in items], dtype=torch.bool),
            source=source,
            attributes=attributes,
            item_names=tuple(map(str, ids)) if texts else (),
            features=tuple(features),
            facts=facts_text(rows) if self.knows_items else NOTHING,
        )


def items_of(catalogue: Catalogue) -> list[StockItem]:
    """The items of a team's catalogue, as ``ItemEncoding.catalogue`` took them."""
    rows = json.loads(catalogue.facts) or [{}] * catalogue.num_items
    if rows and rows[0].get(EMBEDDING) == 0:
        rows = [{**row, EMBEDDING: own} for row, own in zip(rows, catalogue.embedding.tolist(), strict=True)]
    timeline = ItemTimeline.of(catalogue)
    ends = timeline.since.tolist(), timeline.until.tolist()
    return [
        StockItem(catalogue.id_of(at), catalogue.title(at), *of_row)
        for at, of_row in enumerate(zip(rows, catalogue.available.tolist(), *ends, strict=True))
    ]


def facts_text(rows: Sequence[Features]) -> str:
    """The rows as a text of JSON; vectors stand in the catalogue itself, and here is a 0 in their place."""
    return json.dumps([{**row, EMBEDDING: 0} if EMBEDDING in row else dict(row) for row in rows])


def fitted(items: Sequence[StockItem], genres_column: str = GENRES) -> tuple[ItemEncoding, str]:
    """The encodings of these items, and a note about texts that have no code of their own.

    ``genres_column``: the name of the column of GENRES in the file of the items.
    """
    rows = [item.features for item in items]
    vectors = [row[EMBEDDING] for row in rows if EMBEDDING in row]
    names = dict.fromkeys(name for row in rows for name in row if name not in (GENRES, EMBEDDING))
    made = [_fitted(name, [row.get(name) for row in rows]) for name in names]
    genres = tuple(sorted({name for row in rows for name in row.get(GENRES, ())}))
    known = bool(made or genres or vectors)
    ids = dict.fromkeys(str(item.id) for item in items)
    alone = () if known or len(ids) > MOST_ALONE else tuple(ids)
    encoding = ItemEncoding(
        tuple(piece for piece, _ in made), genres, len(vectors[0]) if vectors else 0, alone, genres_column
    )
    return encoding, "; ".join(note for _, note in made if note)


def _fitted(name: str, values: Sequence[Any]) -> tuple[Piece, str]:
    """The encoding of a column of these values, None where one is missing, and a note."""
    known = [value for value in values if value is not None]
    if isinstance(known[0], str):
        texts = Counter(known)
        common = sorted(texts, key=lambda text: (-texts[text], text))[:MOST_TEXTS]
        rest = len(texts) - len(common)
        note = f"{name} has {len(texts):,} texts: the {rest:,} rarest are other" if rest else ""
        return Piece(name, "text", values=tuple(sorted(common)), gaps=len(known) < len(values)), note
    numbers = torch.tensor(known, dtype=torch.float64)
    mean = numbers.mean()
    filled = torch.cat([numbers, mean.expand(len(values) - len(known))])
    spread = filled.std() if len(filled) > 1 else torch.tensor(0.0)
    scale = float(spread) if float(spread) > 1e-6 * float(numbers.abs().max()) else 1.0
    ends = (float(numbers.min()),), (float(numbers.max()),)
    return Piece(name, "number", *ends, shift=(float(mean),), scale=(scale,)), ""


def encoded(piece: Piece, values: Sequence[Any]) -> Tensor:
    """(I, size) float32 of a column; None where a value is missing."""
    if piece.kind == "text":
        places = {text: place for place, text in enumerate(piece.values)}
        other = len(places)
        missing = other + piece.gaps
        codes = [missing if value is None else places.get(str(value), other) for value in values]
        return torch.nn.functional.one_hot(torch.tensor(codes, dtype=torch.int64), piece.size).float()
    filled = [piece.shift[0] if value is None else float(value) for value in values]
    return piece.scaled(torch.tensor(filled, dtype=torch.float64).unsqueeze(1))


def _names(piece: Piece, name: str) -> list[str]:
    """Names of the columns of a piece."""
    if piece.kind == "number":
        return [name]
    return [f"{name} {text}" for text in (*piece.values, "(other)", *["(none)"] * piece.gaps)]


def is_number(value: object) -> bool:
    """True for a finite number, not for True or False."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def encoding_text(encoding: ItemEncoding) -> dict[str, Any]:
    """The encodings as JSON's values, for the settings of a run."""
    return {**asdict(encoding), "pieces": json.loads(pieces_text(encoding.pieces))}


def read_encoding(values: Mapping[str, Any]) -> ItemEncoding:
    """The inverse of ``encoding_text``. Raises the errors of other values."""
    vector = values["vector"]
    if type(vector) is not int or vector < 0:
        raise ValueError(f"{vector!r} numbers of an item")
    names = (tuple(map(str, values[name])) for name in ("genres", "alone"))
    genres, alone = names
    column = values.get("genres_column", GENRES)  # of an earlier version
    if type(column) is not str:
        raise ValueError(f"{column!r} as the name of a column")
    return ItemEncoding(read_pieces(json.dumps(values["pieces"])), genres, vector, alone, column)

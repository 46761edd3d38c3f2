"""Items that join the catalogue of a trained policy, with vectors from their attributes.

The regression of data/cold.py needs attributes of items with learned vectors. The genres, the years and the
numbers of the catalogue serve for that, and all that the file of new items says about known ones. Classes
(texts such as a brand) are of use only if the file has known items too: a catalogue has no names of classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recsys_rl.data.cold import vectors_of_new
from recsys_rl.data.tables.items import ItemFacts
from recsys_rl.errors import listed
from recsys_rl.types import Catalogue, UserError


def join(catalogue: Catalogue, facts: ItemFacts) -> tuple[Catalogue, str]:
    """The catalogue with the items of ``facts`` that it lacks as its last rows, and a note about them.

    A new item is as popular as the least popular known one, as a trained policy has met no lower value, and
    of mean quality. Attributes that the platform reads are those of the file; a gap gets the mean, or a class
    of its own.

    Raises UserError if no item is new, if nothing is known of the items from which vectors could be learned,
    or if the embeddings are a table in a file of its own.
    """
    if not catalogue.factors and not catalogue.table_file:
        raise UserError(
            "--items: the items of this policy are made up, so others can't join: train again with these "
            "items."
        )
    if catalogue.table_file:
        raise UserError(
            f"--items: the embeddings of this policy are the file {catalogue.table_file}, and not learned "
            "from a log: add rows to that file and train again."
        )
    known: dict[Any, int] = {catalogue.id_of(row): row for row in range(catalogue.num_items)}
    new = [id_ for id_ in facts.ids if id_ not in known]
    if not new:
        raise UserError(
            f"--items names {len(facts.ids):,} items, and the catalogue has all of them: give new ones."
        )
    described = _with_catalogue(facts, catalogue, known)
    vectors, said = vectors_of_new(catalogue, described, new)

    def longer(values: Tensor, fill: Tensor) -> Tensor:
        return torch.cat([values, fill.expand(len(new))])

    named, norm = bool(catalogue.item_names), catalogue.factors["norm"]
    next_id = int(catalogue.item_ids.max()) + 1
    ids = [next_id + place if named else int(str(id_)) for place, id_ in enumerate(new)]
    titles = [facts.titles.get(id_, str(id_) if named else f"item {id_}") for id_ in new]
    columns = facts.genres_and_years(new, catalogue.tag_names)
    joined = dataclasses.replace(
        catalogue,
        embedding=torch.cat([catalogue.embedding, vectors]),
        item_ids=torch.cat([catalogue.item_ids, torch.tensor(ids)]),
        titles=(*catalogue.titles, *titles),
        popularity=longer(catalogue.popularity, catalogue.popularity.min()),
        quality=longer(catalogue.quality, catalogue.quality.mean()),
        available=longer(catalogue.available, torch.tensor(True)),
        attributes={
            name: torch.cat([values, columns[name]])
            if name in columns
            else _lengthened(values, new, known, facts.attributes.get(name, {}))
            for name, values in catalogue.attributes.items()
        },
        item_names=(*catalogue.item_names, *map(str, new)) if named else (),
        factors={**catalogue.factors, "norm": longer(norm, norm.median())},
    )
    return joined, f"{len(new):,} new items, for this command alone, {said}{_lacking(described, new)}"


def _with_catalogue(facts: ItemFacts, catalogue: Catalogue, known: Mapping[Any, int]) -> ItemFacts:
    """``facts``, with those of the catalogue about its items, and without columns that these don't share."""
    genres, years = dict(facts.genres), dict(facts.years)
    tags, names, year = catalogue.tags, catalogue.tag_names, catalogue.attributes["year"]
    for id_, row in known.items():
        genres[id_] = [names[at] for at in tags[row].nonzero().flatten().tolist()]
        if not bool(year[row].isnan()):
            years[id_] = float(year[row])
    attributes = {}
    for name, values in facts.attributes.items():
        ours = catalogue.attributes.get(name)
        if ours is not None and ours.ndim == 1 and ours.is_floating_point() and name not in catalogue.drawn:
            values = {**{id_: float(ours[row]) for id_, row in known.items()}, **values}
        if sum(id_ in known for id_ in values) >= 2:
            attributes[name] = values
    return dataclasses.replace(facts, genres=genres, years=years, attributes=attributes)


def _lengthened(
    values: Tensor, new: Sequence[Any], known: Mapping[Any, int], given: Mapping[Any, Any]
) -> Tensor:
    """An attribute (I, ...) of the catalogue with the values of the new items below; ``given`` by id."""
    if values.is_floating_point():
        filled = values.mean(0).expand(len(new), *values.shape[1:]).clone()
        for index, id_ in enumerate(new):
            filled[index] = _number(given.get(id_), filled[index])
        return torch.cat([values, filled])
    # Known items of the file give classes their numbers; each other text is a new class, and so is each gap.
    numbers = {str(given[id_]): int(values[row]) for id_, row in known.items() if id_ in given}
    free, codes = int(values.max()) + 1, []
    for id_ in new:
        text = str(given[id_]) if id_ in given else None
        if text is None or text not in numbers:
            numbers[f"\0{free}" if text is None else text] = free
            codes.append(free)
            free += 1
        else:
            codes.append(numbers[text])
    return torch.cat([values, torch.tensor(codes, dtype=values.dtype)])


def _number(value: object, otherwise: Tensor) -> Tensor:
    try:
        number = torch.tensor(float(str(value)))
    except ValueError:
        return otherwise
    return number if bool(number.isfinite()) else otherwise


def _lacking(facts: ItemFacts, new: Sequence[Any]) -> str:
    """The new items without any attribute, and the number of gaps in each attribute, as parts of a note."""
    columns = {"genres": facts.genres, "year": facts.years, **facts.attributes}
    columns = {name: values for name, values in columns.items() if values}
    nothing = [id_ for id_ in new if not any(values.get(id_) for values in columns.values())]
    gaps = {name: sum(id_ not in values for id_ in new) for name, values in columns.items()}
    lacking = ", ".join(f"{name} ({count:,})" for name, count in gaps.items() if count)
    note = f"; without a value: {lacking}" if lacking else ""
    if nothing:
        note += f"; without any attribute: {len(nothing):,} ({listed([str(id_) for id_ in nothing])})"
    return note

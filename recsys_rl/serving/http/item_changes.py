"""`POST /v1/items`: items of a team's own place come, change and go, all of a request or none.

The request is checked, and the versions that serve are laid over the new stock and tried on it, before a row
is written. The rows reach the disk together, and then the versions over the new stock answer. A draw that was
begun before has a lower number than the rows, and is one of the stock before.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import msgspec
import torch

from recsys_rl.checkpoint.stock import encoding_of
from recsys_rl.data.tables.item_encoding import EMBEDDING, ItemEncoding, StockItem
from recsys_rl.data.tables.items import LARGEST
from recsys_rl.data.tables.values import is_gap, label
from recsys_rl.data.timeline import NEVER
from recsys_rl.errors import UserError, amount, one_line
from recsys_rl.serving import messages
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.http.services import Services, decoded, encode
from recsys_rl.serving.messages import MOST_STOCK, ItemGiven, ItemsAnswer, ItemsRequest, Problem
from recsys_rl.serving.record.facts import FEATURES
from recsys_rl.serving.record.stock import Change, Stock, changes_of
from recsys_rl.serving.record.store import Full
from recsys_rl.serving.releases.active_version import PolicyFiles
from recsys_rl.serving.work.jobs import Call, Shared
from recsys_rl.settings.fields import shown

MOST_ROWS = 200_000
"""Rows that items get in one record, with those that are gone."""
TRIES = 5  # while releases change the versions that serve

_decoder = msgspec.json.Decoder(ItemsRequest)


async def take_items(services: Services, body: bytes) -> bytes:
    """The answer of `POST /v1/items`. Raises Problem, Lost."""
    request: ItemsRequest = decoded(_decoder, body)
    shared, policies = services.worker.shared, services.policies
    async with services.restocking:
        for _ in range(TRIES):
            active = shared.active
            stock, serving = active.stock, (active.version, active.challenger)
            if stock is None:
                raise Problem(
                    409,
                    "fixed-catalogue",
                    f"The items of {active.version.checkpoint.config.env} are those of its data: train again "
                    "with others.",
                )
            columns = shared.store.facts.get(FEATURES, {})
            plan = await asyncio.to_thread(_planned, request, stock, columns, active.version)
            if not plan.change.add and not plan.change.withdraw:
                return encode(plan.answer(active.version, shared.settings.new_items))
            tried = await asyncio.to_thread(_tried, plan, stock, serving, policies)
            changing = partial(
                _write, plan=plan, before=stock, serving=serving, tried=tried, policies=policies
            )
            answer = await services.worker.submit(Call(changing))
            if answer is not None:
                return encode(answer)
    raise messages.busy(1.0)


@dataclass(frozen=True)
class Plan:
    """A checked request."""

    change: Change
    added: int
    changed: int
    unchanged: int
    withdrawn: int

    def answer(self, version: Version, new_items: float) -> ItemsAnswer:
        """The answer; ``version``: the champion over the stock after it; ``new_items``: of the settings."""
        stock, encoding = version.stock, encoding_of(version.checkpoint)
        assert stock is not None
        showable = version.checkpoint.catalogue.available & stock.timeline.available_now
        if new_items:
            showable |= version.never_shown & stock.timeline.available_now
        return ItemsAnswer(
            added=self.added,
            changed=self.changed,
            withdrawn=self.withdrawn,
            unchanged=self.unchanged,
            items=len(stock.row_of),
            stock=stock.changes[-1],
            unknown_values=encoding.unknown([item.features for item in self.change.add]),
            incomplete=[
                str(item.id) for item in self.change.add if encoding.knows_items and not item.features
            ],
            not_showable=len(stock.row_of) - int(showable.sum()),
        )


def _planned(request: ItemsRequest, stock: Stock, columns: Mapping[str, str], version: Version) -> Plan:
    """What the request changes. Raises Problem."""
    given, withdraw = [one.item_id for one in request.items], dict.fromkeys(request.withdraw)
    seen: set[str] = set()
    for id_ in (*given, *request.withdraw):
        if id_ in seen:
            raise Problem(422, "item-twice", f"items: {shown(id_)} stands twice: give each item once.")
        seen.add(id_)
    gone = [id_ for id_ in withdraw if id_ not in stock.row_of]
    for id_ in gone:
        if id_ not in stock.ids:
            raise Problem(422, "unknown-item", f"withdraw: there is no item {shown(id_)}: leave it out.")
        del withdraw[id_]  # as when the same request comes again
    size = version.checkpoint.catalogue.embedding.shape[1]
    place = Columns(columns, encoding_of(version.checkpoint), size)
    items = [_item(one, place, stock) for one in request.items]
    same = [stock.facts_of(str(item.id)) == (item.title, item.features) for item in items]
    fresh = [item for item, is_same in zip(items, same, strict=True) if not is_same]
    if request.only:
        withdraw |= dict.fromkeys(id_ for id_ in stock.row_of if id_ not in seen)
    changed = sum(str(item.id) in stock.row_of for item in fresh)
    plan = Plan(
        Change(fresh, [stock.row_of[id_] for id_ in withdraw]),
        added=len(fresh) - changed,
        changed=changed,
        unchanged=sum(same) + len(gone),
        withdrawn=len(withdraw),
    )
    _check_number(len(stock.row_of) + plan.added - plan.withdrawn, stock.num_rows + len(fresh), version)
    return plan


def _check_number(items: int, rows: int, version: Version) -> None:
    """Raise Problem for a stock of fewer items than a slate has, or of too many."""
    least = max(2, version.checkpoint.interface.slate_size)
    if items < least:
        left = amount(items, "item")
        raise Problem(409, "too-few-items", f"{left} would be left, and {least} are needed: withdraw fewer.")
    if items > MOST_STOCK:
        raise Problem(
            409,
            "too-many-items",
            f"{items:,} items would be there, and {MOST_STOCK:,} is the most: add fewer.",
        )
    if rows > MOST_ROWS:
        raise Problem(
            409,
            "too-many-items",
            f"The record would hold {rows:,} rows of items, and {MOST_ROWS:,} is the most: begin a new one.",
        )


class Columns(NamedTuple):
    """The columns of the items of a team's place."""

    kinds: Mapping[str, str]  # as the record keeps them
    encoding: ItemEncoding  # of the champion, which has the name of the column of tags
    size: int  # numbers of an embedding


def _item(given: ItemGiven, place: Columns, stock: Stock) -> StockItem:
    """The item of a request, with what was known of it before where the request is silent. Raises Problem."""
    if is_gap(given.item_id) or given.item_id != given.item_id.strip():
        raise _wrong(given, "its id is a gap in a table, or has spaces around it")
    kinds, names = place.kinds, place.encoding.named(place.kinds)
    title, before = stock.last_known(given.item_id) or ("", {})
    features = {**before}
    for name, value in given.features.items():
        own = place.encoding.internal(name)
        if name not in names:
            known = ", ".join(names) or "none"
            raise _wrong(given, f"the place has no column {shown(name)} of items; its columns are {known}")
        features.pop(own, None)
        if value is not None and value != [] and not (isinstance(value, str) and is_gap(value)):
            features[own] = _value(given, name, kinds[own], value, place.size)
    if kinds.get(EMBEDDING) and EMBEDDING not in features:
        raise _wrong(given, f"{EMBEDDING} is missing, the list of {place.size} numbers that each item has")
    # In the order of the columns: a request with another order changes nothing.
    ordered = {name: features[name] for name in kinds if name in features}
    return StockItem(given.item_id, one_line(given.title or title or given.item_id), ordered)


def _value(given: ItemGiven, name: str, kind: str, value: Any, size: int) -> Any:
    """A value as the record keeps it. Raises Problem for one of another kind."""
    if kind == "text" and isinstance(value, str):
        return one_line(label(value))
    if kind == "number" and isinstance(value, int | float) and _fits(value):
        return float(value)
    if kind == "names" and isinstance(value, str):
        return [one_line(label(value))]
    if kind == "names" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return [one_line(one.strip()) for one in dict.fromkeys(value) if one.strip()]
    numbers = isinstance(value, list) and all(isinstance(one, int | float) and _fits(one) for one in value)
    if kind == "list" and numbers and len(value) == size:
        return torch.tensor(value, dtype=torch.float32).tolist()  # as a policy reads it
    wanted = {
        "text": "a text",
        "number": f"a number of at most {LARGEST:g}",
        "names": "a text or a list of texts",
        "list": f"a list of {size} numbers",
    }[kind]
    raise _wrong(given, f"{name} is {shown(value)}, and not {wanted}")


def _fits(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= LARGEST


def _wrong(given: ItemGiven, why: str) -> Problem:
    return Problem(422, "wrong-item", f"items: {shown(given.item_id)}: {why}. Nothing is changed.")


def _tried(
    plan: Plan, stock: Stock, serving: tuple[Version, Version | None], policies: PolicyFiles
) -> PolicyFiles:
    """The files with the versions that serve over the stock to come, which they can choose from.

    Raises Problem if one can't.
    """
    numbers = itertools.count(NEVER // 2)  # the record gives others
    after = stock.after(changes_of(stock, plan.change, numbers.__next__, 0.0))
    there = [version for version in serving if version is not None]
    try:
        files = policies.over(after, there)
        for version in there:
            if version.decides:
                files.tried(version.row.sha256, [])
    except UserError as error:
        raise Problem(409, "policy-fails", str(error)) from None
    return files


def _write(
    shared: Shared,
    plan: Plan,
    before: Stock,
    serving: tuple[Version, Version | None],
    tried: PolicyFiles,
    policies: PolicyFiles,
) -> ItemsAnswer | None:
    """Write the rows, and let the versions over the new stock answer; None if others serve meanwhile.

    Raises Problem without room, Lost.
    """
    active = shared.active
    if active.stock is not before or active.version is not serving[0] or active.challenger is not serving[1]:
        return None
    rows = changes_of(before, plan.change, shared.transaction.number, shared.clock())
    try:
        shared.store.write(rows, durable=True)
    except Full as full:
        raise messages.no_room(str(full)) from full
    opened = [None if of is None else tried.version(of.row.sha256) for of in serving]
    champion, challenger = tried.numbered(before.after(rows), opened)
    policies.adopt(tried)
    active.restock(champion, challenger)
    return plan.answer(champion, shared.settings.new_items)

"""Logs of Vowpal Wabbit 9.11 (dsjson) as tables of decisions: one line in, one row out.

Such a line is one event: the features of the context and of its actions (``c``), the actions as they were
ranked with the chosen one first, their probabilities and the cost. With ``_outcomes`` it has several slots,
whose actions are the places of a slate. docs/09_logs.md lists what is read and what is lost.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recsys_rl.data.tables.values import in_table
from recsys_rl.errors import amount, listed, short
from recsys_rl.utils.user_hashes import user_hashes

SUM = 1e-3
"""Largest distance from 1 of the sum of a line's probabilities."""
MOST_FEATURES = 200
"""Features of the context that become columns: those that the most lines have."""
LARGEST = 10**300
"""Numbers from it on are not read."""
LONGEST_ID = 60
"""Characters of an id that is made of an action's features."""


class BrokenLineError(Exception):
    """The reason why a line can't be read, as the end of a sentence."""


def is_dsjson(line: Mapping[str, Any]) -> bool:
    """True for an event of Vowpal Wabbit, by its keys."""
    context = line.get("c")
    return isinstance(context, dict) and isinstance(context.get("_multi"), list)


@dataclass(frozen=True)
class _Decision:
    line: int
    event: str  # "" without an EventId
    time: str
    weight: float  # 1 / (1 - pdrop)
    context: dict[str, Any]
    shown: list[str]  # (K,) ids
    chances: list[float]  # (K,) of each place
    reward: float | list[float]  # of the whole or of each place
    candidates: list[str]


_Choice = tuple[list[str], list[float], float | list[float] | None]
"""The items shown (K), the probability of each place, and the reward of the whole, or of each place."""


class Decisions:
    """The decisions of the lines of a file, in their order."""

    def __init__(self) -> None:
        self.rows: list[_Decision] = []
        self.items: dict[str, dict[str, Any]] = {}  # features by id
        self.left: Counter[str] = Counter()  # lines that are left out, by the reason
        self._varying: set[str] = set()  # features that differ between decisions of one item
        self._rare = 0  # features of the context that become no columns
        self._slots = 0  # lines with features of their slots, or that tell which action may stand at which
        self._events: set[str] = set()
        self._seen: dict[str, tuple[str, dict[str, Any]]] = {}  # ids and features by the texts of actions

    def add(self, number: int, line: Mapping[str, Any]) -> None:
        """Add a line. Raises BrokenLineError."""
        if not is_dsjson(line):
            self.left["that are not decisions"] += 1
            return
        if line.get("_skipLearn") is True:
            self.left["with _skipLearn"] += 1
            return
        event = _text(line.get("EventId"))
        if event and event in self._events:
            raise BrokenLineError(f"has the EventId {short(event)} of an earlier line")
        context = line["c"]
        named = [self._named(action) for action in context["_multi"]]
        actions = [name for name, _ in named]
        outcomes = line.get("_outcomes")
        chosen, chances, reward = (
            _single(line, actions) if outcomes is None else _places(line, outcomes, context, actions)
        )
        pdrop = _number(line.get("pdrop", 0.0), "pdrop", 0.0, 1.0)
        seen = once(flat({name: x for name, x in context.items() if name != "_multi"}))
        self._events.add(event)
        if reward is None:
            self.left["without an outcome (_label_cost)"] += 1
            return
        self.rows.append(
            _Decision(
                number,
                event,
                _text(line.get("Timestamp")),
                1 / (1 - pdrop),
                seen,
                chosen,
                chances,
                reward,
                list(dict.fromkeys(actions)),
            )
        )
        for name, features in named:  # of sound lines alone
            self._keep(name, features)
        self._slots += _tells_of_slots(context)

    def _named(self, action: Any) -> tuple[str, dict[str, Any]]:
        """The id and the features of an action."""
        text = repr(action)
        if text not in self._seen:
            found = action if isinstance(action, dict) else {}
            features = once(flat(found))
            self._seen[text] = _id_of(found, features), features
        return self._seen[text]

    def _keep(self, name: str, features: dict[str, Any]) -> None:
        """Keep the features of an item, and the names of those that differ from its earlier ones."""
        known = self.items.setdefault(name, features)
        if known is not features and known != features:
            both = known.keys() | features.keys()
            self._varying |= {x for x in both if known.get(x) != features.get(x)}

    def table(self) -> tuple[dict[str, list[Any]], list[int]]:
        """The columns of the decisions, and the line of each."""
        rows = self._thinned(self.rows)
        if not rows:
            return {}, []
        columns: dict[str, list[Any]] = {}
        if all(row.event for row in rows):
            columns["session"] = [row.event for row in rows]
        if all(row.time for row in rows):
            columns["time"] = [row.time for row in rows]
        if all(len(row.shown) == 1 for row in rows):
            columns["item"] = [row.shown[0] for row in rows]
            columns["propensity"] = [row.chances[0] for row in rows]
        else:
            columns["items"] = [row.shown for row in rows]
            logs = [[math.log(chance) for chance in row.chances] for row in rows]
            columns["logprob"] = [sum(terms) for terms in logs]
            columns["place_logprobs"] = logs
        columns["reward"] = _of_one_kind(rows)
        columns["candidates"] = [row.candidates for row in rows]
        for name in self._features(rows):
            columns[f"context.{_printable(name)}"] = _alike([row.context.get(name) for row in rows])
        return columns, [row.line for row in rows]

    def item_table(self) -> dict[str, list[Any]]:
        """The ids of the items, and their features that are the same in all decisions; {} without features.

        A list of numbers becomes a column for each of them, but for vectors in ``embedding``.
        """
        own = [
            {part: x for name, of in features.items() for part, x in _parts(name, of)}
            for features in self.items.values()
        ]
        names = dict.fromkeys(name for features in own for name in features)
        kept = [name for name in names if name.partition("#")[0] not in self._varying]
        if not kept:
            return {}
        columns = {_column(name): [features.get(name) for features in own] for name in kept}
        return {"item": list(self.items), **columns}

    def notes(self) -> Iterator[str]:
        """Notes about lines that were left out, and about parts of the decisions that are lost."""
        left = [f"{count:,} {reason}" for reason, count in self.left.items() if count]
        if left:
            yield f"left out: {', '.join(left)}"
        if self._varying:
            names = listed(sorted(self._varying))
            yield f"features that differ between decisions of one item are not read: {names}"
        if self._rare:
            more = f"{MOST_FEATURES} others stand in more lines"
            yield f"features of the context that are not read, as {more}: {self._rare:,}"
        if self._slots:
            of = amount(self._slots, "line")
            yield f"features of slots, and which action may stand at which, are not read ({of})"

    def _thinned(self, rows: list[_Decision]) -> list[_Decision]:
        """The rows, each kept with a probability in proportion to its weight, by the hash of its event.

        So rows of events that were dropped with different probabilities count alike for everybody who reads
        the table: the rows with the largest weight stay.
        """
        largest = max((row.weight for row in rows), default=1.0)
        if all(row.weight == largest for row in rows):
            return rows
        draws = user_hashes([row.event or str(row.line) for row in rows], "pdrop")
        kept = [row for row, draw in zip(rows, draws, strict=True) if draw < row.weight / largest]
        self.left["so that events of every pdrop count alike"] += len(rows) - len(kept)
        return kept

    def _features(self, rows: Sequence[_Decision]) -> list[str]:
        """The features of the context that become columns, in the order in which they appear."""
        counts = Counter(name for row in rows for name, x in row.context.items() if x not in (None, []))
        most = {name for name, _ in counts.most_common(MOST_FEATURES)}
        self._rare = len(counts) - len(most)
        return [name for name in counts if name in most]


def _single(line: Mapping[str, Any], actions: list[str]) -> _Choice:
    """The chosen action, its probability and its reward."""
    order, every = _ranking(line, "a", "p", len(actions), 1)
    told = {"_labelIndex": order[0], "_label_Action": order[0] + 1}
    if any(line.get(name) not in (None, place) for name, place in told.items()):
        raise BrokenLineError(f"names another action in {' or '.join(told)} than first in a")
    chosen = actions[order[0]]
    chance = _number(line.get("_label_probability", every[0]), "_label_probability", 0.0, 1 + SUM)
    if actions.count(chosen) > 1:  # an item that stands twice
        chance = sum(p for p, at in zip(every, order, strict=True) if actions[at] == chosen)
    return [chosen], [_above_zero(chance)], _reward(line)


def _places(
    line: Mapping[str, Any], outcomes: Any, context: Mapping[str, Any], actions: list[str]
) -> _Choice:
    """The actions of the slots, the probability of each given those before, and the rewards."""
    slots = context.get("_slots")
    sound = isinstance(outcomes, list) and outcomes and all(isinstance(x, dict) for x in outcomes)
    if not sound or (isinstance(slots, list) and len(slots) != len(outcomes)):
        raise BrokenLineError("has no outcome of each slot in _outcomes")
    own = _by_slot(context["_multi"])
    chosen, chances, rewards = [], [], []
    for slot, outcome in enumerate(outcomes):
        here = [
            x for x, of in zip(actions, context["_multi"], strict=True) if not own or of["_slot_id"] == slot
        ]
        order, every = _ranking(outcome, "_a", "_p", len(here), 0)
        chosen.append(here[order[0]])
        chances.append(_above_zero(every[0]))
        rewards.append(_reward(outcome))
    if len(set(chosen)) < len(chosen):
        raise BrokenLineError("shows an item at two places")
    whole, known = _reward(line), [reward for reward in rewards if reward is not None]
    if not known or (whole is not None and len(known) < len(rewards)):
        return chosen, chances, whole
    return chosen, chances, [reward or 0.0 for reward in rewards] if len(rewards) > 1 else known[0]


def _reward(of: Mapping[str, Any]) -> float | None:
    """Minus the cost of a line or an outcome; None without one."""
    cost = of.get("_label_cost")
    return None if cost is None else 0.0 - _number(cost, "_label_cost")


def _number(value: Any, name: str, least: float = -LARGEST, most: float = LARGEST) -> float:
    """A number from ``least`` up to, but not, ``most``."""
    sound = isinstance(value, int | float) and not isinstance(value, bool) and least <= value < most
    if not sound:  # NaN is not smaller
        raise BrokenLineError(f"has {short(value)} for {name}, not a number from {least:g} up to {most:g}")
    return float(value)


def _above_zero(chance: float) -> float:
    if not chance > 0:
        raise BrokenLineError("has the probability 0 for what it chose")
    return min(chance, 1.0)


def _ranking(of: Mapping[str, Any], a: str, p: str, number: int, first: int) -> tuple[list[int], list[float]]:
    """The places of actions in their order, the chosen one first, and the probability of each.

    The keys ``a`` and ``p`` hold them; of ``number`` actions the lowest is ``first``.
    """
    order, chances = (value if isinstance(value, list) else [] for value in (of.get(a), of.get(p)))
    known = all(type(x) is int and first <= x < number + first for x in order)
    if not order or not known or len(set(order)) < len(order):
        raise BrokenLineError(f"has no list of different ones of its {number} actions in {a}")
    values = [_number(x, p, 0.0) for x in chances]
    if len(values) != len(order) or abs(sum(values) - 1) > SUM:
        raise BrokenLineError(f"has no probabilities of the actions in {p} whose sum is 1")
    return [place - first for place in order], values


def _tells_of_slots(context: Mapping[str, Any]) -> bool:
    """True if a line has features of its slots, or tells which action may stand at which."""
    slots = context.get("_slots")
    found = slots if isinstance(slots, list) else ()
    named = [name for slot in found if isinstance(slot, dict) for name in slot]
    return _by_slot(context["_multi"]) or any(not name.startswith("_") for name in named)


def _by_slot(actions: Sequence[Any]) -> bool:
    """True if each action tells the slot at which it may stand."""
    return bool(actions) and all(isinstance(of, dict) and "_slot_id" in of for of in actions)


def _of_one_kind(rows: Sequence[_Decision]) -> list[Any]:
    """The rewards by place; of the whole in all rows, if those of a row are known for the whole alone."""
    if all(isinstance(row.reward, list) or len(row.shown) == 1 for row in rows):
        return [row.reward for row in rows]
    return [sum(row.reward) if isinstance(row.reward, list) else row.reward for row in rows]


def _id_of(action: Mapping[str, Any], features: Mapping[str, Any]) -> str:
    """The id of an action: its tag, a feature ``id``, else a text of all its features."""
    tag = action.get("_tag")
    named = [value for name, value in features.items() if name.rpartition(".")[2].lower() == "id"]
    for value in (tag, *named):
        if isinstance(value, str | int | float) and str(value).strip():
            return str(value).strip()
    texts = [value for value in features.values() if isinstance(value, str)]
    if len(features) == 1 and texts and texts[0].strip():
        return texts[0].strip()
    text = " ".join(f"{name}={value}" for name, value in sorted(features.items()) if value is not None)
    if not text:
        raise BrokenLineError("has an action without a tag and without features")
    if len(text) <= LONGEST_ID:
        return text
    (number,) = user_hashes([json.dumps(features, sort_keys=True)], "action")
    return f"{text[: LONGEST_ID - 20]} {int(number * 2**53):014x}"


def _text(value: object) -> str:
    return "" if value is None else str(value)


def once(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The values by their names. Raises BrokenLineError for a name that stands twice."""
    found: dict[str, Any] = {}
    for name, value in values:
        if name in found:
            raise BrokenLineError(f"has two values for {short(name)}")
        found[name] = value
    return found


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The features of an object by their names, where objects inside it are namespaces: ``user.age``.

    Names that begin with _ are not features. A list of objects is one namespace; a list of texts is a text.
    Raises BrokenLineError for a number that is too large.
    """
    for key, value in values.items():
        name = f"{before}{key}"
        if str(key).startswith("_"):
            continue
        if isinstance(value, dict):
            yield from flat(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(x, dict) for x in value):
            for one in value:
                yield from flat(one, f"{name}.")
        elif isinstance(value, list):
            plain = [_sound(name, x) for x in value if isinstance(x, str | int | float)]
            yield name, " ".join(map(str, plain)) if any(isinstance(x, str) for x in plain) else plain
        else:
            yield name, _sound(name, value)


def _sound(name: str, value: Any) -> Any:
    return value if type(value) is not int or abs(value) < LARGEST else _number(value, name)


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A feature of an item; of a list each number, named by its place behind a #."""
    if isinstance(value, list) and name != "embedding":
        yield from ((f"{name}#{place}", number) for place, number in enumerate(value))
    else:
        yield name, value


def _printable(name: str) -> str:
    """The name of a feature as a piece of the context may have it."""
    return "".join(sign for sign in name if sign.isprintable() and sign not in "[]")[:90]


def _column(name: str) -> str:
    """The name of a feature in the table of items, whose column ``item`` has the ids."""
    return "feature.item" if name == "item" else name.replace("#", ".")


def _alike(values: list[Any]) -> list[Any]:
    """The values of a column of the context: all numbers, all lists of as many, or all texts."""
    values = [None if value == [] else value for value in values]
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool | int | float) for value in known):
        return [None if value is None else float(value) for value in values]
    sizes = {len(value) if isinstance(value, list) else -1 for value in known}
    if len(sizes) == 1 and -1 not in sizes and all(isinstance(x, int | float) for one in known for x in one):
        return [None if value is None else [float(x) for x in value] for value in values]
    return [None if value is None else in_table(str(value)) for value in values]

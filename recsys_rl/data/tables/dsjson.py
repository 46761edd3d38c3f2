"""Logs of Vowpal Wabbit (dsjson) as tables of decisions: one line in, one row out.

Such a line is one event: the features of the context and of its actions (``c``), the action that was chosen,
its probability and its cost. With ``_outcomes`` it has several slots, whose actions are the places of a
slate. docs/09_logs.md lists what is read and what is lost.
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
"""Whole numbers beyond it do not fit a float."""
LONGEST_ID = 60
"""Characters of an id that is made of an action's features."""
_OBSERVED = ("v", "RewardValue")


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
    reward: float | list[float] | None  # of the whole or of each place; None: no outcome is in the line
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
        self._observed: dict[str, float] = {}  # rewards by event, of lines that are not decisions
        self._has_costs = False  # some line has a cost: then lines without one have no outcome
        self._has_observations = False
        self._rare = 0  # features of the context that become no columns
        self._slots = 0  # lines with features of their slots
        self._of_slots = 0  # lines that tell which action may stand at which place
        self._events: set[str] = set()
        self._seen: dict[str, tuple[str, dict[str, Any]]] = {}  # ids and features by the texts of actions

    def add(self, number: int, line: Mapping[str, Any]) -> None:
        """Add a line. Raises BrokenLineError."""
        if not is_dsjson(line):
            self._observe(line)
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
        pdrop = _number(line.get("pdrop", 0.0), "pdrop")
        if not 0 <= pdrop < 1:
            raise BrokenLineError(f"has the pdrop {pdrop:g}, which is not from 0 up to 1")
        self.rows.append(
            _Decision(
                number,
                event,
                _text(line.get("Timestamp")),
                1 / (1 - pdrop),
                once(flat({name: x for name, x in context.items() if name != "_multi"})),
                chosen,
                chances,
                reward,
                list(dict.fromkeys(actions)),
            )
        )
        for name, features in named:  # of sound lines alone
            self._keep(name, features)
        self._events.add(event)
        parts = (line, *(outcomes or ()))
        self._has_costs |= any(of.get("_label_cost") is not None for of in parts)
        self._has_observations |= any("o" in of or "_o" in of for of in parts)
        slots = context.get("_slots")
        if isinstance(slots, list):
            self._slots += any(
                not name.startswith("_") for slot in slots if isinstance(slot, dict) for name in slot
            )
        self._of_slots += _by_slot(context["_multi"])

    def _observe(self, line: Mapping[str, Any]) -> None:
        """Keep the reward of a line that is not a decision, for the event that it names."""
        value = next((line[name] for name in _OBSERVED if name in line), None)
        event = _text(line.get("EventId"))
        known = isinstance(value, int | float) and abs(value) < LARGEST and bool(event)
        if known:
            self._has_observations = True
            self._observed[event] = self._observed.get(event, 0.0) + float(value)  # type: ignore[arg-type]
        self.left["observations of an event" if known else "that are not decisions"] += 1

    def _named(self, action: Any) -> tuple[str, dict[str, Any]]:
        """The id and the features of an action."""
        text = repr(action)
        if text not in self._seen:
            if not isinstance(action, dict):
                raise BrokenLineError("has an action that is not an object")
            features = once(flat(action))
            self._seen[text] = _id_of(action, features), features
        return self._seen[text]

    def _keep(self, name: str, features: dict[str, Any]) -> None:
        """Keep the features of an item, and the names of those that differ from its earlier ones."""
        known = self.items.setdefault(name, features)
        if known is not features and known != features:
            both = known.keys() | features.keys()
            self._varying |= {x for x in both if known.get(x) != features.get(x)}

    def table(self) -> tuple[dict[str, list[Any]], list[int]]:
        """The columns of the decisions, and the line of each."""
        rows = self._thinned(self._with_outcomes())
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
            yield f"features of slots are not read ({amount(self._slots, 'line')})"
        if self._of_slots:
            yield f"which action may stand at which place is not read ({amount(self._of_slots, 'line')})"

    def _with_outcomes(self) -> list[_Decision]:
        """The decisions that have a cost; of a file without costs all, with what was observed."""
        if all(row.reward is not None for row in self.rows):
            return self.rows
        if self._has_costs or not self._has_observations:
            kept = [row for row in self.rows if row.reward is not None]
            self.left["without an outcome"] += len(self.rows) - len(kept)
            return kept
        self.left.pop("observations of an event", None)
        return [
            row if row.reward is not None else _replaced(row, self._observed.get(row.event, _nothing(row)))
            for row in self.rows
        ]

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
    order = line.get("a")
    if order is not None:
        order = [place - 1 for place in _places_of(order, "a", len(actions), 1)]
    places = {
        "_labelIndex": _whole(line, "_labelIndex", 0),
        "_label_Action": _whole(line, "_label_Action", 1),
        "a": order[0] if order else None,
    }
    known = {name: place for name, place in places.items() if place is not None}
    if not known:
        raise BrokenLineError("names no chosen action (a, _labelIndex or _label_Action)")
    if len(set(known.values())) > 1:
        raise BrokenLineError(f"names two chosen actions ({', '.join(known)})")
    (place,) = set(known.values())
    if not 0 <= place < len(actions):
        raise BrokenLineError(f"has no action {place + 1}")
    every = None if "p" not in line else _distribution(line["p"], len(actions), "p")
    if every is not None and order is not None and len(order) < len(every):
        raise BrokenLineError(f"has {len(order)} actions in a and {len(every)} probabilities in p")
    chosen = actions[place]
    if "_label_probability" in line:
        chance = _number(line["_label_probability"], "_label_probability")
    elif every is not None and order is not None:
        chance = every[order.index(place)]
    else:
        raise BrokenLineError("has no probability (_label_probability or p)")
    if every is not None and order is not None and actions.count(chosen) > 1:  # an item that stands twice
        chance = sum(p for p, at in zip(every, order, strict=True) if actions[at] == chosen)
    if not 0 < chance <= 1 + SUM:
        raise BrokenLineError(f"has the probability {chance:g}, which is not above 0 and up to 1")
    return [chosen], [min(chance, 1.0)], _reward(line, "o")


def _places(
    line: Mapping[str, Any], outcomes: Any, context: Mapping[str, Any], actions: list[str]
) -> _Choice:
    """The actions of the slots, the probability of each given those before, and the rewards."""
    if not isinstance(outcomes, list) or not outcomes or not all(isinstance(x, dict) for x in outcomes):
        raise BrokenLineError("has _outcomes that are not a list of objects")
    slots = context.get("_slots")
    if isinstance(slots, list) and len(slots) != len(outcomes):
        raise BrokenLineError(f"has {len(slots)} slots and {len(outcomes)} outcomes")
    own = _by_slot(context["_multi"])
    chosen, chances, rewards = [], [], []
    for slot, outcome in enumerate(outcomes):
        here = [
            x for x, of in zip(actions, context["_multi"], strict=True) if not own or of["_slot_id"] == slot
        ]
        order = _places_of(outcome.get("_a"), "_a", len(here), 0)
        every = _distribution(outcome.get("_p"), len(order), "_p")
        chosen.append(here[order[0]])
        chances.append(every[0])
        rewards.append(_reward(outcome, "_o"))
    if not min(chances) > 0:
        raise BrokenLineError("has the probability 0 for what it chose")
    if len(set(chosen)) < len(chosen):
        raise BrokenLineError("shows an item at two places")
    whole, known = _reward(line, "o"), [reward for reward in rewards if reward is not None]
    if not known or (whole is not None and len(known) < len(rewards)):
        return chosen, chances, whole
    return chosen, chances, [reward or 0.0 for reward in rewards] if len(rewards) > 1 else known[0]


def _reward(of: Mapping[str, Any], observations: str) -> float | None:
    """Minus the cost of a line or an outcome; without one the sum of what was observed; None without both."""
    if of.get("_label_cost") is not None:
        return 0.0 - _number(of["_label_cost"], "_label_cost")
    seen = of.get(observations)
    if not isinstance(seen, list) or not seen:
        return None  # nothing was observed, or not yet
    values = [x.get("v") if isinstance(x, dict) else x for x in seen]
    return sum(_number(value, observations) for value in values if value is not None)


def _number(value: Any, name: str) -> float:
    sound = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
    if not sound:  # NaN is not smaller
        raise BrokenLineError(f"has {short(value)} for {name}, which is not a finite number")
    return float(value)


def _whole(line: Mapping[str, Any], name: str, first: int) -> int | None:
    """The place of an action by its number, of which the lowest is ``first``; None without one."""
    value = line.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise BrokenLineError(f"has {short(value)} for {name}, which is not a whole number")
    return value - first


def _places_of(order: Any, name: str, number: int, first: int) -> list[int]:
    """The numbers of actions, the chosen one first; they begin with ``first``."""
    sound = isinstance(order, list) and order and all(type(x) is int for x in order)
    if not sound or len(set(order)) < len(order):
        raise BrokenLineError(f"has no list of different actions in {name}")
    if not first <= min(order) <= max(order) < number + first:
        raise BrokenLineError(f"names an action in {name} that is not among its {number}")
    return list(order)


def _distribution(chances: Any, number: int, name: str) -> list[float]:
    if not isinstance(chances, list) or len(chances) != number:
        raise BrokenLineError(f"has no list of {number} probabilities in {name}")
    values = [_number(chance, name) for chance in chances]
    if min(values) < 0 or abs(sum(values) - 1) > SUM:
        raise BrokenLineError(f"has probabilities in {name} whose sum is {sum(values):g} and not 1")
    return values


def _by_slot(actions: Sequence[Any]) -> bool:
    """True if each action tells the slot at which it may stand."""
    return bool(actions) and all(isinstance(of, dict) and "_slot_id" in of for of in actions)


def _nothing(row: _Decision) -> float | list[float]:
    """The reward 0, of each place where there are several."""
    return [0.0] * len(row.shown) if len(row.shown) > 1 else 0.0


def _of_one_kind(rows: Sequence[_Decision]) -> list[Any]:
    """The rewards by place; of the whole in all rows, if those of a row are known for the whole alone."""
    if all(isinstance(row.reward, list) or len(row.shown) == 1 for row in rows):
        return [row.reward for row in rows]
    return [sum(row.reward) if isinstance(row.reward, list) else row.reward for row in rows]


def _replaced(row: _Decision, reward: float | list[float]) -> _Decision:
    return _Decision(**{**vars(row), "reward": reward})


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
    if type(value) is int and not -LARGEST < value < LARGEST:
        raise BrokenLineError(f"has a number of over 300 digits in {short(name)}")
    return value


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

"""Sample sessions on the page: a strip of bars for each, and a folded list of the items.

They show what each policy showed, how the user reacted, and what no policy sees. If the catalogue has no
titles, items are named by their attributes. Without attributes they are counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from recsys_rl.evaluation.report import words
from recsys_rl.evaluation.report.drawing import finite, kind, number, text
from recsys_rl.evaluation.report.page import Evaluated, Page, Picture, Row
from recsys_rl.experience.rollout import NUM_SAMPLE_USERS, Sessions
from recsys_rl.types import Catalogue, Feedback, Signal

Step = dict[str, Any]


def samples(evaluated: Evaluated) -> dict[str, Any]:
    """Sample ``sessions`` of the page, and ``tick``, the hidden signal that it marks; without items empty.

    ``sessions``: of the first few held-out users with each compared policy, of a life its first visit. Each
    has ``policy``, ``user``, ``likes``, the titles nearest to the user's profile, ``return``, ``left``,
    ``limit``, the steps of the longest session, and ``steps`` of ``title``, ``year``, ``genres``, ``reward``
    and ``hidden``, by name the signals that no recommender sees; of the item that a user chose from a slate
    also ``place``, None without a choice, and ``places``, ``visible`` signals by name, ``goes_on``, the title
    of an item chosen before, and ``events``, each with ``title`` and ``visible``. ``tick``: ``name`` and
    ``meaning``; None if no signal has one.
    """
    user_model, checkpoint = evaluated.user_model, evaluated.checkpoint
    if user_model is None:
        return {"sessions": []}
    (catalogue, population), limit = checkpoint.world, checkpoint.interface.session_length
    shown = []
    for row, user in enumerate(evaluated.users[:NUM_SAMPLE_USERS]):
        nearest = (catalogue.embedding @ population.profile[user]).topk(min(5, catalogue.num_items)).indices
        for policy in evaluated.compared:
            sessions = evaluated.played[policy].sessions
            length, left = int(sessions.lengths[row]), bool(sessions.left[row])
            if sessions.days is not None:
                length = int((sessions.days[:, row] == 0).sum())
                left = length < limit
            shown.append(
                {
                    "policy": policy,
                    "user": population.id_of(int(user)),
                    "likes": [catalogue.title(int(item)) for item in nearest],
                    "return": sessions.rewards[:length, row].sum().item(),
                    "left": left,
                    "limit": limit,
                    "steps": _steps(catalogue, user_model.signals, sessions, row, length),
                }
            )
    marked = [{"name": x.name, "meaning": x.meaning} for x in user_model.signals if x.meaning]
    return {"sessions": shown, "tick": marked[0] if marked else None}


def _steps(
    catalogue: Catalogue, signals: Sequence[Signal], sessions: Sessions, row: int, length: int
) -> list[Step]:
    """The steps of one session. If a signal marks the chosen item of a slate, a step is of this item."""
    choice = next((index for index, signal in enumerate(signals) if signal.chosen), None)
    steps: list[Step] = []
    under_way = ""  # title of the chosen item that has no event yet
    rewards = sessions.rewards[:length, row].tolist()
    for items, reward, feedback in zip(
        sessions.items[:length, row].tolist(), rewards, sessions.reactions, strict=False
    ):
        felt = feedback.signals[row].cpu()  # (K, S)
        if choice is None:
            values = felt.mean(0)
            steps.append(
                {**_slate(catalogue, items), "reward": reward, "hidden": _hidden_signals(signals, values)}
            )
            continue
        chosen = [index for index, took in enumerate(felt[:, choice].tolist()) if took > 0]
        events = _events(catalogue, signals, feedback, row)
        under_way = "" if events else under_way
        steps.append(
            {
                **_slate(catalogue, [items[index] for index in chosen]),
                "reward": reward,
                "hidden": _hidden_of_slate(signals, felt[chosen or feedback.shown[row].cpu()], bool(chosen)),
                "visible": _visible(signals, felt[chosen].sum(0)),
                "place": chosen[0] + 1 if chosen else None,
                "places": len(items),
                "goes_on": under_way,
                "events": events,
            }
        )
        under_way = steps[-1]["title"] or under_way
    return steps


def _hidden_signals(signals: Sequence[Signal], values: Tensor) -> dict[str, float]:
    return {signal.name: v for signal, v in zip(signals, values.tolist(), strict=True) if not signal.visible}


def _hidden_of_slate(signals: Sequence[Signal], felt: Tensor, chosen: bool) -> dict[str, float]:
    """Hidden signals of the chosen item; without one, those that are equal for all shown items (n, S)."""
    if chosen:
        hidden = _hidden_signals(signals, felt[0])
    else:
        alike = (felt == felt[:1]).all(0).tolist()
        values = felt[0].tolist() if len(felt) else []
        hidden = {
            signal.name: value
            for signal, value, same in zip(signals, values, alike, strict=False)
            if same and signal.meaning and not signal.visible
        }
    return {
        signal.name: hidden[signal.name] for signal in signals if signal.name in hidden and not signal.chosen
    }


def _visible(signals: Sequence[Signal], values: Tensor) -> dict[str, float]:
    """The visible signals that are not 0."""
    return {
        signal.name: v
        for signal, v in zip(signals, values.tolist(), strict=True)
        if signal.visible and v != 0
    }


def _events(catalogue: Catalogue, signals: Sequence[Signal], feedback: Feedback, row: int) -> list[Step]:
    """The new entries of the history: titles, and visible signals, the first of them also where it is 0."""
    if feedback.events is None:
        return []
    first = next(signal.name for signal in signals if signal.visible)
    return [
        {"title": catalogue.title(item), "visible": {first: 0.0} | _visible(signals, values)}
        for item, values in zip(
            feedback.events.items[row].tolist(), feedback.events.signals[row].cpu().unbind(0), strict=True
        )
        if item >= 0
    ]


def _slate(catalogue: Catalogue, items: Sequence[int]) -> Step:
    """Title, year and genres of an item. A slate has the titles and genres of all its items, and no year."""
    shown = [item for item in items if item >= 0]
    years = catalogue.attributes.get("year", ())
    year = float(years[shown[0]]) if len(shown) == 1 == len(items) and len(years) else math.nan
    tagged = catalogue.tags[torch.tensor(shown, dtype=torch.int64)].any(0).tolist()
    return {
        "title": ", ".join(catalogue.title(item) for item in shown),
        "year": None if math.isnan(year) else int(year),
        "genres": [name for name, has in zip(catalogue.tag_names, tagged, strict=True) if has],
    }


NOTE = (
    "Each bar is one step, in the order shown. Its height is the reward{tick}. All strips of a user have the "
    "same scale; a short strip is a short session."
)
VISITS = "Of each user's life, the first visit; the table is of whole lives."
TICK = ", and the tick is {name}, which no recommender sees; the dashed line is at one half"
AT_LIMIT = "A user who leaves at the last step has missed nothing: the session ends there in any case."


def samples_html(values: Mapping[str, Any], page: Page) -> str:
    """The section of the page, user by user; "" without sessions.

    Without a ``tick`` the ticks are of the first hidden signal, if there is one.
    """
    sessions, tick = values["sessions"], values.get("tick")
    if not sessions:
        return ""
    rewards = [step["reward"] for session in sessions for step in session["steps"] if finite(step["reward"])]
    full = max([1.0, *rewards])
    users: dict[Any, list[Row]] = {}
    for session in sessions:
        users.setdefault(session["user"], []).append(session)
    first = next((name for session in sessions for step in session["steps"] for name in _hidden(step)), None)
    mark = first if tick is None else str(tick["name"])
    meaning = f"the {first}" if tick is None else tick["meaning"]
    shown = "".join(_user(user, together, full, mark) for user, together in users.items())
    note = NOTE.format(tick="" if first is None else TICK.format(name=text(meaning)))
    note = f"{VISITS} {note}" if words.has_lives(page.rows) else note
    note += f" {AT_LIMIT}" if any(map(_left_at_limit, sessions)) else ""
    return f'<h2>Sample sessions</h2><p class="note">{note}</p>{shown}'


def _user(user: object, sessions: Sequence[Row], full: float, mark: str | None) -> str:
    likes = ", ".join(text(title) for title in sessions[0].get("likes", ()) if not _is_bare(title))
    longest = max(len(session["steps"]) for session in sessions)
    return (
        f"<h3>User {text(user)}</h3>"
        + (f'<p class="note">Nearest to the profile of this user: {likes}.</p>' if likes else "")
        + "".join(_session(session, full, longest, mark) for session in sessions)
        + f'<details class="items"><summary>The items shown to user {text(user)}</summary>'
        + "".join(_items(session) for session in sessions)
        + "</details>"
    )


def _session(session: Row, full: float, longest: int, mark: str | None) -> str:
    """The session's policy, return, end and strip."""
    policy, steps = str(session["policy"]), session["steps"]
    half = f'<hr style="bottom:{_share(0.5, full)}%"/>' if mark is not None else ""
    if _left_at_limit(session):
        ending = f">all {len(steps)} steps, left at the last"
    elif session["left"]:
        ending = f'class="left">left after step {len(steps)}'
    else:
        ending = ">stayed to the end"
    rewards = ", ".join(number(step["reward"], 2) for step in steps)
    return (
        f'<section class="session"><div><h4 class="policy {kind(policy)}">{text(policy)}</h4>'
        f"<p>return {number(session['return'], 1)}, <span {ending}</span></p></div>"
        f'<div class="strip {kind(policy)}" role="img" aria-label="rewards: {rewards}" '
        f'style="grid-template-columns:repeat({longest},1fr)">{half}'
        + "".join(_bar(step, full, mark) for step in steps)
        + "</div></section>"
    )


def _left_at_limit(session: Row) -> bool:
    """True if the user left at the last step that a session can have."""
    return bool(session["left"]) and len(session["steps"]) == session.get("limit")


def _bar(step: Row, full: float, mark: str | None) -> str:
    reward, felt = step["reward"], _hidden(step).get(mark or "")
    bar = f'<i style="height:{_share(reward, full)}%"></i>' if finite(reward) else ""
    tick = f'<u style="bottom:{_share(felt, full)}%"></u>' if isinstance(felt, float) and finite(felt) else ""
    return f"<span>{bar}{tick}</span>"


def _share(value: float, full: float) -> str:
    return f"{100 * min(max(value / full, 0.0), 1.0):.0f}"


def _items(session: Row) -> str:
    """The session's items as cards, or one sentence if they have neither titles nor attributes."""
    policy, steps = str(session["policy"]), session["steps"]
    head = f'<h4 class="policy {kind(policy)}">{text(policy)}</h4>'
    if not any(_about(step) or not _is_bare(step["title"]) for step in steps):
        distinct = len({step["title"] for step in steps if step["title"]})
        counted = f"{distinct} different items" if distinct != 1 else "the same item each time"
        if any("places" in step for step in steps):
            counted = f"{sum(bool(step['title']) for step in steps)} items chosen from slates"
        return f'{head}<p class="note">{len(steps)} steps, {counted}, without a title.</p>'
    cards, first = "", 1
    for _, alike in groupby(enumerate(steps), key=lambda at: (at[1]["title"], "places" in at[1] and at[0])):
        run = [step for _, step in alike]
        cards += _card(first, run)
        first += len(run)
    if session["left"] and not _left_at_limit(session):
        cards += '<li class="card gone">The user left</li>'
    label = text(f"Items that {policy} showed to user {session['user']}")
    return f'{head}<ol class="cards" tabindex="0" aria-label="{label}">{cards}</ol>'


def _card(first: int, run: Sequence[Row]) -> str:
    """One item, shown in one step or in several consecutive steps; the numbers are means over these."""
    step = run[0]
    about = _about(step)
    title, about = (about, step["title"]) if _is_bare(step["title"]) and about else (step["title"], about)
    if "places" in step:
        title, about = _of_slate(step, title, about)
    when = f"{first}" if len(run) == 1 else f"{first} to {first + len(run) - 1}"
    said = "".join(
        f"<span>{text(name)} {number(mean, 2)}</span>"
        for name in ("reward", *_hidden(step))
        if (mean := _mean([_hidden(member).get(name, member.get(name)) for member in run])) is not None
        or name == "reward"
    )
    said += "".join(f"<span>{text(signal)}</span>" for signal in _signals(step.get("visible") or {}))
    return (
        f'<li class="card"><span class="when">step {when}</span><span class="title">{text(title)}</span>'
        f'<span class="about">{text(about)}</span>{_ended(step)}<span class="reaction">{said}</span></li>'
    )


def _of_slate(step: Row, title: str, about: str) -> tuple[str, str]:
    """Title and description of a step whose user chose an item of a slate, or none."""
    if step["place"] is None:
        goes_on = step.get("goes_on")
        return (f"{goes_on} goes on" if goes_on else "Nothing chosen"), f"{step['places']} items shown"
    return title, f"place {step['place']} of {step['places']}" + (f" · {about}" if about else "")


def _ended(step: Row) -> str:
    """The entries that this step added to the history."""
    return "".join(
        f'<span class="about">ended: {text(", ".join([event["title"], *_signals(event["visible"])]))}</span>'
        for event in step.get("events") or ()
    )


def _signals(values: Row) -> list[str]:
    return [f"{name} {number(value, 2)}" for name, value in values.items()]


def _hidden(step: Row) -> Mapping[str, object]:
    """The signals that no recommender sees, by name."""
    return step.get("hidden") or {}


def _about(step: Row) -> str:
    """Year and genres: ``1996 · Crime, Drama``."""
    year = step.get("year")
    in_title = f"({year})" in str(step["title"])  # as in many titles
    parts = [str(year)] if finite(year) and not in_title else []
    return " · ".join([*parts, *filter(None, [", ".join(step.get("genres", ()))])])


def _mean(values: Sequence[object]) -> float | None:
    numbers = [value for value in values if isinstance(value, int | float) and finite(value)]
    return sum(numbers) / len(numbers) if numbers else None


def _is_bare(title: object) -> bool:
    """True if a title is empty, or only the number of an item or of several items."""
    return re.fullmatch(r"(item -?\d+(, item -?\d+)*)?", str(title)) is not None


SAMPLES = Picture("samples", samples, samples_html)

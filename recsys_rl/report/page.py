"""The report of one run: a single HTML page without network, script or outside file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from recsys_rl.report import charts
from recsys_rl.report.drawing import PALETTE_CSS, decimals, finite, kind, number, text
from recsys_rl.types import UserError
from recsys_rl.utils.files import write_text

Row = Mapping[str, Any]


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write the page to ``path``; an old page stays whole until the new one is.

    ``report`` is what ``evaluate`` found, as JSON would hold it: ``env``, ``algo``, ``data``, ``seed``,
    ``step`` (environment steps trained), ``heldout_users``, ``hardware``, ``date``, ``version``;
    ``config`` {section: {field: value}}; ``rows``, one for each policy (``policy``, ``return_mean``,
    ``return_low``, ``return_high``, ``length_mean``, ``distinct_mean``, ``coverage`` in [0, 1]);
    ``paired`` (``policy``, ``versus``, ``mean``, ``low``, ``high``); ``curve`` (``step``, ``mean``,
    ``low``, ``high``) with ``references`` {policy: return}; ``sessions`` (``policy``, ``user``,
    ``likes``, the titles nearest to the user's profile, ``return``, ``left``, ``steps`` of ``title``,
    ``year``, ``genres``, ``reward`` and ``satisfaction``, both usually in [0, 1]). Numbers may be None
    or NaN: the page says so with a dash.
    Raises UserError where the file can't be written.
    """
    write_text(path, _page(report))


def _page(report: Mapping[str, Any]) -> str:
    style = PALETTE_CSS + resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        # The page needs nothing from anywhere; this makes browsers hold it to that.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\"/>"
        f"<title>{text(report['algo'])} on {text(report['env'])}: recsys_rl report</title>"
        f"<style>{style}</style></head><body><main>{_header(report)}{_curve(report)}{_returns(report)}"
        f"{_sessions(report.get('sessions', ()))}{_config(report.get('config', {}))}</main></body></html>\n"
    )


def _unit(report: Mapping[str, Any]) -> str:
    """What one return is the sum of: other people's environments have episodes and seeds, not users."""
    return "episode" if str(report["env"]).startswith("gym:") else "session"


def _header(report: Mapping[str, Any]) -> str:
    """One sentence: what was trained, and where it stands beside baseline and planner."""
    ranked = [row for row in charts.by_return(report["rows"]) if finite(row["return_mean"])]
    rows = {str(row["policy"]): row for row in ranked}
    algo = str(report["algo"])
    ours = rows.get(f"{algo}-greedy") or rows.get(algo)
    simple = next((row for name, row in rows.items() if kind(name) == "baseline"), None)
    bound = rows.get("planner") or rows.get("oracle")
    places = decimals([row["return_mean"] for row in (ours, simple, bound) if row])
    steps, env = number(report["step"], 0), text(report["env"])
    who = text(algo if ours is None else ours["policy"])
    sentence = f"{who}, trained for {steps} steps on <b>{env}</b>, "
    if ours is None:
        sentence += "has no finite return"
    elif _unit(report) == "episode":
        sentence += f"earns {_big(ours, places)} per episode on unseen seeds"
    else:
        people = number(report.get("heldout_users"), 0)
        sentence += f"earns {_big(ours, places)} per session from {people} users it never met"
    against = []
    if simple is not None:
        against.append(f"the best simple baseline, {text(simple['policy'])}, earns {_big(simple, places)}")
    if bound is not None:
        against.append(f"the {text(bound['policy'])}, which sees inside the simulator, {_big(bound, places)}")
    sentence += ("; " + ", and ".join(against) if against else "") + "."
    facts = {
        "Data": report.get("data"),
        "Seed": report.get("seed"),
        "Hardware": report.get("hardware"),
        "Written": report.get("date"),
        "recsys_rl": report.get("version"),
    }
    shown = "".join(f"<span>{name}: {text(v)}</span>" for name, v in facts.items() if v not in (None, ""))
    return f'<header><h1>{sentence}</h1><p class="facts">{shown}</p></header>'


def _big(row: Row, places: int) -> str:
    return f'<b class="{kind(str(row["policy"]))}">{number(row["return_mean"], places)}</b>'


def _sizes(draw: Callable[[int], str]) -> str:
    """One chart for a phone, a tablet and a desk, so that text keeps its size; the style sheet shows one."""
    sizes = {"narrow": 358, "medium": 760, "wide": 1072}
    return "".join(
        draw(px).replace('class="chart"', f'class="chart {name}"', 1) for name, px in sizes.items()
    )


def _curve(report: Mapping[str, Any]) -> str:
    curve, references = report.get("curve") or {}, report.get("references") or {}
    name = f"{report['algo']}-greedy"
    lost = len(curve.get("step", ())) - len(charts.curve_points(curve))
    missing = f" Left out, because they gave no finite number: {lost} of the evaluations." if lost else ""
    note = (
        "Mean return of the evaluations during training, on training users; the band is the 95 % interval, "
        f"dashed lines are what other policies reach with the held-out users of this report.{missing}"
    )
    try:
        drawn = _sizes(lambda px: charts.learning_curve_svg(curve, references, name=name, width=px))
    except UserError as error:
        return f'<h2>Learning curve</h2><p class="plain">{text(error)}{missing}</p>'
    return f'<h2>Learning curve</h2><p class="note">{note}</p>{drawn}'


def _returns(report: Mapping[str, Any]) -> str:
    rows, unit = charts.by_return(report["rows"]), _unit(report)
    whose = "session for each user" if unit == "session" else "episode for each seed"
    note = f"Mean return of one whole {whose}; the line across a bar's end is the 95 % interval."
    try:
        drawn = _sizes(lambda px: charts.returns_chart_svg(rows, width=px))
    except UserError as error:
        return f'<h2>Returns</h2><p class="plain">{text(error)}</p>'
    places = decimals([row[key] for row in rows for key in charts.RETURN if finite(row[key])])
    pairs = "".join(f"<li>{_pair(pair, places, unit)}</li>" for pair in report.get("paired", ()))
    paired = f'<h3>Differences, paired</h3><ul class="pairs">{pairs}</ul>' if pairs else ""
    return f'<h2>Returns</h2><p class="note">{note}</p>{drawn}{_table(rows, places)}{paired}'


def _table(rows: Sequence[Row], places: int) -> str:
    """The chart's numbers and the rest; a column that no row has a number for is left out."""
    columns = {"length_mean": "Length", "distinct_mean": "Distinct", "coverage": "Coverage"}
    known = [name for name in columns if any(finite(row.get(name)) for row in rows)]
    head = "".join(f'<th scope="col">{columns[name]}</th>' for name in known)
    body = ""
    for row in rows:
        policy = str(row["policy"])
        body += (
            f'<tr class="{kind(policy)}"><th scope="row">{text(policy)}</th>'
            f"<td>{number(row['return_mean'], places)} <small>{charts.interval(row, places)}</small></td>"
            + "".join(
                f"<td>{_share(row) if name == 'coverage' else number(row.get(name), 1)}</td>"
                for name in known
            )
            + "</tr>"
        )
    return (
        '<div class="wide-table"><table><caption class="hidden">Each policy in numbers</caption><thead><tr>'
        f'<th scope="col">Policy</th><th scope="col">Return</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _share(row: Row) -> str:
    share = row.get("coverage")
    if share is None or not finite(share):
        return "–"
    return f"{number(100 * share, 0 if share >= 0.01 else 1)} %"


def _pair(pair: Row, places: int, unit: str) -> str:
    names = f"{text(pair['policy'])} against {text(pair['versus'])}"
    if not all(finite(pair[key]) for key in ("mean", "low", "high")):
        return f"{names}: no number."
    low, high = number(pair["low"], places), number(pair["high"], places)
    size = number(abs(pair["mean"]), places)
    word = "more" if pair["mean"] >= 0 else "less"
    doubt = ", which is no clear difference" if pair["low"] <= 0 <= pair["high"] else ""
    return f"{names}: <b>{size} {word}</b> per {unit} (95 % interval {low} to {high}){doubt}."


def _sessions(sessions: Sequence[Row]) -> str:
    if not sessions:
        return ""
    rewards = [step["reward"] for session in sessions for step in session["steps"] if finite(step["reward"])]
    full = max(1.0, *rewards) if rewards else 1.0
    users: dict[Any, list[Row]] = {}
    for session in sessions:
        users.setdefault(session["user"], []).append(session)
    key = (
        '<span class="track key" aria-hidden="true"><i style="width:62%"></i><u style="left:82%"></u></span>'
    )
    return (
        '<h2>Sample sessions</h2><p class="note">What was shown, in order, and how the user reacted: '
        f"{key} the bar and its number are the reward, the tick is satisfaction.</p>"
        + "".join(_user(user, together, full) for user, together in users.items())
    )


def _user(user: object, sessions: Sequence[Row], full: float) -> str:
    likes = ", ".join(text(title) for title in sessions[0].get("likes", ()))
    return (
        f"<h3>User {text(user)}</h3>"
        + (f'<p class="note">Nearest to what is known of this user: {likes}.</p>' if likes else "")
        + "".join(_session(session, full) for session in sessions)
    )


def _session(session: Row, full: float) -> str:
    policy, steps = str(session["policy"]), session["steps"]
    ending = f'class="left">left after step {len(steps)}' if session["left"] else ">stayed to the end"
    cards = "".join(_card(index, step, full) for index, step in enumerate(steps, 1))
    if session["left"]:
        cards += '<li class="card gone">The user left</li>'
    label = f"What {policy} showed user {session['user']}"
    return (
        f'<section class="session"><div><h4 class="policy {kind(policy)}">{text(policy)}</h4>'
        f"<p>return {number(session['return'], 1)}</p><p {ending}</p></div>"
        f'<ol class="cards" tabindex="0" aria-label="{text(label)}">{cards}</ol></section>'
    )


def _card(index: int, step: Row, full: float) -> str:
    year = step.get("year")
    known = finite(year) and f"({year})" not in str(step["title"])  # many titles carry their year
    about = [text(year)] if known else []
    about += [", ".join(text(genre) for genre in step.get("genres", ()))]
    reward, felt = step["reward"], step.get("satisfaction")
    bar = f'<i style="width:{_percent(reward, full)}%"></i>' if finite(reward) else ""
    said = f'<span class="hidden">reward </span>{number(reward, 2)}'
    if felt is not None and finite(felt):
        bar += f'<u style="left:{_percent(felt, full)}%"></u>'
        said += f'<span class="hidden">, satisfaction {number(felt, 2)}</span>'
    return (
        f'<li class="card" title="step {index}"><span class="title">{text(step["title"])}</span>'
        f'<span class="about">{" · ".join(part for part in about if part)}</span>'
        f'<span class="reaction"><span class="track" aria-hidden="true">{bar}</span>'
        f"<span>{said}</span></span></li>"
    )


def _percent(value: float, full: float) -> str:
    return f"{100 * min(max(value / full, 0.0), 1.0):.0f}"


def _config(config: Mapping[str, Mapping[str, Any]]) -> str:
    if not config:
        return ""
    sections = "".join(
        f"<section><h3>{text(name)}</h3><table><tbody>"
        + "".join(f'<tr><th scope="row">{text(k)}</th><td>{text(v)}</td></tr>' for k, v in fields.items())
        + "</tbody></table></section>"
        for name, fields in config.items()
    )
    return f'<details><summary>Configuration</summary><div class="sections">{sections}</div></details>'

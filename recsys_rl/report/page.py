"""The report of one run: a single HTML page without network, scripts or other files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from recsys_rl.records import KNOWS
from recsys_rl.report import charts, words
from recsys_rl.report.categories import categories_html
from recsys_rl.report.drawing import PALETTE_CSS, decimals, finite, kind, number, signed, sizes, text
from recsys_rl.report.exposure import exposure_html
from recsys_rl.report.regret import regret_html
from recsys_rl.report.sessions import sessions_html
from recsys_rl.types import UserError
from recsys_rl.utils.files import write_text

Row = Mapping[str, Any]
SHARES = ("coverage", "d1", "d7", "d30", "churn")  # columns in per cent


CURVES = {
    "log": (
        "on the log",
        "The line on the log is the estimate of ope{by} for held-out users of a log. Where it falls while "
        "the return inside rises, the policy learns the errors of its users.",
    ),
    "world": (
        "in the world",
        "The line in the world is the mean return in the platform of --world.",
    ),
}
"""Names in the chart of further learning curves, and what they are."""


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write the page to ``path``. An old page stays until the new one is complete.

    ``report`` is the result of ``evaluate`` in JSON values: ``env``, ``algo``, ``data``, ``seed``,
    ``step`` (environment steps trained), ``heldout_users`` (their number), ``hardware``, ``date``,
    ``version``; ``config`` {section: {field: value}}; ``rows``, one for each policy (``policy``,
    ``return_mean``, ``return_low``, ``return_high``, ``length_mean``, ``distinct_mean``, ``coverage`` in
    [0, 1], ``users`` if fewer played, ``streams`` {name: mean} if there are several, and of lives
    ``active_days`` and, in [0, 1], ``d1``, ``d7``, ``d30`` and ``churn``); ``paired``
    (``policy``, ``versus``, ``mean``, ``low``, ``high``); ``curve`` (``step``, ``mean``, ``low``, ``high``),
    of training users; ``curves``, optional, further ones by name: "log", of `ope` on a log, by the estimator
    ``judged_by``, and "world", of another world; ``sessions`` (``policy``, ``user``, ``likes``, the titles
    nearest to the user's profile, ``return``, ``left``, ``limit``, the steps of the longest session if that
    is known, ``steps`` of ``title``, ``year``, ``genres``, ``reward`` and ``hidden``, by name the signals
    that no recommender sees, all usually in [0, 1]; of the item that a user chose from a slate also
    ``place``, None without a choice, and ``places``, ``visible`` signals by name, ``goes_on``, the title of
    an item chosen before, and ``events``, each with ``title`` and ``visible``).
    Optional: ``data_check``, a sentence about the data; ``learned``, the policies of checkpoints (default:
    ``algo`` and its ``-greedy``); ``yardstick``, a policy's name; ``shares`` of the way between two policies
    (``policy``, ``from``, ``to``, ``share``, ``low``, ``high``); ``notes`` {policy: a sentence with tuned
    values};
    ``gains`` over other policies (``policy``, ``versus``, ``gain``, ``low``, ``high``);
    ``knows_equations``, policies with that mark;
    ``tick``, the hidden signal of the ticks in sessions, ``name`` and ``meaning``;
    ``planner_steps``, the largest number that the planner simulates, and the steps of a session;
    ``categories``, a result of ``evaluation.categories``, or None for a sentence in place of the picture;
    of the rows ``creator_gini``, in [0, 1], and ``limit_streams`` {name: mean};
    ``world`` and ``trained_on``, if the world of the rows is another than that of the training: a text about
    it, and the environments of the training;
    ``everyone``, True if the users of the table are those of the training;
    ``new_users``, if the users are those of a file: its name ``file``, and ``about`` their events;
    ``regret_by_step``, a result of ``evaluation.regret``.
    Numbers may be None or NaN: the page shows a dash. Raises UserError if the file can't be written.
    """
    write_text(path, _page(report))


def _page(report: Mapping[str, Any]) -> str:
    world = report.get("world", report["env"])
    style = PALETTE_CSS + resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        # The page loads nothing; with this line a browser refuses every request.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\"/>"
        f"<title>{text(report['algo'])} on {text(world)}: recsys_rl report</title>"
        f"<style>{style}</style></head><body><main>{_header(report)}{_returns(report)}"
        f"{regret_html(report)}{_curve(report)}"
        f"{exposure_html(charts.by_return(report['rows']))}"
        f"{categories_html(report['categories']) if 'categories' in report else ''}"
        f"{sessions_html(report.get('sessions', ()), words.has_lives(report), report.get('tick'))}"
        f"{_config(report.get('config', {}))}"
        "</main></body></html>\n"
    )


def _header(report: Mapping[str, Any]) -> str:
    """One sentence: the run, and its place between the yardstick and the planner."""
    ranked = [row for row in charts.by_return(report["rows"]) if finite(row["return_mean"])]
    rows = {str(row["policy"]): row for row in ranked}
    algo = str(report["algo"])
    ours = rows.get(f"{algo}-greedy") or rows.get(algo)
    yardstick = rows.get(str(report.get("yardstick")))
    simple = yardstick or next((row for name, row in rows.items() if kind(name) == "baseline"), None)
    bound = rows.get("planner") or rows.get("oracle")
    places = decimals([row["return_mean"] for row in (ours, simple, bound) if row])
    steps, env = number(report["step"], 0), text(" and ".join(report.get("trained_on", [report["env"]])))
    name = text(algo if ours is None else ours["policy"])
    sentence = f"{name}, trained for {steps} steps on <b>{env}</b>, "
    if "world" in report:
        sentence += f"played in <b>{text(report['world'])}</b>, "
    if ours is None:
        sentence += "has no finite return"
    elif words.is_foreign(report):
        sentence += f"earns {_big(ours, places)} per episode on unseen seeds"
    else:
        count = report.get("heldout_users")
        people = f"{number(count, 0)} {text(words.people(report, count))}"
        sentence += f"earns {_big(ours, places)} per {_unit(report)} from {people}"
    against = []
    if simple is not None:
        title = "best simple baseline" if yardstick is None else "yardstick"
        against.append(f"the {title}, {text(simple['policy'])}, earns {_big(simple, places)}")
    if bound is not None:
        against.append(f"the {text(bound['policy'])}, which sees inside the simulator, {_big(bound, places)}")
    sentence += ("; " + ", and ".join(against) if against else "") + "."
    facts = {
        "Data": report.get("data"),
        "Check of the data": report.get("data_check"),
        "Users": report.get("new_users", {}).get("about"),
        "Seed": report.get("seed"),
        "Hardware": report.get("hardware"),
        "Written": report.get("date"),
        "recsys_rl": report.get("version"),
    }
    shown = "".join(f"<span>{name}: {text(v)}</span>" for name, v in facts.items() if v not in (None, ""))
    return f'<header><h1>{sentence}</h1><p class="facts">{shown}</p></header>'


def _big(row: Row, places: int) -> str:
    return f'<b class="{kind(str(row["policy"]))}">{number(row["return_mean"], places)}</b>'


def _unit(report: Mapping[str, Any]) -> str:
    return "life" if words.has_lives(report) else "session"


def _returns(report: Mapping[str, Any]) -> str:
    """The chart, the table, the differences, and the definitions of all rows and columns."""
    rows, foreign = charts.by_return(report["rows"]), words.is_foreign(report)
    yardstick = report.get("yardstick")
    note = words.population(report, rows)
    try:
        drawn = sizes(lambda px: charts.returns_chart_svg(rows, yardstick=yardstick, width=px))
    except UserError as error:
        return f'<h2>Returns</h2><p class="plain">{text(error)}</p>'
    places = decimals([row[key] for row in rows for key in charts.RETURN if finite(row[key])])
    unit = "episode" if foreign else _unit(report)
    gains = {(x["policy"], x["versus"]): x for x in report.get("gains", ()) if finite(x["gain"])}
    pairs = []
    for pair in report.get("paired", ()):
        gain = gains.pop((pair["policy"], pair["versus"]), None)
        pairs.append(_pair(pair, places + 1, unit, gain) + _whose(pair, report))
    pairs += [_way(share) + _whose(share, report) for share in report.get("shares", ())]
    pairs += [_over(gain) + _whose(gain, report) for gain in gains.values()]
    table = _table(rows, places, yardstick, report.get("knows_equations", ()))
    one = "seed" if foreign else "user"
    listed = "".join(f"<li>{pair}.</li>" for pair in pairs)
    paired = f'<h3>Differences, {one} by {one}</h3><ul class="pairs">{listed}</ul>'
    return (
        f'<h2>Returns</h2><p class="note">{text(note)}</p>{drawn}{table}'
        f"{paired if pairs else ''}{_definitions(report, rows)}"
    )


def _columns(rows: Sequence[Row]) -> dict[str, str]:
    """Keys and heads of the columns after the return, without columns that have no number in any row."""
    columns = {"length_mean": "Length", "distinct_mean": "Distinct", "coverage": "Coverage"}
    columns |= {"active_days": "Active days", "d1": "D1", "d7": "D7", "d30": "D30", "churn": "Churn"}
    return {name: head for name, head in columns.items() if any(finite(row.get(name)) for row in rows)}


def _streams(rows: Sequence[Row]) -> list[str]:
    """Names of the reward streams, each a column; [] where there is only one."""
    return list(dict.fromkeys(name for row in rows for name in row.get("streams") or ()))


def _table(rows: Sequence[Row], places: int, yardstick: str | None, knowing: Sequence[str] = ()) -> str:
    """The numbers of the chart and of the other columns."""
    known, streams = _columns(rows), _streams(rows)
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in (*known.values(), *streams))
    body = ""
    for row in rows:
        policy = str(row["policy"])
        mark = " <small>yardstick</small>" if policy == yardstick else ""
        mark += f" <small>{KNOWS}</small>" if policy in knowing else ""
        body += (
            f'<tr class="{kind(policy)}"><th scope="row">{text(policy)}{mark}</th>'
            f"<td>{number(row['return_mean'], places)} <small>{charts.interval(row, places)}</small></td>"
            + "".join(
                f"<td>{_percent(row.get(name)) if name in SHARES else number(row.get(name), 1)}</td>"
                for name in known
            )
            + "".join(f"<td>{number((row.get('streams') or {}).get(name), places)}</td>" for name in streams)
            + "</tr>"
        )
    return (
        '<div class="wide-table"><table><caption class="hidden">Each policy in numbers</caption><thead><tr>'
        f'<th scope="col">Policy</th><th scope="col">Return</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _percent(share: float | None) -> str:
    if share is None or not finite(share):
        return "–"
    return f"{number(100 * share, 0 if abs(share) >= 0.01 else 1)} %"


def _whose(row: Row, report: Mapping[str, Any]) -> str:
    return text(words.fewer_users(row, report["heldout_users"], report)) if "users" in row else ""


def _pair(pair: Row, places: int, unit: str, gain: Row | None) -> str:
    """``ppo against rule: +1.84 per session (95 % interval +0.92 to +2.71), +12 %``; ``gain``: its 12 %."""
    names = f"{text(pair['policy'])} against {text(pair['versus'])}"
    if not finite(pair["mean"]):
        return f"{names}: no number"
    percent = "" if gain is None else f", {_signed_percent(gain['gain'])} %"
    low, high = (signed(pair[end], places) if finite(pair[end]) else "" for end in ("low", "high"))
    bounds = f"95 % interval {low} to {high}" if low and high else "no interval"
    return f"{names}: <b>{signed(pair['mean'], places)}</b> per {unit} ({bounds}){percent}{_doubt(pair)}"


def _over(gain: Row) -> str:
    """``ppo-greedy against rule: +22 % (95 % interval +18 to +27 %)``"""
    said = f"{text(gain['policy'])} against {text(gain['versus'])}: <b>{_signed_percent(gain['gain'])} %</b>"
    if not (finite(gain["low"]) and finite(gain["high"])):
        return said
    low, high = (signed(100 * gain[end], 0) for end in ("low", "high"))
    return f"{said} (95 % interval {low} to {high} %){_doubt(gain)}"


def _way(share: Row) -> str:
    """``ppo-greedy closes 66 % of the way from rule to planner (95 % interval 60 to 72 %)``"""
    way = f"of the way from {text(share['from'])} to {text(share['to'])}"
    if not finite(share["share"]):
        return f"{text(share['policy'])}: no number for the share {way}"
    low, high = (number(100 * share[key], 0) for key in ("low", "high"))
    known = finite(share["low"]) and finite(share["high"])
    bounds = f"95 % interval {low} to {high} %" if known else "no interval"
    if share["share"] < 0 and not words.in_doubt(share):
        return f"{text(share['policy'])} lies below {text(share['from'])}, and so closes nothing {way}"
    return f"{text(share['policy'])} closes <b>{_percent(share['share'])}</b> {way} ({bounds}){_doubt(share)}"


def _signed_percent(share: float) -> str:
    return signed(100 * share, 0 if abs(share) >= 0.1 else 1)


def _doubt(row: Row) -> str:
    return f", {words.NO_DIFFERENCE}" if words.in_doubt(row) else ""


def _definitions(report: Mapping[str, Any], rows: Sequence[Row]) -> str:
    foreign, algo, notes = words.is_foreign(report), str(report["algo"]), report.get("notes") or {}
    learned = report.get("learned") or (algo, f"{algo}-greedy")
    reach = words.planner_reach(report.get("planner_steps"))
    found = [
        (
            str(row["policy"]),
            words.define_policy(str(row["policy"]), learned, foreign, notes.get(row["policy"], ""), reach),
        )
        for row in rows
    ]
    if report.get("yardstick") is not None:
        found.append(
            ("yardstick", words.define_yardstick(report["yardstick"], [str(row["policy"]) for row in rows]))
        )
    lives, heads = words.has_lives(report), ("Return", *_columns(rows).values())
    found += [(head, words.define_column(head, foreign, lives)) for head in heads]
    found += [(name, words.STREAM.format(session=words.session(foreign, lives))) for name in _streams(rows)]
    listed = "".join(f"<div><dt>{text(name)}</dt><dd>{text(meaning)}</dd></div>" for name, meaning in found)
    return f'<details open="open"><summary>Rows and columns defined</summary><dl>{listed}</dl></details>'


def _curve(report: Mapping[str, Any]) -> str:
    curve = report.get("curve") or {}
    lost = len(curve.get("step", ())) - len(charts.curve_points(curve))
    missing = f" Not drawn, without a finite number: {lost} of the evaluations." if lost else ""
    over = f"training users, always the same; the returns above are over {text(words.people(report))}"
    if words.is_foreign(report):
        over = "episodes on seeds of their own"
    if "world" in report:
        over += ", and are of another world than this curve"
    if words.has_lives(report):
        over += "; each point is of single visits, and the returns above are of whole lives"
    note = (
        f"Mean return of the greedy policy during training, and its 95 % interval as a band, over {over}."
        f"{missing}"
    )
    others = {CURVES[name][0]: found for name, found in (report.get("curves") or {}).items()}
    by = f", by {text(report['judged_by'])}," if report.get("judged_by") else ""
    note += "".join(f" {CURVES[name][1].format(by=by)}" for name in report.get("curves") or {})
    try:
        name = "inside" if others else f"{report['algo']}-greedy"
        drawn = sizes(lambda px: charts.learning_curve_svg(curve, {}, name=name, width=px, others=others))
    except UserError as error:
        return f'<h2>Learning curve</h2><p class="plain">{text(error)}{missing}</p>'
    return f'<h2>Learning curve</h2><p class="note">{note}</p>{drawn}'


def _config(config: Mapping[str, Mapping[str, Any]]) -> str:
    if not config:
        return ""
    sections = "".join(
        f"<section><h3>{text(name)}</h3><table><tbody>"
        + "".join(f'<tr><th scope="row">{text(k)}</th><td>{text(v)}</td></tr>' for k, v in fields.items())
        + "</tbody></table></section>"
        for name, fields in config.items()
    )
    return (
        '<details class="config"><summary>Configuration</summary>'
        f'<div class="sections">{sections}</div></details>'
    )

"""The report of one run: a single HTML page without network, scripts or other files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from recsys_rl.evaluation.report import charts, words
from recsys_rl.evaluation.report.categories import categories_html
from recsys_rl.evaluation.report.columns import known
from recsys_rl.evaluation.report.drawing import (
    PALETTE_CSS,
    decimals,
    finite,
    kind,
    number,
    signed,
    sizes,
    text,
)
from recsys_rl.evaluation.report.exposure import exposure_html
from recsys_rl.evaluation.report.page import Page, Row
from recsys_rl.evaluation.report.regret import regret_html
from recsys_rl.evaluation.report.sessions import sessions_html
from recsys_rl.evaluation.report.streams import streams_html
from recsys_rl.types import UserError
from recsys_rl.utils.files import write_text

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


def write_report(path: Path, page: Page) -> None:
    """Write the page to ``path``. An old page stays until the new one is complete.

    Raises UserError if the file can't be written.
    """
    write_text(path, _html(page))


def _html(page: Page) -> str:
    title = f"{page.algo} on {page.world or page.env}: recsys_rl report"
    return document(
        title,
        f"{_header(page)}{_returns(page)}"
        f"{regret_html(page.regret_by_step, page.yardstick)}{_curve(page)}"
        f"{streams_html(page.stream_curves, page.yardstick)}"
        f"{exposure_html(charts.by_return(page.rows))}"
        f"{categories_html(page.categories)}"
        f"{sessions_html(page.sessions, words.has_lives(page.rows), page.tick)}{_config(page.config)}",
    )


def document(title: str, body: str) -> str:
    """The whole file of a page. ``title`` is any text, ``body`` HTML."""
    style = PALETTE_CSS + resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        # The page loads nothing; with this line a browser refuses every request.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\"/>"
        f"<title>{text(title)}</title>"
        f"<style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def _header(page: Page) -> str:
    """One sentence: the run, and its place between the yardstick and the planner."""
    ranked = [row for row in charts.by_return(page.rows) if finite(row["return_mean"])]
    rows = {str(row["policy"]): row for row in ranked}
    ours = rows.get(f"{page.algo}-greedy") or rows.get(page.algo)
    yardstick = rows.get(page.yardstick or "")
    simple = yardstick or next((row for name, row in rows.items() if kind(name) == "baseline"), None)
    bound = rows.get("planner") or rows.get("oracle")
    places = decimals([row["return_mean"] for row in (ours, simple, bound) if row])
    steps, env = number(page.step, 0), text(" and ".join(page.trained_on or [page.env]))
    name = text(page.algo if ours is None else ours["policy"])
    sentence = f"{name}, trained for {steps} steps on <b>{env}</b>, "
    if page.world:
        sentence += f"played in <b>{text(page.world)}</b>, "
    if ours is None:
        sentence += "has no finite return"
    elif words.is_foreign(page.rows):
        sentence += f"earns {_big(ours, places)} per episode on unseen seeds"
    else:
        people = f"{number(page.heldout_users, 0)} {text(words.people_of(page, page.heldout_users))}"
        sentence += f"earns {_big(ours, places)} per {_unit(page)} from {people}"
    against = []
    if simple is not None:
        title = "best simple baseline" if yardstick is None else "yardstick"
        against.append(f"the {title}, {text(simple['policy'])}, earns {_big(simple, places)}")
    if bound is not None:
        against.append(f"the {text(bound['policy'])}, which sees inside the simulator, {_big(bound, places)}")
    sentence += ("; " + ", and ".join(against) if against else "") + "."
    facts = {
        "Data": page.data,
        "Check of the data": page.data_check,
        "Users": (page.new_users or {}).get("about"),
        "Seed": page.seed,
        "Hardware": page.hardware,
        "Written": page.date,
        "recsys_rl": page.version,
    }
    shown = "".join(f"<span>{name}: {text(v)}</span>" for name, v in facts.items() if v not in (None, ""))
    return f'<header><h1>{sentence}</h1><p class="facts">{shown}</p></header>'


def _big(row: Row, places: int) -> str:
    return f'<b class="{kind(str(row["policy"]))}">{number(row["return_mean"], places)}</b>'


def _unit(page: Page) -> str:
    return "life" if words.has_lives(page.rows) else "session"


def _returns(page: Page) -> str:
    """The chart, the table, the differences, and the definitions of all rows and columns."""
    rows, foreign = charts.by_return(page.rows), words.is_foreign(page.rows)
    yardstick, note = page.yardstick, words.population(page, rows)
    try:
        drawn = sizes(lambda px: charts.returns_chart_svg(rows, yardstick=yardstick, width=px))
    except UserError as error:
        return f'<h2>Returns</h2><p class="plain">{text(error)}</p>'
    places = decimals([row[key] for row in rows for key in charts.RETURN if finite(row[key])])
    unit = "episode" if foreign else _unit(page)
    gains = {(gain["policy"], gain["versus"]): gain for gain in page.gains if finite(gain["gain"])}
    pairs = []
    for pair in page.paired:
        gain = gains.pop((pair["policy"], pair["versus"]), None)
        pairs.append(_pair(pair, places + 1, unit, gain) + _whose(pair, page))
    pairs += [_way(share) + _whose(share, page) for share in page.shares]
    pairs += [_over(gain) + _whose(gain, page) for gain in gains.values()]
    table = _table(rows, places, yardstick)
    one = "seed" if foreign else "user"
    listed = "".join(f"<li>{pair}.</li>" for pair in pairs)
    paired = f'<h3>Differences, {one} by {one}</h3><ul class="pairs">{listed}</ul>'
    return (
        f'<h2>Returns</h2><p class="note">{text(note)}</p>{drawn}{table}'
        f"{paired if pairs else ''}{_definitions(page, rows)}"
    )


def _streams(rows: Sequence[Row]) -> list[str]:
    """Names of the reward streams, each a column; [] where there is only one."""
    return list(dict.fromkeys(name for row in rows for name in row.get("streams") or ()))


def _table(rows: Sequence[Row], places: int, yardstick: str | None) -> str:
    """The numbers of the chart and of the other columns."""
    columns, streams = known(rows), _streams(rows)
    heads = (*(column.head for column in columns), *streams)
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
    body = ""
    for row in rows:
        policy = str(row["policy"])
        mark = " <small>yardstick</small>" if policy == yardstick else ""
        body += (
            f'<tr class="{kind(policy)}"><th scope="row">{text(policy)}{mark}</th>'
            f"<td>{number(row['return_mean'], places)} <small>{charts.interval(row, places)}</small></td>"
            + "".join(
                f"<td>{_percent(row.get(of.key)) if of.share else number(row.get(of.key), 1)}</td>"
                for of in columns
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


def _whose(row: Row, page: Page) -> str:
    return text(words.fewer_users(row, page.heldout_users, words.people_of(page, page.heldout_users)))


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


def _definitions(page: Page, rows: Sequence[Row]) -> str:
    foreign, learned = words.is_foreign(page.rows), page.learned or (page.algo, f"{page.algo}-greedy")
    reach, policies = words.planner_reach(page.planner_steps), [str(row["policy"]) for row in rows]
    definitions = [
        (policy, words.define_policy(policy, learned, foreign, page.notes.get(policy, ""), reach))
        for policy in policies
    ]
    if page.yardstick is not None:
        definitions.append(("yardstick", words.define_yardstick(page.yardstick, policies)))
    lives = words.has_lives(page.rows)
    meanings = {"Return": words.RETURN, **{column.head: column.meaning for column in known(rows)}}
    definitions += [(head, words.define_column(of, foreign, lives)) for head, of in meanings.items()]
    definitions += [
        (name, words.STREAM.format(session=words.session(foreign, lives))) for name in _streams(rows)
    ]
    listed = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(meaning)}</dd></div>" for name, meaning in definitions
    )
    return f'<details open="open"><summary>Rows and columns defined</summary><dl>{listed}</dl></details>'


def _curve(page: Page) -> str:
    lost = len(page.curve.get("step", ())) - len(charts.curve_points(page.curve))
    missing = f" Not drawn, without a finite number: {lost} of the evaluations." if lost else ""
    over = f"training users, always the same; the returns above are over {text(words.people_of(page))}"
    if words.is_foreign(page.rows):
        over = "episodes on seeds of their own"
    if page.world:
        over += ", and are of another world than this curve"
    if words.has_lives(page.rows):
        over += "; each point is of single visits, and the returns above are of whole lives"
    note = (
        f"Mean return of the greedy policy during training, and its 95 % interval as a band, over {over}."
        f"{missing}"
    )
    others = {CURVES[name][0]: curve for name, curve in page.curves.items()}
    by = f", by {text(page.judged_by)}," if page.judged_by else ""
    note += "".join(f" {CURVES[name][1].format(by=by)}" for name in page.curves)
    try:
        name = "inside" if others else f"{page.algo}-greedy"
        drawn = sizes(
            lambda px: charts.learning_curve_svg(page.curve, {}, name=name, width=px, others=others)
        )
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

"""The returns on the page: their chart, the table, the differences, and all rows and columns defined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recsys_rl.evaluation.columns import Column, columns_of
from recsys_rl.evaluation.report import words
from recsys_rl.evaluation.report.drawing import (
    LETTER,
    Scale,
    by_return,
    decimals,
    finite,
    kind,
    number,
    percent,
    scale,
    short_name,
    signed,
    sizes,
    svg,
    text,
)
from recsys_rl.evaluation.report.page import Page, Row
from recsys_rl.types import UserError

RETURN = ("return_mean", "return_low", "return_high")
LONG_NOTE = 200
"""The most characters of a row's tuned values that the definitions show unfolded."""


def returns_html(page: Page) -> str:
    """The section of the page: the chart, the table, the differences, and all rows and columns defined."""
    rows, yardstick = by_return(page.rows), page.yardstick
    try:
        drawn = sizes(lambda px: returns_chart_svg(rows, yardstick=yardstick, width=px))
    except UserError as error:
        return f'<h2>Returns</h2><p class="plain">{text(error)}</p>'
    digits = decimals([row[key] for row in rows for key in RETURN if finite(row[key])])
    columns = [c for c in columns_of(rows) if any(finite(c.value(row)) for row in rows)]
    gains = {(gain["policy"], gain["versus"]): gain for gain in page.gains if finite(gain["gain"])}
    pairs = []
    for pair in page.paired:
        gain = gains.pop((pair["policy"], pair["versus"]), None)
        pairs.append(_pair(pair, digits + 1, words.unit(page), gain) + _whose(pair, page))
    pairs += [_way(share) + _whose(share, page) for share in page.shares]
    pairs += [_over(gain) + _whose(gain, page) for gain in gains.values()]
    one = "seed" if page.foreign else "user"
    listed = "".join(f"<li>{pair}.</li>" for pair in pairs)
    paired = f'<h3>Differences, {one} by {one}</h3><ul class="pairs">{listed}</ul>'
    return (
        f'<h2>Returns</h2><p class="note">{text(words.population(page, rows))}</p>{drawn}'
        f"{_table(rows, columns, digits, yardstick)}{paired if pairs else ''}"
        f"{_definitions(page, rows, columns)}"
    )


def _table(rows: Sequence[Row], columns: Sequence[Column], digits: int, yardstick: str | None) -> str:
    """The numbers of the chart and of the other columns."""
    heads = "".join(f'<th scope="col">{text(column.head)}</th>' for column in columns)
    body = ""
    for row in rows:
        policy = str(row["policy"])
        mark = " <small>yardstick</small>" if policy == yardstick else ""
        cells = "".join(f"<td>{_cell(column, row, digits)}</td>" for column in columns)
        body += (
            f'<tr class="{kind(policy)}"><th scope="row">{text(policy)}{mark}</th>'
            f"<td>{number(row['return_mean'], digits)}</td>"
            f'<td class="interval">{interval(row, digits)}</td>{cells}</tr>'
        )
    return (
        '<div class="wide-table"><table><caption class="hidden">Each policy in numbers</caption><thead><tr>'
        '<th scope="col">Policy</th><th scope="col">Return</th>'
        f'<th scope="col" class="interval">95 % interval</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(column: Column, row: Row, digits: int) -> str:
    """A number of the table; ``digits``: those of the return."""
    value = column.value(row)
    return percent(value) if column.share else number(value, column.digits_beside(digits))


def _whose(row: Row, page: Page) -> str:
    return text(words.fewer_users(row, page.heldout_users, words.people_of(page, page.heldout_users)))


def _pair(pair: Row, digits: int, unit: str, gain: Row | None) -> str:
    """``ppo against rule: +1.84 per session (95 % interval +0.92 to +2.71), +12 %``; ``gain``: its 12 %."""
    names = f"{text(pair['policy'])} against {text(pair['versus'])}"
    if not finite(pair["mean"]):
        return f"{names}: no number"
    relative = "" if gain is None else f", {_signed_percent(gain['gain'])} %"
    low, high = (signed(pair[end], digits) if finite(pair[end]) else "" for end in ("low", "high"))
    bounds = f"95 % interval {low} to {high}" if low and high else "no interval"
    return f"{names}: <b>{signed(pair['mean'], digits)}</b> per {unit} ({bounds}){relative}{_doubt(pair)}"


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
    bounded = finite(share["low"]) and finite(share["high"])
    bounds = f"95 % interval {low} to {high} %" if bounded else "no interval"
    if share["share"] < 0 and not words.in_doubt(share):
        return f"{text(share['policy'])} lies below {text(share['from'])}, and so closes nothing {way}"
    return f"{text(share['policy'])} closes <b>{percent(share['share'])}</b> {way} ({bounds}){_doubt(share)}"


def _signed_percent(share: float) -> str:
    return signed(100 * share, 0 if abs(share) >= 0.1 else 1)


def _doubt(row: Row) -> str:
    return f", {words.NO_DIFFERENCE}" if words.in_doubt(row) else ""


def _definitions(page: Page, rows: Sequence[Row], columns: Sequence[Column]) -> str:
    learned, lives = page.learned or (page.algo, f"{page.algo}-greedy"), words.has_lives(page.rows)
    reach, policies = words.planner_reach(page.planner_steps), [str(row["policy"]) for row in rows]
    definitions = [
        (policy, words.define_policy(policy, learned, page.foreign, reach), page.notes.get(policy, ""))
        for policy in policies
    ]
    if page.yardstick is not None:
        definitions.append(("yardstick", words.define_yardstick(page.yardstick, policies), ""))
    meanings = {"Return": words.RETURN, **{column.head: column.meaning for column in columns}}
    definitions += [(head, words.define_column(of, page.foreign, lives), "") for head, of in meanings.items()]
    listed = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(meaning)}{_tuned(note)}</dd></div>"
        for name, meaning, note in definitions
    )
    return f'<details open="open"><summary>Rows and columns defined</summary><dl>{listed}</dl></details>'


def _tuned(note: str) -> str:
    """The tuned values of a row, folded if they would fill more than a few lines."""
    if len(note) <= LONG_NOTE:
        return f" {text(note)}" if note else ""
    return f'<details class="tuned"><summary>Its numbers</summary>{text(note)}</details>'


def returns_chart_svg(
    rows: Sequence[Mapping[str, Any]], *, yardstick: str | None = None, width: int = 760
) -> str:
    """One horizontal bar for each policy, best first, with its 95 % interval as a whisker and in numbers.

    ``rows`` have ``policy``, ``return_mean``, ``return_low``, ``return_high``; a row without a finite
    mean keeps its name and shows a dash. A dashed line marks the mean of the row named ``yardstick``.
    ``width`` is in pixels; below 500 the names stand above the bars. Raises UserError if no row has a
    finite mean.
    """
    if not any(finite(row["return_mean"]) for row in rows):
        raise UserError("The returns chart has no finite return: evaluate at least one policy.")
    ordered = by_return(rows)
    ends = [row[key] for row in rows for key in RETURN if finite(row[key])]
    low, high, digits = min(0.0, *ends), max(0.0, *ends), decimals(ends)
    narrow = width < 500
    longest = max(len(number(row["return_mean"], digits) + interval(row, digits)) for row in rows)
    left = 16.0 if narrow else 28 + LETTER * max(len(short_name(str(row["policy"]))) for row in rows)
    right = width - (16.0 if narrow else 30 + LETTER * longest)
    x = scale(low, high if high > low else low + 1, left, right)

    parts, top, pitch = [], 14, 46 if narrow else 32
    floor = top + pitch * len(rows) + 2
    level = next((row["return_mean"] for row in rows if row["policy"] == yardstick), None)
    # In a narrow chart the line is drawn only beside bars: names and numbers stand between them.
    if level is not None and finite(level):
        tops = [top + pitch * index + 22 for index in range(len(rows))] if narrow else [top]
        length = 20 if narrow else floor - 6 - top
        path = "".join(f"M{x(level):.1f} {start}v{length}" for start in tops)
        parts.append(f'<path class="reference" d="{path}"/>')
    for index, row in enumerate(ordered):
        baseline = top + pitch * index + 17
        parts.append(_row_text(row, x, digits, baseline, left, right, narrow))
        parts.append(_bar(row, x, baseline + (8 if narrow else -11)))
    kinds = {kind(str(row["policy"])) for row in rows}
    legend, bottom = _legend(kinds, yardstick if finite(level) else None, left, floor + 12, width)
    said = "; ".join(
        f"{row['policy']} {number(row['return_mean'], digits)} ({interval(row, digits) or 'no interval'})"
        for row in ordered
    )
    said = f"Mean return and 95 % interval by policy: {said}."
    return svg(width, bottom + 22, said, [*parts, legend])


def interval(row: Mapping[str, Any], digits: int) -> str:
    """``15.8 to 16.6``; an empty string if an end is missing."""
    low, high = row["return_low"], row["return_high"]
    return f"{number(low, digits)} to {number(high, digits)}" if finite(low) and finite(high) else ""


def _row_text(
    row: Mapping[str, Any],
    x: Scale,
    digits: int,
    baseline: float,
    left: float,
    right: float,
    narrow: bool,
) -> str:
    """Name and numbers: left and right of the bar, or on a line above it in a narrow chart."""
    policy = str(row["policy"])
    anchor = "start" if narrow else "end"
    if kind(policy) == "learned":
        anchor += " learned strong"
    at = max(x(value) for value in (0.0, row["return_mean"], row["return_high"]) if finite(value)) + 10
    where = f'class="end clear" x="{right:.1f}"' if narrow else f'class="clear" x="{at:.1f}"'
    return (
        f'<text class="{anchor}" x="{left if narrow else left - 12:.1f}" y="{baseline}">'
        f"{text(short_name(policy))}</text>"
        f'<text {where} y="{baseline}"><tspan class="strong">{number(row["return_mean"], digits)}</tspan>'
        f'<tspan class="muted" dx="8">{interval(row, digits)}</tspan></text>'
    )


def _bar(row: Mapping[str, Any], x: Scale, top: float) -> str:
    """The bar from zero, its whisker, and the line at zero."""
    zero = f'<path class="axis" d="M{x(0):.1f} {top - 3}v20"/>'
    if not finite(row["return_mean"]):
        return zero
    start, stop = sorted((x(0.0), x(row["return_mean"])))
    bar = (
        f'<rect class="bar {kind(str(row["policy"]))}" x="{start:.1f}" y="{top}" '
        f'width="{stop - start:.1f}" height="14" rx="1.5"/>'
    )
    if not (finite(row["return_low"]) and finite(row["return_high"])):
        return bar + zero
    a, b, middle = x(row["return_low"]), x(row["return_high"]), top + 7
    path = f"M{a:.1f} {middle}H{b:.1f}M{a:.1f} {middle - 4}v8M{b:.1f} {middle - 4}v8"
    return f'{bar}{zero}<path class="halo" d="{path}"/><path class="whisker" d="{path}"/>'


def _legend(kinds: set[str], yardstick: str | None, left: float, top: int, width: float) -> tuple[str, int]:
    """The marks and their words, in as many lines as needed, and the top of the last line."""
    words = {
        "learned": "learned",
        "baseline": "no reinforcement learning",
        "inside": "sees inside the simulator",
    }
    marks = [
        (word, f'<rect class="bar {style}" x="{{x:.1f}}" y="{{y}}" width="11" height="11" rx="1.5"/>')
        for style, word in words.items()
        if style in kinds
    ]
    if yardstick is not None:
        marks.append(
            (f"yardstick: {short_name(yardstick)}", '<path class="reference" d="M{x:.1f} {middle}h12"/>')
        )
    parts, x, y = [], left, top
    for word, mark in marks:
        room = 32 + 7 * len(word)
        if x + room > width and x > left:
            x, y = left, y + 19
        parts.append(mark.format(x=x, y=y, middle=y + 6))
        parts.append(f'<text class="muted" x="{x + 17:.1f}" y="{y + 10}">{text(word)}</text>')
        x += room
    return "".join(parts), y

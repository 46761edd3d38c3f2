"""The exposure of creators on the page: for each policy the Gini coefficient and the streams of limits."""

from __future__ import annotations

from collections.abc import Sequence

from recsys_rl.evaluation.report.drawing import by_return, finite, kind, number, percent, text
from recsys_rl.evaluation.report.page import Page, Picture, Row

HEADS = {"tail_exposure": "Share of the tail", "ads": "Share of ads", "early_end": "Ended early"}
NOTE = (
    "How evenly each policy shows the creators (of items without creators: the items), over all sessions of "
    "the table. Gini coefficient of the times that each creator was shown: 0 if all are shown equally often, "
    "near 1 if few creators get everything. Share of the tail: shown items of the least popular 80 % of the "
    "creators, by popularity in the data. Ended early: sessions that the user left before the last step."
)


def exposure_html(rows: Sequence[Row], page: Page) -> str:
    """The section of the page, with a line for each of ``rows``, best first; "" without creators."""
    rows = by_return(rows)
    if not any(finite(row.get("creator_gini")) for row in rows):
        return ""
    streams = [name for name in HEADS if any(name in row.get("limit_streams", {}) for row in rows)]
    heads = "".join(
        f'<th scope="col">{head}</th>' for head in ("Policy", "Gini", *map(HEADS.__getitem__, streams))
    )
    body = ""
    for row in rows:
        cells = [number(row.get("creator_gini"), 2)]
        cells += [percent(row.get("limit_streams", {}).get(name), 1) for name in streams]
        policy = str(row["policy"])
        body += f'<tr class="{kind(policy)}"><th scope="row">{text(policy)}</th>'
        body += "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return (
        f'<h2>Exposure of creators</h2><p class="note">{NOTE}</p><div class="wide-table"><table>'
        f'<caption class="hidden">Exposure of creators by policy</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


EXPOSURE = Picture("exposure", lambda evaluated: evaluated.result["rows"], exposure_html)

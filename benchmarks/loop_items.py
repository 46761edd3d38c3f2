"""Items come and go: what does a loop earn that gets the new ones, and a frozen loop beside it?

    python -m benchmarks.loop_items --seeds 0-2
    python -m benchmarks.loop_items --redraw      # docs/images/loop_items.svg again, from the results

Each seed is a run of examples/loop_items.py: other people and items. A row is a round of one of its two
shops. `best` is the best possible value with the items of this shop, `before` the true value of the policy
that served in the round, `after` that of the one that serves from then on.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.harness import newest, tables
from benchmarks.loop import for_two_widths
from examples.loop_items import Round, rounds_of
from recsys_rl.errors import UserError
from recsys_rl.evaluation.report.drawing import LETTER, Axes, marks_of, number, svg
from recsys_rl.utils.files import write_text
from recsys_rl.utils.seeding import parse_seeds

PICTURE = tables.ROOT / "docs" / "images" / "loop_items.svg"
SHOPS = ("open", "frozen")
WIDE, NARROW = (760, 360), (358, 300)  # the sizes of the picture, at a desk and on a phone
Rows = Sequence[Mapping[str, Any]]


def row_of(seed: int, of: Round) -> dict[str, Any]:
    """The row of a round."""
    return {"seed": seed, **dataclasses.asdict(of), "lowered": int(of.lowered)}


def read(results: Path) -> list[dict[str, Any]]:
    """The newest rows of each seed, with their numbers as numbers."""
    texts = ("date", "hardware", "commit", "python", "torch", "shop", "serves")
    rows = newest.read(results, "loop_items", ("seed",))
    return [
        {name: value if name in texts else float(value or "nan") for name, value in row.items()}
        for row in rows
    ]


def text(results: Path) -> str:
    """The table of docs/14: a line for each seed."""
    rows, body = read(results), []
    for seed in sorted({row["seed"] for row in rows}):
        mine = [row for row in rows if row["seed"] == seed]
        opened, frozen = ([row for row in mine if row["shop"] == shop] for shop in SHOPS)
        first = [row["new_after"] for row in opened if row["round"] > 1]
        promoted, lowered = (
            sum(map(of, mine)) for of in (lambda row: bool(row["serves"]), lambda row: row["lowered"])
        )
        body.append(
            [
                f"{seed:.0f}",
                number(opened[0]["before"], 3),
                *(f"{number(of[-1]['after'], 3)} of {number(of[-1]['best'], 3)}" for of in (opened, frozen)),
                f"{100 * (opened[-1]['after'] / frozen[-1]['after'] - 1):+.1f} %",
                ", ".join(number(visits, 0) for visits in first),
                f"{lowered:.0f} of {promoted}",
            ]
        )
    heads = [
        "seed",
        "first policy",
        "after round 3, of the best possible",
        "frozen, of the best possible",
        "gain",
        "visits until a new item was shown, rounds 2 and 3",
        "promotions that lowered the value",
    ]
    return f"{newest.table(heads, body)}\n\n`python -m benchmarks.loop_items`, {newest.origin(rows)}."


def means(rows: Rows, shop: str, name: str) -> list[tuple[float, float, float]]:
    """The mean of the seeds in each round, the least and the greatest."""
    rounds = sorted({row["round"] for row in rows})
    values = [[row[name] for row in rows if (row["shop"], row["round"]) == (shop, at)] for at in rounds]
    return [(sum(of) / len(of), min(of), max(of)) for of in values]


def chart(rows: Rows, width: int, height: int) -> str:
    """Both shops over the rounds, and the best possible: a round begins where it has the items of then."""
    lines, ceilings = {}, {}
    for shop in SHOPS:
        both = zip(means(rows, shop, "before"), means(rows, shop, "after"), strict=True)
        lines[shop] = [(at + end, *of) for at, pair in enumerate(both) for end, of in enumerate(pair)]
        ceilings[shop] = [mean for mean, _, _ in means(rows, shop, "best")]
    rounds, wide = len(ceilings["open"]), width > 500
    marks = marks_of([0.0, *ceilings["open"]], 5)
    names = [f"{mark:.1f}" for mark in marks]
    labels = []
    for said, style, end in (
        ("best possible" if wide else "best", "muted inside", ceilings["open"][-1]),
        ("with new items" if wide else "new items", "learned strong", lines["open"][-1][1]),
        ("best, frozen", "muted baseline", ceilings["frozen"][-1]),
        ("frozen", "muted baseline", lines["frozen"][-1][1]),
    ):
        labels.append((f"{said} {number(end, 2)}", style, rounds, end))
    left = 14 + LETTER * max(map(len, names))
    right = width - 26 - LETTER * max(len(label) for label, *_ in labels)
    axes = Axes((0, rounds), marks, names, left, right, 40, height - 34)
    parts = [
        '<text class="muted" x="12" y="22">share of clicks</text>',
        *axes.grid(),
        *(
            f'<text class="muted middle" x="{axes.x(at + 0.5):.1f}" y="{height - 12}">'
            f"{'round ' if wide or at == 0 else ''}{at + 1}</text>"
            for at in range(rounds)
        ),
        *(f'<path class="grid" d="M{axes.x(at):.1f} {axes.top}V{axes.bottom}"/>' for at in range(1, rounds)),
    ]
    for shop, style in (("frozen", "reference"), ("open", "reference inside")):
        path = (
            f"M{axes.x(at):.1f} {axes.y(of):.1f}H{axes.x(at + 1):.1f}" for at, of in enumerate(ceilings[shop])
        )
        parts.append(f'<path class="{style}" d="{"".join(path)}"/>')
    frozen = axes.points((at, mean) for at, mean, _, _ in lines["frozen"])
    parts += [f'<polyline class="other baseline" points="{frozen}"/>', axes.curve(lines["open"])]
    parts += axes.ends(labels)
    ends = {shop: number(lines[shop][-1][1], 3) for shop in SHOPS}
    told = (
        f"Share of clicks over {rounds} rounds, mean of the seeds: {ends['open']} at the end with new items, "
        f"{ends['frozen']} frozen; the best possible is {number(ceilings['open'][-1], 3)} and "
        f"{number(ceilings['frozen'][-1], 3)}."
    )
    return svg(width, height, told, parts)


def drawing(rows: Rows) -> str:
    """The text of the picture, for two widths."""
    wide, narrow = (chart(rows, *size) for size in (WIDE, NARROW))
    return for_two_widths(wide, narrow) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = tables.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=parse_seeds, default="0-2", help="as in 0-2 or 0,3 (default: 0-2)")
    parser.add_argument("--keep", type=Path, help="a folder for records and policies")
    parser.add_argument("--redraw", action="store_true", help="draw the picture from the results, no more")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--json", type=Path, help="write the table to this file")
    parser.add_argument("--csv", type=Path, help="append the table to this file, not to benchmarks/results")
    parser.add_argument("--smoke", action="store_true", help="does it run? Small rounds, no CSV")
    args = tables.parse(parser, "loop_items", argv)
    if args.redraw:
        write_text(PICTURE, drawing(read(tables.RESULTS)))
        return
    if args.keep is not None and args.keep.exists():
        raise UserError(f"{args.keep} exists: give a new folder with --keep.")
    with tempfile.TemporaryDirectory() if args.keep is None else nullcontext(args.keep) as name:
        for seed in args.seeds:
            found = rounds_of(seed, Path(name) / f"seed-{seed}", quick=args.smoke)
            tables.publish([row_of(seed, of) for of in found], args)


if __name__ == "__main__":
    tables.run(main)

"""Does the loop make a weak policy good? Three rounds of examples/loop.py for each seed, beside the truth.

    python -m benchmarks.loop --seeds 0-2
    python -m benchmarks.loop --seeds 0 --picture docs/images/loop.svg --keep runs/loop
    python -m benchmarks.loop --redraw docs/images/loop.svg      # after a change of the chart's code

Each seed trains a weak policy on `satiation` (PPO, 81,920 steps) and plays three rounds: 2,000 visits, and
2,000 more with a canary whose share grows to a half. `served` is the true return of a session with held-out
users as the policy serves, `greedy` with the most probable item. `worse` counts the promotions whose true
served return is lower by more than .15. benchmarks.loop_kills kills the loop.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import newest, tables
from examples.loop import rounds_of
from examples.loop_page.canaries import Band
from examples.loop_page.judged import Judged
from examples.loop_page.rounds import Visited, served_svg
from recsys_rl.errors import UserError
from recsys_rl.evaluation.report.drawing import number
from recsys_rl.utils.files import write_text

WORSE = 0.15  # below the champion before, from which on a promotion was a mistake
COLUMNS = {
    "seed": ("seed", 0),
    "before": ("first champion, served", 2),
    "served_1": ("after round 1, served", 2),
    "served": ("after all rounds, served", 2),
    "greedy": ("greedy", 2),
    "visits_1": ("visits until the promotion of round 1", 0),
    "promoted": ("promotions", 0),
    "worse": ("of them worse", 0),
    "stopped": ("visits until a bad challenger is stopped", 0),
    "minutes": ("minutes", 1),
}
"""The columns of the table: their heads, and digits."""


def row_of(seed: int, found: Mapping[str, Any], minutes: float) -> dict[str, Any]:
    """The numbers of one seed; ``found`` is what ``rounds_of`` returns."""
    champions = found["champions"]  # (served, greedy) of the first one and after each round
    promotions = [(before, after) for before, after in pairwise(champions) if before != after]
    *canaries, bad = found["bands"]
    first = next((band for band in canaries if band["end"] == "promoted"), None)
    return {
        "seed": seed,
        "before": champions[0][0],
        "served_1": champions[1][0],
        "served": champions[-1][0],
        "greedy": champions[-1][1],
        "visits_1": first["ended"] - canaries[0]["began"] if first and champions[0] != champions[1] else None,
        "promoted": len(promotions),
        "worse": sum(after[0] < before[0] - WORSE for before, after in promotions),
        "stopped": bad["ended"] - bad["began"] if bad["end"] == "stopped" else None,
        "minutes": minutes,
    }


def text(results: Path) -> str:
    """The table of docs/14, with the means of the seeds below."""
    rows = newest.read(results, "loop", ("seed",))
    body = [
        [number(float(row[name]), digits) if row[name] else "–" for name, (_, digits) in COLUMNS.items()]
        for row in sorted(rows, key=lambda row: int(row["seed"]))
    ]
    if len(rows) > 1:
        means = ["**mean**"]
        for name, (_, digits) in list(COLUMNS.items())[1:]:
            values = [float(row[name]) for row in rows if row[name]]
            means.append(number(sum(values) / len(values), max(digits, 1)) if values else "–")
        body.append(means)
    heads = [head for head, _ in COLUMNS.values()]
    return f"{newest.table(heads, body)}\n\n`python -m benchmarks.loop`, {newest.origin(rows)}."


WIDE, NARROW = (760, 500), (358, 236)  # the sizes of the picture, at a desk and on a phone
SHOWN = tables.RESULTS / "loop_picture.json"
"""The numbers that the picture shows."""


def picture(found: Mapping[str, Any], path: Path, numbers: Path = SHOWN) -> None:
    """Draw the served returns, the promotions and the gate of one seed, and write what is drawn."""
    shown = {name: found[name] for name in ("served", "bands", "judged")}
    write_text(numbers, json.dumps(shown, indent=1) + "\n")
    write_text(path, drawing(shown))


def drawing(shown: Mapping[str, Any]) -> str:
    """The text of the picture, for two widths."""
    served = [Visited(**row) for row in shown["served"]]
    bands = [Band(**row) for row in shown["bands"]]
    judged = [Judged(**row) for row in shown["judged"]]
    wide, narrow = (
        served_svg(served, bands, judged, width=width, height=height) for width, height in (WIDE, NARROW)
    )
    return for_two_widths(wide, narrow) + "\n"


def for_two_widths(wide: str, narrow: str) -> str:
    """One SVG file of two charts of about one shape: the ``narrow`` one where it is shown below 500 pixels.

    A picture in a README is as wide as its page, and its text shrinks with it. The style of an SVG that is
    shown as an image sees the width at which it is shown.
    """
    head = re.match(r'<svg .*? viewBox="0 0 (\d+) (\d+)" width="\d+" height="\d+">', wide)
    assert head is not None
    width, height = head[1], head[2]
    whole = f'width="{width}" height="{height}"'
    charts = [
        re.sub(
            r'^(<svg .*?)class="chart"(.*?) width="\d+" height="\d+">',
            rf'\1class="chart {name}"\2 {whole}>',
            drawn,
        )
        for name, drawn in (("wide", wide), ("narrow", narrow))
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {whole}>'
        "<style>.narrow{display:none}@media(max-width:500px){.wide{display:none}.narrow{display:inline}}</style>"
        f"{''.join(charts)}</svg>"
    )


def seeds_in(given: str) -> list[int]:
    """``0-2`` or ``0,3``. Raises UserError."""
    parts = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in given.split(",")]
    if not all(parts):
        raise UserError(f"--seeds {given}: give them as 0-2 or 0,3.")
    return [seed for part in parts if part for seed in range(int(part[1]), int(part[2] or part[1]) + 1)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = tables.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-2", help="such as 0-2 or 0,3 (default: 0-2)")
    parser.add_argument("--keep", type=Path, help="a folder for the pages, policies and records")
    parser.add_argument("--picture", type=Path, help="draw the first seed into this SVG file")
    parser.add_argument("--redraw", type=Path, help="draw this file again from the numbers in the results")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--json", type=Path, help="write the table to this file")
    parser.add_argument("--csv", type=Path, help="append the table to this file, not to benchmarks/results")
    parser.add_argument("--smoke", action="store_true", help="does it run? A small world, one round, no CSV")
    args = tables.parse(parser, "loop", argv)
    if args.redraw is not None:
        write_text(args.redraw, drawing(json.loads(SHOWN.read_text(encoding="utf-8"))))
        return
    seeds = seeds_in(args.seeds)
    torch.set_num_threads(args.threads or 1)
    with tempfile.TemporaryDirectory() if args.keep is None else nullcontext(args.keep) as name:
        for at, seed in enumerate(seeds):
            began = time.monotonic()
            settings = SMOKE if args.smoke else {}
            found = rounds_of(Path(name) / f"seed-{seed}", seed, **settings)
            if at == 0 and args.picture is not None:
                # As read from the file: lists in place of tuples.
                picture(json.loads(json.dumps(found)), args.picture)
            tables.publish([row_of(seed, found, (time.monotonic() - began) / 60)], args)


SMOKE: dict[str, Any] = {
    "rounds": 1,
    "visits": 240,
    "weak": 64,
    "world": [
        *("--env", "satiation", "--data", "synthetic", "--num-items", "50", "--num-users", "200"),
        *("--embedding-dim", "8", "--max-episode-steps", "10", "--hidden-dims", "16", "--device", "cpu"),
        *("--n-steps", "8", "--num-envs", "8", "--batch-size", "32"),
    ],
    "steps": 2048,
    "decisions": 2048,
}

if __name__ == "__main__":
    tables.run(main)

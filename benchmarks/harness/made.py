"""docs/images/made.csv: the rows of learning.csv that were the newest when a picture was made.

A picture of an earlier table than the newest is stale. A test lists what is stale.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from benchmarks.harness.newest import every, read
from benchmarks.harness.newest import newest as newest_of
from benchmarks.harness.returns import LEARNED
from benchmarks.harness.tables import RESULTS, ROOT
from recsys_rl.utils.files import write_text

IMAGES = ROOT / "docs" / "images"
PICTURES = {
    "report.png": "make-train",
    "learning.svg": "make-train",
    "categories-satiation.svg": "make-train",
}
"""The task of benchmarks.learning that each picture shows."""
OF_TRAINING = ("learning.svg",)
"""Pictures of the training alone. They stay while the newest rows are of the same trained policies."""
BESIDE = ("searched-stock",)
"""Rows that a benchmark alone makes, without a run: no picture shows them."""
COLUMNS = ("picture", "task", "date", "commit")


def newest(results: Path, task: str) -> tuple[str, str]:
    """Date and commit of the newest rows of a task that a picture may show; empty without rows."""
    rows = newest_of([row for row in every(results, "learning", task=task) if row["policy"] not in BESIDE])
    return (rows[-1]["date"], rows[-1]["commit"]) if rows else ("", "")


def trained(results: Path, task: str, rows: tuple[str, str]) -> dict[tuple[str, str], str]:
    """The return of each learned policy on each seed, in the rows of a task with that date and commit."""
    date, commit = rows
    rows_then = read(results, "learning", ("commit",), task=task, date=date)
    return {
        (row["policy"], row["seed"]): row["return_mean"]
        for row in rows_then
        if row["commit"] == commit and row["policy"] in LEARNED
    }


def note(picture: str, results: Path = RESULTS, images: Path = IMAGES) -> None:
    """Write down that ``picture`` was made from the newest rows of its task."""
    rows = _made(images)
    rows[picture] = newest(results, PICTURES[picture])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((name, PICTURES[name], *rows[name]) for name in PICTURES if name in rows)
    write_text(images / "made.csv", text.getvalue())


def stale(results: Path = RESULTS, images: Path = IMAGES) -> list[str]:
    """A sentence for each picture that is older than its table."""
    rows, sentences = _made(images), []
    for picture, task in PICTURES.items():
        wanted = newest(results, task)
        known = rows.get(picture, ("", ""))
        policies = [trained(results, task, one) for one in (known, wanted)]
        same = picture in OF_TRAINING and policies[0] == policies[1]
        if known != wanted and not same:
            which = "no known rows" if picture not in rows else "the rows of {} ({})".format(*rows[picture])
            sentences.append(
                f"{picture} shows {which} of {task}, and the newest are of {wanted[0]} ({wanted[1]})"
            )
    return sentences


def _made(images: Path) -> dict[str, tuple[str, str]]:
    """Date and commit of the rows of each picture."""
    file = images / "made.csv"
    if not file.exists():
        return {}
    with file.open(newline="", encoding="utf-8") as lines:
        return {row["picture"]: (row["date"], row["commit"]) for row in csv.DictReader(lines)}

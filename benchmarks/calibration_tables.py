"""The tables of benchmarks.once.calibration, of docs/calibration.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.newest import Row, origin, read, table

ENV = "social-feed"
VISITS = ("gaps of", "D1", "D7", "D30", "fall of retention")
"""How the statistics of visits begin; the other ones of `short-video` are of single visits."""
FIT, ERROR = "fit to 160,000 requests, ", "relative standard error "
NAMES = {
    "seeing_exponent": "`seeing_exponent` (eta)",
    "none": "none at home, against a cosine of 0 and no trust",
}


def feed(results: Path) -> str:
    """Statistic, source, real and simulated value, note, and whether the row is within its limit."""
    rows = of(results, ENV)
    body = []
    for row in rows:
        cells = (row["source"].replace("none", ""), row["real"], row["simulated"], row["note"], passed(row))
        body.append([row["statistic"], *cells])
    head = ["statistic", "source", "real", "simulated", "note", "passed"]
    return f"{table(head, body)}\n\n{caption(rows, f' --only {ENV}')}"


def short_video(results: Path, visits: bool = False) -> str:
    """The rows of `short-video` beside real logs: those of single visits, or those of ``visits``."""
    rows = [row for row in of(results, "short-video") if row["statistic"].startswith(VISITS) == visits]
    body = []
    for row in rows:
        verdict = "assumed" if row["note"] == "assumed" else passed(row)
        source = row["source"].replace("none", "").replace(", explicit feedback", "")
        numbers = (row["real"], row["simulated"], row["distance"], row["limit"])
        body.append([row["statistic"], source, *map(short, numbers), verdict])
    head = ["statistic", "source", "real", "simulated", "distance", "limit", "passed"]
    return f"{table(head, body)}\n\n{caption(rows)}"


def long_video(results: Path) -> str:
    """The settings of the choice model of `long-video` beside their estimates."""
    rows = of(results, "long-video")
    body = []
    for row in rows:
        name = row["statistic"].removeprefix(FIT)
        label = NAMES.get(name, f"`{name}`" if name != row["statistic"] else name)
        fitted = name != row["statistic"]
        numbers = (row["real"], row["simulated"], row["distance"] if fitted else "", row["limit"])
        error = row["note"].removeprefix(ERROR) if fitted else ""
        body.append(
            [label, *map(short, numbers[:3]), short(numbers[3] if fitted else ""), passed(row), error]
        )
    head = ["statistic", "setting", "estimate", "distance", "limit", "passed", "relative standard error"]
    return f"{table(head, body)}\n\n{caption(rows)}"


def of(results: Path, env: str) -> list[Row]:
    return read(results, "calibration", platform=env)


def passed(row: Row) -> str:
    return {"True": "yes", "False": "**no**"}.get(row["passed"], "")


def short(number: str) -> str:
    """Up to three decimals, four below 0.01; texts of several numbers stay as they are."""
    if not number or " " in number:
        return number
    value = float(number)
    return f"{value:.4f}" if abs(value) < 0.01 else f"{value:.3f}".rstrip("0").rstrip(".")


def caption(rows: list[Row], options: str = "") -> str:
    return f"{origin(rows).capitalize()}; `python -m benchmarks.once.calibration{options}`."

"""The table of benchmarks.mood, of docs/06, from the newest rows of mood.csv."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.newest import read, table

LABELS = {
    "sums": "sums",
    "filter": "sums, and a filter's estimate of the mood",
    "shown": "sums, and the mood itself",
    "transformer": "sums and transformer",
}


def mood(results: Path) -> str:
    """Returns, what stands above the sums, and the share of the mood's worth that a row closes."""
    # Earlier rows are also of encoders that went.
    rows, body = [row for row in read(results, "mood") if row["run"] in LABELS], []
    seeds = rows[0]["seeds"]
    for row in rows:
        cells = [LABELS[row["run"]], f"{float(row['return']):.1f}", "", "", row["by_seed"].replace(" ", ", ")]
        if row["more"]:
            more, low, high = (float(row[name]) for name in ("more", "more_low", "more_high"))
            cells[2] = f"{more:+.1f} ({low:+.1f} to {high:+.1f})"
        if row.get("share") and row["run"] != "shown":
            share, low, high = (100 * float(row[name]) for name in ("share", "share_low", "share_high"))
            cells[3] = f"{share:.0f} % ({low:.0f} to {high:.0f} %)"
        body.append(cells)
    head = ["policy reads", "return", "more than the sums", "share of the mood's worth", "by seed"]
    changed = f" --set {rows[0]['settings']}" if rows[0]["settings"] else ""
    said = (
        f"Seeds {seeds.replace(' ', ', ')}; 95 % intervals over the users of all seeds, paired by user; "
        f"commit {rows[0]['commit']}, {rows[0]['date']};\n"
        f"`python -m benchmarks.mood --threads 1 --seeds {seeds.replace(' ', ',')}{changed}`."
    )
    return f"{table(head, body)}\n\n{said}"

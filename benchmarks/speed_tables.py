"""Tables and words on speed, of README.md and docs/, from the newest rows of the CSV files."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness.newest import Row, read, table

SYSTEMS = {
    "recsys_rl": "ours",
    "stable-baselines3": "Stable-Baselines3",
    "sbx": "SBX",
    "tianshou": "Tianshou",
    "torchrl": "TorchRL",
    "original": "the original",
}
SETTINGS = {
    "batched": "64 users x 32 steps, minibatch 512, 4 epochs",
    "original": "8 users x 256 steps, minibatch 64, 10 epochs",
}
SIMULATORS = {
    "N=4096": "ours, `satiation`, N = 4,096",
    "short-video": "ours, `short-video`",
    "long-video": "ours, `long-video`, six items",
    "interest_evolution": "RecSim, interest evolution",
    "long_term_satisfaction": "RecSim, long-term satisfaction",
    "SingleItem-BoredInf-v0": "SARDINE",
}


def throughput(results: Path, name: str = "throughput") -> str:
    """``name``: of the CSV file; each condition (threads, allocator) has its own."""
    rows = {(row["settings"], row["system"]): row for row in read(results, name)}
    names = [name for name in SYSTEMS if any(system == name for _, system in rows)]
    versions = {system: row["version"] for (_, system), row in rows.items()}
    head = [
        "settings",
        *(f"{SYSTEMS[n]} {versions[n]}".strip() if n != "recsys_rl" else "ours" for n in names),
    ]
    body = []
    for settings, words in SETTINGS.items():
        ours = float(rows[settings, "recsys_rl"]["steps_per_s"])
        line = [words, f"**{ours:,.0f}**"]
        for name in names[1:]:
            speed = rows.get((settings, name), {}).get("steps_per_s")
            line.append(f"{float(speed):,.0f} ({ours / float(speed):.1f}x)" if speed else "")
        body.append([*line, f"{float(rows[settings, 'recsys_rl']['floor_steps_per_s']):,.0f}"])
    memory = [rows.get(("batched", name), {}).get("peak_mb") for name in names]
    cells = [f"{float(mb):.0f}" if mb else "" for mb in memory]
    body.append(["peak resident memory of the first, MB", f"**{cells[0]}**", *cells[1:], ""])
    return table([*head, "torch's matrix products alone"], body)


def times_of(results: Path, name: str, system: str = "stable-baselines3") -> str:
    """How many times the steps per second of ``system`` ours are, at both sets of settings."""
    rows = {row["settings"]: row for row in read(results, name, system=system)}
    ratios = (float(rows[settings]["ours_over_it"]) for settings in SETTINGS)
    return f"{' and '.join(f'{ratio:.1f}' for ratio in ratios)} times"


def update_share(results: Path, name: str) -> str:
    """The time of the flagship's own matrix products, as a share of its update."""
    (row,) = read(results, name, settings="flagship")
    return f"{float(row['update_share_of_floor']):.2f}"


def simulator(results: Path) -> str:
    """Times ours of `satiation` stand beside the peers; of a row that was measured alone, the newest."""
    rows = {row["settings"]: row for row in read(results, "simulator", ("system", "settings"))}
    ours = float(rows["N=4096"]["steps_per_s"])
    cells, work = [], []
    for name, words in SIMULATORS.items():
        row = rows.get(name, {})
        speed, of_processor = (float(row.get(column) or 0) for column in ("steps_per_s", "steps_per_cpu_s"))
        work.append(f"{round(of_processor, -3):,.0f}" if of_processor else "")
        if words.startswith("ours"):
            cells.append(f"**{round(speed, -3):,.0f}**" if speed else "not measured")
        else:
            cells.append(f"{speed:,.0f} ({ours / speed:.0f}x)" if speed else "not measured")
    head = ["random items", *SIMULATORS.values()]
    body = [["users stepped per second", *cells], ["the same, per second of processor time", *work]]
    return table(head, body)


def catalogue(results: Path) -> str:
    rows = {
        (row["system"], row["num_items"] or row["settings"][2:]): row for row in read(results, "catalogue")
    }
    sizes = [size for system, size in rows if system == "recsys_rl"]
    ours, theirs = ([rows.get((name, s), {}) for s in sizes] for name in ("recsys_rl", "stable-baselines3"))
    times = [_ms(row["ms_per_step"]) for row in ours]
    memory = [f"{float(row['rss_mb']):,.0f}" for row in ours]
    memory[-1] += f" ({float(ours[-1]['rss_over_table']):.2f} times the table)"
    slow = [_ms(row.get("ms_per_step")) for row in theirs]
    label = "ours, two stages, 64 candidates"
    return table(
        ["items of the catalogue (embeddings of 256 numbers)", *(f"{int(size):,}" for size in sizes)],
        [
            [f"{label}: ms a step of 64 users, learning included", *times[:-1], f"**{times[-1]}**"],
            ["peak resident memory, MB", *memory],
            ["Stable-Baselines3, one logit per item: ms a step", *slow],
        ],
    )


def _ms(value: str | None) -> str:
    return f"{float(value):,.0f}" if value else "does not fit"


def seconds_to_095(results: Path, policy: str) -> str:
    (row,) = read(results, "time_to_quality", system="recsys_rl", settings="preset", policy=policy)
    return f"{float(row['seconds_to_0.95']):.1f} seconds"


def best_share(results: Path, whose: str) -> str:
    """The best share of the optimum: of peers with our settings or with their own, or of our dense head."""
    rows = read(results, "time_to_quality", ("system", "settings"), policy="greedy")
    keep: dict[str, Callable[[Row], bool]] = {
        "dense": lambda row: row["system"] == "recsys_rl" and row["settings"] == "dense",
        "ours": lambda row: row["system"] != "recsys_rl" and row["settings"] == "ours",
        "own": lambda row: row["system"] != "recsys_rl" and row["settings"] != "ours",
    }
    shares = [float(row["best_share"]) for row in rows if keep[whose](row) and row["best_share"]]
    return " to ".join(dict.fromkeys(f"{value:.2f}" for value in (min(shares), max(shares))))


def million(results: Path, column: str) -> str:
    """The end of the million items' curve: share of the optimum, or seconds of training; mean over seeds."""
    rows = read(results, "million")
    last = max(int(row["step"]) for row in rows)
    mean = statistics.mean(float(row[column]) for row in rows if int(row["step"]) == last)
    return f"{mean:.0f} seconds" if column == "seconds" else f"{mean:.2f}"

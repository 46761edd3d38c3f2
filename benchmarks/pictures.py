"""The pictures of docs/ that show trained policies, made again by one command.

    python -m benchmarks.pictures                       all of them
    python -m benchmarks.pictures report.png            some of them
    python -m benchmarks.pictures --keep FOLDER         with the trained runs in FOLDER
    python -m benchmarks.pictures --check               which are stale? It makes none.
    python -m benchmarks.pictures --page report.html    report.png, of a page that is there

Each picture shows seed 0 of a task of benchmarks.learning, learning.svg all its seeds; the runs are trained
if FOLDER/<task>-<seed>/<algo>/ does not hold them yet (its file `done` says that a run is whole). The table
of that seed must be the one in benchmarks/results/learning.csv, so measure first. docs/images/made.csv then
says which rows of that file each picture shows, and a test compares them with the newest.
report.png is the head of the page in the light scheme, as chromium shows it. On an idle core it takes about
half an hour.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from benchmarks.categories import draw
from benchmarks.harness import commands, made, tables
from benchmarks.harness.newest import read
from benchmarks.harness.returns import Runs
from benchmarks.learning import TASKS
from recsys_rl.errors import UserError

IMAGE = made.IMAGES / "report.png"
WIDTH = 1100  # pixels: the column of the page, and its margins
HEIGHT = 890
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
NEAR = 0.05  # relative difference of a return to the results' from which they are of other code


def browser() -> str | None:
    """The path of a chromium of this machine, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def scheme(dark: bool) -> str:
    """The option that makes chromium prefer that colour scheme."""
    return f"--blink-settings=preferredColorScheme={0 if dark else 1}"


def photograph(page: Path, height: int) -> None:
    """Write the head of a report to IMAGE. Raises UserError without the page or without chromium."""
    program = browser()
    if not page.is_file():
        raise UserError(f"{page} is not a file: write it with `recsys-rl evaluate --report {page}`.")
    if program is None:
        raise UserError("There is no chromium here: install it, as with `apt-get install chromium`.")
    with tempfile.TemporaryDirectory() as profile:
        command = [program, *OPTIONS, scheme(dark=False), f"--user-data-dir={profile}"]
        command += [f"--window-size={WIDTH},{height}", f"--screenshot={IMAGE}", page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0 or not IMAGE.is_file():
        raise UserError(f"chromium failed with exit code {done.returncode}: {done.stderr.strip()[-300:]}")


def trained(keep: Path, task: str) -> Path:
    """The checkpoint of seed 0 of a task, trained if the folder ``keep`` lacks it."""
    algo, options = TASKS[task]
    folder = keep.resolve() / f"{task}-0" / algo
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)  # of a training that was stopped
        folder.mkdir(parents=True)
        print(f"training {task}, seed 0", file=sys.stderr, flush=True)
        started = time.monotonic()
        commands.recsys_rl(folder, ["train", "--algo", algo, "--seed", "0", "--threads", "1", *options])
        (folder / "done").write_text(f"{time.monotonic() - started:.0f}\n")
    return folder / "checkpoints" / f"{algo}.pt"


def check_rows(task: str, table: Path) -> None:
    """Raise UserError if the table of seed 0 is not that of the newest results of the task."""
    rows = json.loads(table.read_text())["rows"]
    returns = {row["policy"]: row["return_mean"] for row in rows}
    for row in read(tables.RESULTS, "learning", task=task, seed="0"):
        ours, theirs = returns.get(row["policy"]), float(row["return_mean"])
        if ours is not None and abs(ours - theirs) > NEAR * abs(theirs):
            raise UserError(
                f"{row['policy']} earns {ours:.2f} here and {theirs:.2f} in benchmarks/results/learning.csv "
                f"({row['date']}, commit {row['commit']}): measure again with `python -m benchmarks.learning "
                f"{task}`, or give the runs of those results with --keep."
            )


def make(picture: str, keep: Path, height: int, given: bool) -> None:
    """Make one picture, and note the rows that it shows. ``given``: ``keep`` is the user's folder."""
    task = made.PICTURES[picture]
    if picture == "learning.svg":
        words = ["benchmarks.learning", task, "--curve", str(made.IMAGES / picture)]
        words += ["--keep", str(keep)] if given else []
        with tempfile.TemporaryDirectory() as name:  # the rows are in the results already
            words += ["--csv", str(Path(name) / "learning.csv")]
            subprocess.run([sys.executable, "-m", *words], check=True, stdout=subprocess.DEVNULL)
    elif picture == "report.png":
        checkpoint = trained(keep, task)
        with tempfile.TemporaryDirectory() as name:
            commands.recsys_rl(
                Path(name), ["evaluate", str(checkpoint), "--report", "page.html", "--json", "table.json"]
            )
            check_rows(task, Path(name) / "table.json")
            photograph(Path(name) / "page.html", height)
    else:
        draw(trained(keep, task), Runs(tables.RESULTS, task).yardstick)
    made.note(picture)
    print(made.IMAGES / picture, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = tables.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help=f"of {', '.join(made.PICTURES)}")
    parser.add_argument("--keep", type=Path, help="folder to keep trained runs in, and to take them from")
    parser.add_argument("--page", type=Path, help="a page of `recsys-rl evaluate --report`, for report.png")
    parser.add_argument("--height", type=int, default=HEIGHT, help="pixels of the page in report.png")
    parser.add_argument("--check", action="store_true", help="list what is stale and make nothing")
    args = parser.parse_args(argv)
    unknown = [name for name in args.pictures if name not in made.PICTURES]
    if unknown:
        raise UserError(f"There is no picture {unknown[0]}: name some of {', '.join(made.PICTURES)}.")
    if args.check:
        lines = made.stale()
        print("\n".join(lines) if lines else "nothing is stale")
        raise SystemExit(1 if lines else 0)
    if args.page is not None:
        photograph(args.page, args.height)
        print(f"{IMAGE}: {IMAGE.stat().st_size // 1000} kB")
        return
    if browser() is None and (not args.pictures or "report.png" in args.pictures):
        raise UserError("There is no chromium here for report.png: install it, or name the other pictures.")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() if args.keep is None else nullcontext(args.keep) as folder:
        for picture in args.pictures or made.PICTURES:
            make(picture, Path(folder), args.height, args.keep is not None)


if __name__ == "__main__":
    tables.run(main)

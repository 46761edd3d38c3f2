"""A picture of a report's head for docs/02.

    recsys-rl evaluate --report report.html
    python -m benchmarks.pictures report.html

writes docs/images/report.png: the head of the page, in the light scheme, as chromium shows it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.harness import tables
from recsys_rl.errors import UserError

IMAGE = Path(__file__).resolve().parents[1] / "docs" / "images" / "report.png"
WIDTH = 1100  # pixels: the column of the page, and its margins
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def browser() -> str | None:
    """The path of a chromium of this machine, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def scheme(dark: bool) -> str:
    """The option that makes chromium prefer that colour scheme."""
    return f"--blink-settings=preferredColorScheme={0 if dark else 1}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="the page that `recsys-rl evaluate --report` wrote")
    parser.add_argument("--height", type=int, default=890, help="pixels of the page that the picture shows")
    args = parser.parse_args()
    page = args.report
    program = browser()
    if not page.is_file():
        raise UserError(f"{page} is no file: write it with `recsys-rl evaluate --report {page}`.")
    if program is None:
        raise UserError("There is no chromium here: install it, as with `apt-get install chromium`.")
    with tempfile.TemporaryDirectory() as profile:
        command = [program, *OPTIONS, scheme(dark=False), f"--user-data-dir={profile}"]
        command += [f"--window-size={WIDTH},{args.height}", f"--screenshot={IMAGE}", page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0 or not IMAGE.is_file():
        raise UserError(f"chromium failed with exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    print(f"{IMAGE}: {IMAGE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    tables.run(main)

"""Writes the figures of README.md and docs/*.md from benchmarks/results.

    python -m benchmarks.write_tables           # rewrites the marked places
    python -m benchmarks.write_tables --check   # names the pages that are stale; exit code 1

A place is ``<!-- table:NAME -->`` and the lines until ``<!-- /table -->``, or within a line
``<!-- figure:NAME -->`` and the words until ``<!-- /figure -->``. The text of each name is made from the
newest rows of the CSV files, in the benchmark that writes them or in benchmarks/*_tables.py beside it. The
log (docs/log/) has no places: its figures are those of their day.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import (
    anytime,
    broken_logs,
    calibration_tables,
    claims,
    dqn,
    foreign,
    learned_users,
    learning_tables,
    limits,
    loop,
    loop_items,
    loop_own_log,
    many_items,
    offline,
    on_ray,
    ope_peers,
    ope_tables,
    open_bandit,
    own_log,
    own_log_lists,
    shop_month,
    speed_tables,
    strangers,
    tutor_courses,
    tutor_students,
    verdict_coverage,
    verdict_peers,
    watch,
)
from benchmarks.coat import table as coat_table
from benchmarks.harness import tables
from benchmarks.harness.newest import every
from benchmarks.harness.tables import RESULTS, ROOT
from recsys_rl.errors import UserError
from recsys_rl.utils.files import write_text

PLACE = re.compile(r"<!-- (table|figure):([\w-]+) -->(.*?)<!-- /\1 -->", re.DOTALL)
MARK = re.compile(r"<!-- /?(?:table|figure)\b")

TABLES: dict[str, Callable[[Path], str]] = {
    "satiation": partial(learning_tables.platform, task=learning_tables.FIRST),
    "satiation-short": partial(
        learning_tables.platform, task=learning_tables.FIRST, only=learning_tables.SHORT
    ),
    "first": learning_tables.first_rows,
    "claims": learning_tables.claims,
    "all-claims": claims.table,
    "drift": learning_tables.drift,
    "effects": learning_tables.effects,
    "sensitivity": learning_tables.sensitivity,
    "short-video": partial(learning_tables.platform, task="short-video"),
    "long-video": partial(learning_tables.platform, task="long-video"),
    "social-feed": partial(learning_tables.platform, task="social-feed"),
    "tutor-students": tutor_students.text,
    "tutor-greedy": tutor_courses.greedy,
    "tutor-test": tutor_courses.for_test,
    "tutor": partial(learning_tables.platform, task="tutor"),
    "shop": partial(learning_tables.platform, task="shop"),
    "shop-month": shop_month.text,
    "feed-calibration": calibration_tables.feed,
    "calibration": calibration_tables.short_video,
    "calibration-visits": partial(calibration_tables.short_video, visits=True),
    "calibration-long-video": calibration_tables.long_video,
    "limits": limits.text,
    "loop": loop.text,
    "loop-items": loop_items.text,
    "loop-own-log": loop_own_log.text,
    "loop-shop": loop_own_log.of_shop,
    "foreign": foreign.text,
    "ope-peers": ope_peers.agreement,
    "verdict-coverage": verdict_coverage.text,
    "verdict-peers": verdict_peers.text,
    "dqn-games": dqn.text,
    "dqn": dqn.catalogues,
    "learned-users": learned_users.text,
    "offline": offline.text,
    "many-items": many_items.text,
    "own-log": own_log.text,
    "own-log-verdicts": own_log.verdicts,
    "own-log-lists": own_log_lists.text,
    "coat": coat_table.text,
    "coat-published": coat_table.published,
    "throughput": speed_tables.throughput,
    "throughput-one-thread": partial(speed_tables.throughput, name="throughput-one-thread"),
    "throughput-allocator": partial(speed_tables.throughput, name="throughput-allocator"),
    "simulator": speed_tables.simulator,
    "on-ray": on_ray.text,
    "on-ray-needs": on_ray.needs,
    "catalogue": speed_tables.catalogue,
    "strangers": strangers.text,
    "ope-coverage": ope_tables.coverage,
    "ope-selection-satiation": partial(ope_tables.selection, env="satiation"),
    "anytime-logs": anytime.log_text,
    "anytime-arms": anytime.aa_text,
    "broken-logs": broken_logs.text,
    "anytime-effects": anytime.effects_text,
    "log-ppo": watch.log_ppo,
    "log-a2c": watch.log_a2c,
}
FIGURES: dict[str, Callable[[Path], str]] = {
    "satiation-gain": learning_tables.gain_over_yardstick,
    "satiation-share": learning_tables.share_of_way,
    "open-bandit-errors": open_bandit.errors,
    "open-bandit-weights": open_bandit.weights,
    "own-log-coverage": own_log.coverage,
    "own-log-lists-coverage": own_log_lists.coverage,
    "loop-own-log-gate": loop_own_log.candidates,
    "anytime-t": partial(anytime.wrong_on_logs, bound="t"),
    "anytime-asymptotic": partial(anytime.wrong_on_logs, bound="asymptotic, enough"),
    "anytime-bernstein": partial(anytime.wrong_on_logs, bound="bernstein"),
    "short-video-gain": partial(learning_tables.gain_over_yardstick, task="short-video"),
    "long-video-gain": partial(learning_tables.gain_over_yardstick, task="long-video"),
    "social-feed-gains": partial(learning_tables.gains_by_seed, task="social-feed", policy="ppo-greedy"),
    "long-video-greedy-gains": partial(learning_tables.gains_by_seed, task="long-video", policy="ppo-greedy"),
    "sb3-allocator": partial(speed_tables.times_of, name="throughput-allocator"),
    "sb3-one-thread": partial(speed_tables.times_of, name="throughput-one-thread"),
    "flagship-update": partial(speed_tables.update_share, name="throughput"),
    "flagship-update-one-thread": partial(speed_tables.update_share, name="throughput-one-thread"),
    "flagship-update-allocator": partial(speed_tables.update_share, name="throughput-allocator"),
    "greedy-seconds-to-0-95": partial(speed_tables.seconds_to_095, policy="greedy"),
    "sampled-seconds-to-0-95": partial(speed_tables.seconds_to_095, policy="sampled"),
    "peers-best-with-our-settings": partial(speed_tables.best_share, whose="ours"),
    "peers-best-with-their-settings": partial(speed_tables.best_share, whose="own"),
    "dense-best": partial(speed_tables.best_share, whose="dense"),
    "million-greedy": partial(speed_tables.million, column="greedy_share_of_oracle"),
    "million-sampled": partial(speed_tables.million, column="share_of_oracle"),
    "million-mf": partial(speed_tables.million, column="mf_share_of_oracle"),
    "million-seconds": partial(speed_tables.million, column="seconds"),
}

HINGES = "2026-12-01"  # the day on which two towers got hinges, and deep sets stocks with a cap
TRAINED = {
    "limits": "limits",
    "loop": "loop",
    "learned-users": "learned_users",
    "strangers": "strangers",
    "shop-month": "shop_month",
    "throughput": "throughput",
    "throughput-one-thread": "throughput-one-thread",
    "throughput-allocator": "throughput-allocator",
}
"""Tables of networks with these parts today, and the CSV file of each. Older rows are marked as such."""


def _of_before(name: str, results: Path) -> str:
    """A sentence below a table whose rows are of networks without hinges and stocks; "" for others."""
    if name not in TRAINED:
        return ""
    date = max(row["date"] for row in every(results, TRAINED[name]))
    if date >= HINGES:
        return ""
    return (
        f"\n\nMeasured on {date}, with networks without the hinges of chapter 3 and the stocks of chapter 5."
    )


def pages(root: Path) -> list[Path]:
    """The pages that may hold figures: README.md and docs/*.md."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def rewritten(page: Path, results: Path) -> str:
    """The page's text with every marked place written anew.

    Raises UserError for an unknown name, for a mark without its end, and for an inline mark that
    begins a line (Markdown would take the whole line for HTML).
    """
    text = page.read_text(encoding="utf-8")
    if len(MARK.findall(text)) != 2 * len(PLACE.findall(text)):
        raise UserError(f"{page.name} has a mark <!-- table:... --> or <!-- figure:... --> without its end.")
    if re.search(r"^ *<!-- figure:", text, re.MULTILINE):
        raise UserError(
            f"{page.name} has a mark <!-- figure:... --> that begins a line: move it into the line."
        )

    def write(mark: re.Match[str]) -> str:
        what, name = mark.group(1), mark.group(2)
        texts = TABLES if what == "table" else FIGURES
        if name not in texts:
            raise UserError(f"{page.name} has the mark {what}:{name}: it must be one of {', '.join(texts)}.")
        content = texts[name](results) + (_of_before(name, results) if what == "table" else "")
        inner = f"\n{content}\n" if what == "table" else content
        return f"<!-- {what}:{name} -->{inner}<!-- /{what} -->"

    return PLACE.sub(write, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a page is stale")
    check = parser.parse_args().check
    texts = {page: rewritten(page, RESULTS) for page in pages(ROOT)}
    stale = {page: text for page, text in texts.items() if text != page.read_text(encoding="utf-8")}
    for page, text in stale.items():
        print(f"{page.relative_to(ROOT)}: {'stale' if check else 'written'}")
        if not check:
            write_text(page, text)
    if check and stale:
        raise SystemExit(1)


if __name__ == "__main__":
    tables.run(main)

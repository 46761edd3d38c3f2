"""`recsys-rl log`: check, export, back up and forget what a server's record holds."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from recsys_rl.cli.extras import need
from recsys_rl.cli.parse import parse, subcommand
from recsys_rl.errors import UserError, amount, one_line
from recsys_rl.utils.files import check_parquet

OVERVIEW = """usage: recsys-rl log check --db FILE [OPTIONS]
       recsys-rl log export --db FILE --out LOG.parquet [OPTIONS]
       recsys-rl log backup --db FILE --out COPY
       recsys-rl log forget --db FILE --user ID

check    check every row of a server's record, and repeat every draw
export   write its finished sessions as a log of decisions, for ope, train --log and data describe
backup   copy the record, and check the copy
forget   delete all rows of one user

export and backup read beside a running server. For check and forget the server must have ended: they take the
lock of the record, which is of one process at a time."""

ENDED, BESIDE = "The server must have ended.", "The server may go on."


@dataclass(frozen=True)
class CheckOptions:
    """The options of `log check`."""

    db: str = "record.sqlite"
    """The record of recsys-rl serve."""
    checkpoint: str | None = None
    """File or folder with the policies that served, if they have moved since."""
    env: str | None = None
    """Environment of the checkpoints. Required if its name holds a module to import."""


@dataclass(frozen=True)
class ExportOptions(CheckOptions):
    """The options of `log export`."""

    out: str | None = None
    """The Parquet file to write."""
    since: int = 0
    """The number that the export before printed: only sessions whose last row came after it."""
    until: int | None = None
    """Only sessions whose last row has at most this number. By default all that have matured."""


@dataclass(frozen=True)
class BackupOptions:
    """The options of `log backup`."""

    db: str = "record.sqlite"
    """The record of recsys-rl serve."""
    out: str | None = None
    """The new file to write."""


@dataclass(frozen=True)
class ForgetOptions:
    """The options of `log forget`."""

    db: str = "record.sqlite"
    """The record of recsys-rl serve."""
    user: str | None = None
    """The user_id whose rows are deleted."""


def run(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(OVERVIEW)
        return
    options = log_options(argv)
    need("serve")
    if isinstance(options, ExportOptions):
        _export(options)
    elif isinstance(options, CheckOptions):
        _check(options)
    elif isinstance(options, BackupOptions):
        _backup(options)
    else:
        _forget(options)


Options = CheckOptions | BackupOptions | ForgetOptions


def log_options(argv: list[str]) -> Options:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    kinds: dict[str, tuple[type[Options], str]] = {
        "check": (CheckOptions, f"Check every row of a server's record, and repeat every draw. {ENDED}"),
        "export": (ExportOptions, f"Write a server's finished sessions as a log of decisions. {BESIDE}"),
        "backup": (BackupOptions, f"Copy a server's record to a new file, and check the copy. {BESIDE}"),
        "forget": (ForgetOptions, f"Delete all rows of one user from a server's record. {ENDED}"),
    }
    kind, what = subcommand("log", argv[0], kinds)
    return parse(kind, kind(), argv[1:], f"recsys-rl log {argv[0]}", what)


def _check(options: CheckOptions) -> None:
    from recsys_rl.serving.at_rest.check import check
    from recsys_rl.serving.at_rest.opened_record import Record

    record = Record(Path(options.db), _path(options.checkpoint), options.env)
    try:
        report = check(record)
    finally:
        record.store.close()
    rows = f"{amount(report.decisions, 'decision')}, {amount(report.events, 'event')}"
    print(f"{record.name}: {amount(report.sessions, 'session')}, {rows}: all rows are whole")
    print(f"{amount(report.replayed, 'draw')} repeated: the same items")
    if report.observed:
        print(f"{amount(report.observed, 'decision')} of an application, which chose elsewhere")
    if report.not_replayed:
        print(f"not all draws were repeated: {report.not_replayed}", file=sys.stderr)


def _export(options: ExportOptions) -> None:
    from recsys_rl.serving.at_rest.export_record import export_record
    from recsys_rl.serving.at_rest.opened_record import open_snapshot
    from recsys_rl.serving.at_rest.record_interval import interval_of

    if options.out is None:
        raise UserError("The file to write is missing: give --out FILE.parquet.")
    check_parquet(Path(options.out), "--out")
    record = open_snapshot(Path(options.db), _path(options.checkpoint), options.env)
    try:
        interval = interval_of(record, options.since, options.until)
        done = export_record(record, Path(options.out), interval)
    finally:
        record.store.close()
    waiting = f" ({done.interval.waiting:,} wait for a later export)" if done.interval.waiting else ""
    rows = amount(sum(done.files.values()), "decision")
    files = ", ".join(
        f"{path} ({count:,})" if len(done.files) > 1 else str(path) for path, count in done.files.items()
    )
    print(f"{rows} of {amount(done.sessions, 'session')}{waiting}: {files}", file=sys.stderr)
    for note in done.notes:
        print(note, file=sys.stderr)
    print(
        f"rows {done.interval.since + 1:,} to {done.watermark:,}; the next export: --since", file=sys.stderr
    )
    print(done.watermark)  # alone on standard output, for scripts


def _backup(options: BackupOptions) -> None:
    from recsys_rl.serving.record.snapshot import backup

    if options.out is None:
        raise UserError("The file to write is missing: give --out FILE.")
    copied = backup(Path(options.db), Path(options.out))
    rows = f"{amount(copied.sessions, 'session')}, {amount(copied.decisions, 'decision')}"
    print(f"{one_line(options.out)}: {rows}: all rows are whole", file=sys.stderr)


def _forget(options: ForgetOptions) -> None:
    from recsys_rl.serving.record.record_schema import Damaged
    from recsys_rl.serving.record.store import Full, Lost, Store

    if options.user is None:
        raise UserError("The user is missing: give --user ID.")
    store = Store(Path(options.db))
    try:
        number = store.erase(options.user)
    except Damaged as damage:
        raise UserError(f"{one_line(options.db)} is damaged ({damage}): copy it from a backup.") from damage
    except (Full, Lost) as error:
        what = "the user is still there" if isinstance(error, Full) else "the user may still be there"
        raise UserError(
            f"{one_line(options.db)} can't be written ({error}): {what}. Make room or copy the file to "
            "another disk, and try again."
        ) from error
    finally:
        store.close()
    print(f"{amount(number, 'decision')} deleted", file=sys.stderr)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)

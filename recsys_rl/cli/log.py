"""`recsys-rl log check`, `recsys-rl log export` and `recsys-rl log forget`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_rl.cli.extras import need
from recsys_rl.cli.parse import parse
from recsys_rl.errors import UserError, amount, listed, one_line
from recsys_rl.settings.fields import did_you_mean
from recsys_rl.utils.files import check_parquet

if TYPE_CHECKING:
    from recsys_rl.serve.export_table import TableExport

OVERVIEW = """usage: recsys-rl log check --db FILE [OPTIONS]
       recsys-rl log export --db FILE --out LOG.parquet [OPTIONS]
       recsys-rl log forget --db FILE --user ID

check    check every row of a server's record, and repeat every draw
export   write its finished sessions as a log of decisions, for ope, train --log and data describe
forget   delete all rows of one user

The server must have ended: a record is of one process at a time."""


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
    else:
        _forget(options)


def log_options(argv: list[str]) -> CheckOptions | ForgetOptions:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    kinds: dict[str, tuple[type[CheckOptions | ForgetOptions], str]] = {
        "check": (CheckOptions, "Check every row of a server's record, and repeat every draw."),
        "export": (ExportOptions, "Write a server's finished sessions as a log of decisions."),
        "forget": (ForgetOptions, "Delete all rows of one user from a server's record."),
    }
    first = argv[0]
    if first not in kinds:
        raise UserError(
            f"There is no command log {first!r}{did_you_mean(first, kinds)}: see recsys-rl log --help."
        )
    kind, what = kinds[first]
    return parse(kind, kind(), argv[1:], f"recsys-rl log {first}", f"{what} The server must have ended.")


def _check(options: CheckOptions) -> None:
    from recsys_rl.serve.record_at_rest import Record, check

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
    from recsys_rl.serve.export_log import export
    from recsys_rl.serve.export_table import export_table
    from recsys_rl.serve.record_at_rest import Record

    if options.out is None:
        raise UserError("The file to write is missing: give --out FILE.parquet.")
    check_parquet(Path(options.out), "--out")
    record = Record(Path(options.db), _path(options.checkpoint), options.env)
    try:
        if record.of_own_log:
            _print_tables(export_table(record, Path(options.out)))
            return
        survey, rows = export(record, Path(options.out))
    finally:
        record.store.close()
    waiting = f" ({survey.not_matured:,} have not matured)" if survey.not_matured else ""
    print(
        f"{amount(rows, 'decision')} of {amount(len(survey.sessions), 'session')}{waiting}: {options.out}",
        file=sys.stderr,
    )
    if survey.unknown:
        names = one_line(listed([str(name) for name, _ in survey.applications]))
        print(
            f"{amount(survey.unknown, 'decision')} of {names} without a probability: bc learns from them, "
            "and what weighs decisions by it leaves their sessions out",
            file=sys.stderr,
        )
    if survey.without_candidates:
        left_out = amount(survey.without_candidates, "session")
        print(
            f"{left_out} left out, as popularity answered for a policy whose first stage had proposed "
            "nothing: no log can hold both probabilities",
            file=sys.stderr,
        )
    if survey.late_feedback:
        print(
            f"{amount(survey.late_feedback, 'session')} with feedback that came after the next decision: the "
            "log's observation of that decision holds it, and the policy had not seen it",
            file=sys.stderr,
        )


def _print_tables(done: TableExport) -> None:
    waiting = f" ({done.not_matured:,} have not matured)" if done.not_matured else ""
    rows = amount(sum(done.files.values()), "decision")
    files = ", ".join(f"{path} ({count:,})" for path, count in done.files.items())
    print(f"{rows} of {amount(done.sessions, 'session')}{waiting}: {files}", file=sys.stderr)
    if done.unknown:
        print(
            f"{amount(done.unknown, 'decision')} without a probability: bc learns, and ope estimates them",
            file=sys.stderr,
        )
    if done.never_shown:
        print(f"{amount(done.never_shown, 'item')} of the place were never shown", file=sys.stderr)


def _forget(options: ForgetOptions) -> None:
    from recsys_rl.serve.record_schema import Damaged
    from recsys_rl.serve.store import Full, Lost, Store

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

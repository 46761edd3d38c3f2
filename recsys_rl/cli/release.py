"""`recsys-rl release start | share | status | promote | freeze | back | history`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from recsys_rl.cli.parse import parse, subcommand
from recsys_rl.errors import UserError
from recsys_rl.serving.loop.release import (
    Releases,
    challenger_in,
    history_lines,
    promoted_lines,
    status_lines,
)
from recsys_rl.settings.fields import Range, check_fields, shown

OVERVIEW = """usage: recsys-rl release start FILE --share 0.1 [OPTIONS]
       recsys-rl release share 0.5
       recsys-rl release status | promote | freeze | back | history [OPTIONS]

start     let a challenger answer a share of the sessions of a running server
share     raise its share, or end a freeze; a smaller one would move people back
status    who serves, and what the canary says
promote   make the challenger the champion, once the canary's answer is better
freeze    give the challenger no new sessions; those under way keep their arm
back      end the release at once; with --promotion VERSION, take the promotion of this champion back
history   all actions, with their reasons and verdicts

The server is at --url http://127.0.0.1:8000. Each action is a row of its record."""


@dataclass(frozen=True)
class ReleaseOptions:
    """The options of `release status` and `release history`."""

    url: str = "http://127.0.0.1:8000"
    """The server."""
    token: str | None = None
    """A token of the server, with the scopes read and admin."""

    def __post_init__(self) -> None:
        check_fields(self)


Part = Annotated[float, Range(0.001, below=1)]


@dataclass(frozen=True)
class ReasonOptions(ReleaseOptions):
    """The options of `release freeze`."""

    reason: str | None = None
    """Why; the record keeps it."""


@dataclass(frozen=True)
class StartOptions(ReasonOptions):
    """The options of `release start`."""

    file: tyro.conf.Positional[str | None] = None
    """The challenger: a checkpoint in the server's folder of policies. The verdict of its gate lies beside
    it."""
    share: Part = 0.1
    """Share that the challenger answers."""
    unit: Literal["session", "user"] = "session"
    """The unit that gets an arm: each session, or each user with all sessions."""


@dataclass(frozen=True)
class ShareOptions(ReleaseOptions):
    """The options of `release share`."""

    share: tyro.conf.Positional[Part | None] = None
    """The new share, larger than the present one; of a frozen release it may be the same."""


@dataclass(frozen=True)
class PromoteOptions(ReasonOptions):
    """The options of `release promote`."""

    challenger: str | None = None
    """The challenger that is meant, as `release status` prints it; another one is not promoted (default: the
    present one)."""
    without_gate: bool = False
    """Promote although the canary's answer is not *better*; the record keeps that."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_version("--challenger", self.challenger)


@dataclass(frozen=True)
class BackOptions(ReasonOptions):
    """The options of `release back`."""

    promotion: str | None = None
    """Not a release ends, but the champion before serves again: the present one, as `release status` prints
    it. Who repeats the command takes back no other promotion."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_version("--promotion", self.promotion)


LEAST_LETTERS = 8  # of a SHA-256, so that they mean one version


def _check_version(option: str, given: str | None) -> None:
    """Raise UserError for a text that can't be the begin of a SHA-256."""
    if given is not None and not re.fullmatch(f"[0-9a-f]{{{LEAST_LETTERS},64}}", given):
        raise UserError(
            f"{option} {shown(given)} is not a version: give it as recsys-rl release status prints it."
        )


KINDS: dict[str, tuple[type[ReleaseOptions], str]] = {
    "start": (StartOptions, "Let a challenger answer a share of the sessions."),
    "share": (ShareOptions, "Raise the challenger's share."),
    "status": (ReleaseOptions, "Print who serves, and what the canary says."),
    "promote": (PromoteOptions, "Make the challenger the champion."),
    "freeze": (ReasonOptions, "Give the challenger no new sessions."),
    "back": (BackOptions, "End the release, or take a promotion back."),
    "history": (ReleaseOptions, "Print all actions of releases."),
}


def run(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(OVERVIEW)
        return
    options = release_options(argv)
    server = Releases(options.url, options.token)
    if argv[0] == "history":
        print("\n".join(history_lines(server.history())))
        return
    print("\n".join(status_lines(_done(server, options))))


def release_options(argv: list[str]) -> ReleaseOptions:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    kind, what = subcommand("release", argv[0], KINDS)
    text = f"{what} The server must run, and its record keeps each action."
    return parse(kind, kind(), argv[1:], f"recsys-rl release {argv[0]}", text)


def _done(server: Releases, options: ReleaseOptions) -> dict[str, Any]:
    """The state after the action. Raises UserError."""
    reason = (options.reason or "") if isinstance(options, ReasonOptions) else ""
    if isinstance(options, StartOptions):
        if options.file is None:
            raise UserError("The challenger is missing: give its file, recsys-rl release start FILE.")
        sha256, verdict = challenger_in(Path(options.file))
        return server.start(sha256, options.share, options.unit, reason, verdict)
    if isinstance(options, ShareOptions):
        if options.share is None:
            raise UserError("The share is missing: give it, recsys-rl release share 0.5.")
        return server.share(options.share)
    if isinstance(options, PromoteOptions):
        found = server.promote(options.challenger or "", options.without_gate, reason)
        print(*promoted_lines(server, found["champion"]), sep="\n")
        return found
    if isinstance(options, BackOptions):
        if options.promotion is not None:
            return server.take_back(options.promotion, reason)
        return server.back(reason)
    if isinstance(options, ReasonOptions):
        return server.freeze(reason)
    return server.status()

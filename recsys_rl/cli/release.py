"""`recsys-rl release`: each action of a release, its state and its history."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from recsys_rl.cli.parse import parse, subcommand
from recsys_rl.errors import UserError
from recsys_rl.serving.loop.release import Releases, history_lines, promoted_lines, short, status_lines
from recsys_rl.serving.loop.rounds import verdict_in
from recsys_rl.settings.fields import Range, check_fields, shown
from recsys_rl.utils.files import sha256_of


@dataclass(frozen=True)
class ReleaseOptions:
    """The options of `release status` and `release history`."""

    url: str = "http://127.0.0.1:8000"
    """The server."""
    token: str | None = None
    """A token of the server, with the scopes read and admin."""

    def __post_init__(self) -> None:
        check_fields(self)

    def message(self, server: Releases) -> dict[str, Any]:
        """The fields of the action's message. Raises UserError."""
        return {}


Part = Annotated[float, Range(0.001, below=1)]


@dataclass(frozen=True)
class ReasonOptions(ReleaseOptions):
    """The options of `release freeze`."""

    reason: str | None = None
    """Why; the record keeps it."""

    def message(self, server: Releases) -> dict[str, Any]:
        return {"reason": self.reason or ""}


@dataclass(frozen=True)
class AliasOptions(ReasonOptions):
    """The options of `release alias`."""

    file: tyro.conf.Positional[str | None] = None
    """The version: a checkpoint in the server's folder of policies."""

    def message(self, server: Releases) -> dict[str, Any]:
        if self.file is None:
            raise UserError("The version is missing: give its file, recsys-rl release alias FILE.")
        return {**super().message(server), "sha256": sha256_of(Path(self.file))}


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

    def message(self, server: Releases) -> dict[str, Any]:
        if self.file is None:
            raise UserError("The challenger is missing: give its file, recsys-rl release start FILE.")
        sha256 = sha256_of(Path(self.file))
        own = {"share": self.share, "unit": self.unit, "verdict": verdict_in(Path(self.file).parent, sha256)}
        return {**super().message(server), "sha256": sha256, **own}


@dataclass(frozen=True)
class ShareOptions(ReleaseOptions):
    """The options of `release share`."""

    share: tyro.conf.Positional[Part | None] = None
    """The new share, larger than the present one; of a frozen release it may be the same."""

    def message(self, server: Releases) -> dict[str, Any]:
        if self.share is None:
            raise UserError("The share is missing: give it, recsys-rl release share 0.5.")
        return {"share": self.share}


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

    def message(self, server: Releases) -> dict[str, Any]:
        now, wanted = server.present_challenger(), self.challenger or ""
        if not now.startswith(wanted):
            raise UserError(f"The challenger is {short(now)} and not {wanted}: nothing is promoted.")
        return {**super().message(server), "challenger": now, "without_gate": self.without_gate}


@dataclass(frozen=True)
class BackOptions(ReasonOptions):
    """The options of `release back`."""

    promotion: str | None = None
    """Not a release ends, but the champion before serves again: the present one, as `release status` prints
    it. Who repeats the command takes back no other promotion."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_version("--promotion", self.promotion)

    def message(self, server: Releases) -> dict[str, Any]:
        reason = super().message(server)
        if self.promotion is None:
            mend = "to take a promotion back, name the champion, recsys-rl release back --promotion VERSION"
            return {**reason, "challenger": server.present_challenger(mend)}
        champion: str = server.status()["champion"]
        if not champion.startswith(self.promotion):
            raise UserError(
                f"The champion is {short(champion)} and not {self.promotion}: nothing is taken back."
            )
        return {**reason, "promotion": champion}


LEAST_LETTERS = 8  # of a SHA-256, so that they mean one version


def _check_version(option: str, given: str | None) -> None:
    """Raise UserError for a text that can't be the begin of a SHA-256."""
    if given is not None and not re.fullmatch(f"[0-9a-f]{{{LEAST_LETTERS},64}}", given):
        raise UserError(
            f"{option} {shown(given)} is not a version: give it as recsys-rl release status prints it."
        )


KINDS: dict[str, tuple[type[ReleaseOptions], str]] = {
    "alias": (AliasOptions, "let another version answer everybody at once"),
    "start": (
        StartOptions,
        "let a challenger answer a share of the sessions of a running server",
    ),
    "share": (ShareOptions, "raise its share, or end a freeze; a smaller one would move people back"),
    "status": (ReleaseOptions, "who serves, and what the canary says"),
    "promote": (PromoteOptions, "make the challenger the champion, once the canary's answer is better"),
    "freeze": (ReasonOptions, "give the challenger no new sessions; those under way keep their arm"),
    "back": (
        BackOptions,
        "end the release at once; with --promotion VERSION, take the promotion of this champion back",
    ),
    "history": (ReleaseOptions, "all actions, with their reasons and verdicts"),
}
OVERVIEW = f"""usage: recsys-rl release start FILE --share 0.1 [OPTIONS]
       recsys-rl release share 0.5
       recsys-rl release alias FILE [OPTIONS]
       recsys-rl release status | promote | freeze | back | history [OPTIONS]

{"".join(f"{name:<9} {what}{chr(10)}" for name, (_, what) in KINDS.items())}
The server is at --url http://127.0.0.1:8000. Each action is a row of its record."""


def run(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(OVERVIEW)
        return
    options, action = release_options(argv), argv[0]
    server = Releases(options.url, options.token)
    if action == "history":
        print("\n".join(history_lines(server.history())))
        return
    found = server.status() if action == "status" else server.act(action, **options.message(server))
    if action == "promote":
        print("\n".join(promoted_lines(server, found["champion"])))
    print("\n".join(status_lines(found)))


def release_options(argv: list[str]) -> ReleaseOptions:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    kind, what = subcommand("release", argv[0], KINDS)
    text = f"{what[0].upper()}{what[1:]}. The server must run, and its record keeps each action."
    return parse(kind, kind(), argv[1:], f"recsys-rl release {argv[0]}", text)

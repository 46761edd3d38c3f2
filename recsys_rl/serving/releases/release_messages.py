"""Requests and answers of the routes about a release: the fields of their JSON."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

from recsys_rl.serving.record.record_schema import ReleaseKind, Unit
from recsys_rl.serving.releases.canary import Answer, Count, Guard

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Part = Annotated[float, Meta(ge=0.001, lt=1)]  # of a smaller one the bounds never tell anything
Reason = Annotated[str, Meta(max_length=1_000)]


class StartRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/release/start`."""

    sha256: Sha256
    """The challenger: a checkpoint in the folder of --checkpoint."""
    share: Part
    """The share of the units that it answers."""
    unit: Unit = "session"
    """What gets an arm: each session, or each user with all sessions."""
    reason: Reason = ""
    verdict: dict[str, Any] | None = None
    """That of `recsys-rl gate`: the content of SHA256.gate.json."""


class ShareRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/release/share`."""

    share: Part
    """Larger than the present one, so that nobody moves back."""


class PromoteRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/release/promote`."""

    challenger: Sha256
    """The challenger that is meant: another one, of a later release, is not promoted."""
    without_gate: bool = False
    """Promote it although the canary's answer is not *better*; the record keeps that."""
    reason: Reason = ""


class ReasonRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/release/freeze`."""

    reason: Reason = ""


class BackRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/release/back`."""

    reason: Reason = ""
    challenger: Sha256 | None = None
    """End the release of this challenger."""
    promotion: Sha256 | None = None
    """Or, where no release is under way: take the promotion of this champion back."""


class CanaryAnswer(Struct, frozen=True):
    """The difference of the arms since the start: challenger minus champion, in units of the return of a
    session."""

    difference: float | None
    """null: there are too few sessions for any bound."""
    low: float | None
    high: float | None
    sessions: int
    """Of both arms, that are counted in it."""
    answer: Answer
    doubt: str
    """Why the answer is not *better* now, though that was found; "" if it was not."""


class ReleaseAnswer(Struct, frozen=True):
    """The answer of `GET /v1/release`, and of each action."""

    champion: str
    """SHA-256 of the version that serves; "" where none does."""
    challenger: str | None
    """null: no release is under way."""
    share: float
    unit: Unit
    since: float | None
    """Seconds since 1970."""
    frozen: bool
    """New sessions have no arm."""
    why_frozen: str
    """The reason that the freeze was given; "" without one."""
    counts: dict[str, Count]
    """The sessions of each arm that have matured, and a mean of their returns: the two means differ by the
    canary's difference, as both are of the sessions that are counted in it."""
    canary: CanaryAnswer | None
    guardrails: dict[str, Guard]
    band: list[tuple[int, float, float]] = field(default_factory=list)
    """The bounds of the difference after some numbers of sessions."""
    one_file: str = ""
    """The name of the file of --checkpoint: no other version can serve; "" with a folder."""


class ReleaseRow(Struct, frozen=True):
    """One action."""

    number: int
    time: float
    kind: ReleaseKind
    champion: str
    """The version that serves from then on."""
    challenger: str
    """The version that the action is about."""
    share: float
    unit: Unit
    reason: str
    verdict: Any
    """What the action was based on; null: nothing."""

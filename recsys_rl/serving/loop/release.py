"""`recsys-rl release`: the release of a challenger on a running server, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from recsys_rl.errors import UserError, one_line
from recsys_rl.serving.loop.client import Client

WHEN = "%Y-%m-%d %H:%M:%S"


class Releases:
    """The release of the server at ``url``.

    Each method raises UserError if the server refuses, or if it gives no answer.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.client = Client(url, token)

    def status(self) -> dict[str, Any]:
        """The answer of `GET /v1/release`."""
        found: dict[str, Any] = self.client.get("/v1/release")
        return found

    def history(self) -> list[dict[str, Any]]:
        """All actions, in their order."""
        found: list[dict[str, Any]] = self.client.get("/v1/release/history")
        return found

    def act(self, action: str, **fields: Any) -> dict[str, Any]:
        """The state after an action, with the fields of its message (`POST /v1/release/ACTION`)."""
        return self.client.post(f"/v1/release/{action}", fields)

    def present_challenger(self, mend: str = "start one, recsys-rl release start FILE") -> str:
        """The SHA-256 of the challenger. Raises UserError if there is none; ``mend``: what to do then."""
        challenger: str = self.status()["challenger"] or ""
        if not challenger:
            raise UserError(f"No release is under way: {mend}.")
        return challenger


def promoted_lines(server: Releases, champion: str) -> list[str]:
    """What `release promote` prints before the state: the new champion, and the chance that it leaves."""
    verdict = server.history()[-1]["verdict"]
    items = ((verdict or {}).get("gate") or {}).get("items")
    if type(items) is not float:
        return [f"promoted   {short(champion)}"]
    return [
        f"promoted   {short(champion)}",
        f"effective number of items a decision: {items:.2f}; near 1 its record could judge no other policy",
    ]


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """What `release status` prints."""
    lines = [f"champion   {short(status['champion'])}"]
    if status["challenger"] is None:
        return [*lines, "no release is under way"]
    why = f" ({one_line(status['why_frozen'])})" if status["why_frozen"] else ""
    frozen = f", frozen{why}: no new sessions" if status["frozen"] else ""
    unit, since = status["unit"], _when(status["since"])
    share = f"{status['share']:.0%} of the {unit}s since {since}{frozen}"
    lines.append(f"challenger {short(status['challenger'])}: {share}")
    for arm, count in status["counts"].items():
        lines.append(f"{arm}: {count['sessions']:,} sessions, mean return {count['mean']:.3f}")
    canary = status["canary"]
    band = "too few sessions for a bound"
    if canary["low"] is not None:
        band = f"{canary['difference']:+.3f} ({canary['low']:+.3f} to {canary['high']:+.3f})"
    doubt = f" ({one_line(canary['doubt'])})" if canary["doubt"] else ""
    lines.append(f"canary: {canary['answer']}{doubt}; challenger minus champion {band}")
    for name, guard in status["guardrails"].items():
        harms = ", which harms" if guard["harms"] else ""
        lines.append(f"{name}: challenger {guard['challenger']:.1%}, champion {guard['champion']:.1%}{harms}")
    return lines


def history_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What `release history` prints."""
    if not rows:
        return ["no release so far"]
    return [
        f"{row['number']:>8}  {_when(row['time'])}  {row['kind']:<7}  {short(row['challenger'])}  "
        f"share {row['share']:g}, champion {short(row['champion'])}{_answers(row['verdict'])}"
        f"{'; ' + one_line(row['reason']) if row['reason'] else ''}"
        for row in rows
    ]


def _answers(verdict: Any) -> str:
    """The answers of a verdict in words."""
    if not isinstance(verdict, dict):
        return ""
    if "without_gate" not in verdict:
        return f"; verdict: {one_line(verdict.get('answer', 'none'))}"
    gate = (verdict["gate"] or {}).get("answer", "none")
    without = ", promoted all the same" if verdict["without_gate"] else ""
    return f"; gate: {one_line(gate)}, canary: {one_line(verdict['canary'].get('answer', 'none'))}{without}"


def short(sha256: str) -> str:
    """The begin of a version's SHA-256, as it is printed."""
    return sha256[:12] or "none"


def _when(seconds: float) -> str:
    return time.strftime(WHEN, time.localtime(seconds))

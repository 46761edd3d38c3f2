"""`recsys-rl loop`: one turn of learning from what a server records, judging it, and releasing it.

Each step is done by the function of its own command, and leaves something that can be read: a round and its
candidates in the folder, a verdict beside them, a row of releases in the record. So a turn keeps no state of
its own: before each step it reads all of it, and turn.py says which step is next.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from recsys_rl.errors import UserError, error_text, one_line
from recsys_rl.serving.at_rest.opened_record import open_snapshot
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.serving.draw.versions import files_in
from recsys_rl.serving.loop.client import Refused
from recsys_rl.serving.loop.gate import GateConfig, gate_each
from recsys_rl.serving.loop.release import Releases
from recsys_rl.serving.loop.retrain import RetrainConfig, retrain
from recsys_rl.serving.loop.rounds import (
    Round,
    candidate_in,
    damaged,
    folder_of,
    gate_file,
    latest_round,
    verdict_in,
)
from recsys_rl.serving.loop.served_log import Served, champion_of
from recsys_rl.serving.loop.turn import (
    Back,
    Judge,
    Learn,
    Patience,
    Promote,
    Raise,
    Situation,
    Start,
    Step,
    Verdict,
    Wait,
    next_step,
)
from recsys_rl.serving.record.facts import CHAMPION
from recsys_rl.serving.record.record_schema import Damaged
from recsys_rl.serving.record.snapshot import Snapshot
from recsys_rl.settings.fields import Count, Range
from recsys_rl.utils.files import write_text
from recsys_rl.utils.locks import locked

LOCK = "loop.lock"
UNFIT = ("unknown-policy", "policy-changed", "policy-fails", "not-possible")
"""Codes of a server that can't let a candidate serve; all other refusals are not the candidate's."""


@dataclass(frozen=True)
class LoopConfig(RetrainConfig):
    """One turn of the loop."""

    url: str = "http://127.0.0.1:8000"
    """The server that has this record and this folder."""
    token: str | None = None
    """A token of the server, with the scopes read and admin."""
    share: Annotated[float, Range(0.001, below=1)] = 0.5
    """The highest share of the sessions that a challenger gets: it begins with 0.05, and gets 0.2, 0.5 and
    this one while no harm is seen."""
    sessions: Count = 2000
    """Sessions that must have matured since the last round, before the next one begins."""
    canary: Count = 20_000
    """Sessions of both arms after which a challenger goes back if no difference is seen. After each tenth of
    them it gets its next share."""


def loop(options: LoopConfig) -> list[Step]:
    """Take the steps that are due until nothing is left to do; returns them, the last one a Wait.

    Raises UserError if another loop works in the folder, if the server can't be reached, for a champion that
    takes part in no release, or where a step fails; the policy that serves goes on serving.
    """
    folder = folder_of(options.policies)
    _check_stages(champion_of(Path(options.db), folder, options.env))
    place, steps = _Place(options, folder), list[Step]()
    patience = Patience(options.sessions, options.canary, options.share)
    with _only_one(folder):
        while True:
            step = next_step(place.look(), patience)
            if step in steps:
                raise UserError(
                    f"{place.called(step)} changed nothing, as if somebody changed the release meanwhile: "
                    "see recsys-rl release history, then start the command again."
                )
            steps.append(step)
            if isinstance(step, Wait):
                print(f"waiting: {step.reason}", flush=True)
                return steps
            started = time.monotonic()
            for said in place.do(step):
                print(f"{said} ({time.monotonic() - started:.0f} s)", flush=True)
                started = time.monotonic()


def _check_stages(champion: Served) -> None:
    """Raise UserError for a champion with a first stage, before anything is learned for a release."""
    if champion.checkpoint.config.model_config.candidates:
        raise UserError(
            f"{one_line(champion.file)}, which serves, chooses among candidates of its first stage, and so "
            "takes part in no release: no log could hold the probabilities of both arms. Serve a policy that "
            "was trained with --candidates 0."
        )


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keep other loops out of the folder. Raises UserError."""
    path = folder / LOCK
    try:
        path.touch()
    except OSError as error:
        raise UserError(
            f"{one_line(folder)} can't be written ({error_text(error)}): give another folder with --policies."
        ) from error
    with locked(path, f"Another loop works in {one_line(folder)} now: wait until it has ended."):
        yield


class _Place:
    """Record, folder and server of a turn."""

    def __init__(self, options: LoopConfig, folder: Path) -> None:
        self.options, self.folder = options, folder

    @property
    def server(self) -> Releases:
        """The server, on a new connection: it closes one that waited for a candidate to be learned."""
        return Releases(self.options.url, self.options.token)

    def look(self) -> Situation:
        """What is there now. Raises UserError."""
        server, started = self.server, time.time()
        status, history = server.status(), server.history()
        self._check_folder(status)
        self._check(status, history, started)
        of, canary = latest_round(self.folder), status["canary"] or {}
        changed = max((row["number"] for row in history), default=0)
        challenger = status["challenger"] or ""
        return Situation(
            champion=status["champion"],
            fresh=0 if challenger else self._matured(0 if of is None else of.until),
            challenger=challenger,
            share=status["share"],
            served=self._matured(changed) if challenger else 0,
            ours=bool(challenger) and candidate_in(self.folder, challenger) is not None,
            frozen=status["frozen"],
            why_frozen=status["why_frozen"],
            canary=canary.get("answer", "can't tell"),
            judged=canary.get("sessions", 0),
            doubt=canary.get("doubt", ""),
            round=of,
            verdicts=self._verdicts(of),
            tried=frozenset(row["challenger"] for row in history),
        )

    def _check_folder(self, status: Mapping[str, Any]) -> None:
        """Raise UserError for a server that has one file: before a candidate is learned that can't serve.

        A release that began when it had a folder goes on.
        """
        name, options = one_line(status.get("one_file", "")), self.options
        if name and not status["challenger"]:
            raise UserError(
                f"The server at {options.url} has {name} alone, so no candidate can serve there: start it "
                f"again with the folder, recsys-rl serve --checkpoint {one_line(self.folder)} --db "
                f"{one_line(options.db)}."
            )

    def _check(self, status: Mapping[str, Any], history: Sequence[Any], started: float) -> None:
        """Raise UserError unless the record is that of the server: its champion, releases and decisions."""
        db, decided = Path(self.options.db), self.server.client.get("/v1/decisions")["decisions"]
        store = Snapshot(db)
        try:
            releases = {row.number: row.time for row in store.releases()}
            same = _has_latest(store, decided, started)
            champion = store.facts.get(CHAMPION, "")
        except Damaged as damage:
            raise UserError(f"{one_line(db)} is damaged ({damage}): see recsys-rl log check.") from None
        finally:
            store.close()
        known = {row["number"] for row in history}
        before = {number for number, when in releases.items() if when < started}  # others came in since
        same = same and before <= known <= {*releases}
        if champion != status["champion"] or not same:
            raise UserError(
                f"{one_line(db)} is not the record of the server at {self.options.url}: its champion, "
                "releases or decisions are others; give the --db of this server, or the --url of that one."
            )

    def _matured(self, since: int) -> int:
        """The sessions of the record that have matured and ended after the row of this number."""
        record = open_snapshot(Path(self.options.db), self.folder, self.options.env)
        try:
            return len(interval_of(record, since, None).sessions)
        finally:
            record.store.close()

    def _verdicts(self, of: Round | None) -> dict[str, Verdict]:
        found = {}
        for name in () if of is None else of.candidates:
            values = self._verdict(name)
            if of is not None and values is not None and values.get("champion") == of.champion:
                refused = str(values.get("refused", ""))
                found[name] = Verdict(values["answer"], values["difference"] or 0.0, refused)
        return found

    def _verdict(self, sha256: str) -> Mapping[str, Any] | None:
        """The gate's verdict about a candidate; None before there is one. Raises UserError if damaged."""
        values = verdict_in(self.folder, sha256)
        if values is not None and not values.keys() >= {"answer", "difference"}:
            raise damaged(gate_file(self.folder, sha256))
        return values

    def _name(self, sha256: str) -> str:
        candidate = candidate_in(self.folder, sha256)
        return sha256[:8] if candidate is None else Path(candidate.file).stem

    def do(self, step: Step) -> Iterator[str]:
        """Take a step; yields a line about each part of it that is done. Raises UserError."""
        match step:
            case Learn(number):
                files = retrain(_only(RetrainConfig, self.options))
                yield f"round {number} learned {', '.join(file.stem for file in files)}"
            case Judge(candidates):
                yield from self._judge(candidates)
            case Start(candidate, share):
                yield self._start(candidate, share)
            case Raise(challenger, share):
                self.server.act("share", share=share)
                yield f"{self._name(challenger)} serves {100 * share:g} % of the sessions"
            case Promote(challenger):
                self.server.act("promote", challenger=challenger, reason="canary: better")  # and no other one
                yield f"{self._name(challenger)} is promoted"
            case Back(challenger, reason):
                self.server.act("back", challenger=challenger, reason=reason)  # it may have stopped meanwhile
                yield f"{self._name(challenger)} went back: {reason}"

    def called(self, step: Step) -> str:
        """A step in words."""
        match step:
            case Learn(number):
                return f"Learning round {number}"
            case Judge(names):
                return f"Judging {', '.join(map(self._name, names))}"
            case Start(name):
                return f"The start of {self._name(name)}"
            case Raise(name):
                return f"A larger share of {self._name(name)}"
            case Promote(name):
                return f"The promotion of {self._name(name)}"
            case Back(name):
                return f"The way back of {self._name(name)}"
        return "Waiting"

    def _start(self, sha256: str, share: float) -> str:
        """Let the candidate serve; where it can't, that is written into its verdict, and the next one may.

        A new judgement by `recsys-rl gate` forgets it, so that the candidate is tried again.
        """
        verdict = self._verdict(sha256) or {}
        reason = f"gate: {verdict['answer']}"
        try:
            self.server.act("start", sha256=sha256, share=share, reason=reason, verdict=verdict)
        except Refused as refused:
            if refused.code not in UNFIT:
                raise
            values = {**verdict, "refused": str(refused)}
            write_text(gate_file(self.folder, sha256), json.dumps(values, indent=1) + "\n")
            return f"{self._name(sha256)} can't serve: {refused}"
        return f"{self._name(sha256)} serves {100 * share:g} % of the sessions"

    def _judge(self, names: Sequence[str]) -> Iterator[str]:
        files, options = files_in(self.folder), self.options
        lost = next((name for name in names if name not in files), None)
        if lost is not None:
            raise UserError(
                f"{one_line(self.folder)} lacks the candidate {lost[:8]} of the last round: copy it from a "
                "backup, or delete the folder of that round, to learn another one."
            )
        settings = GateConfig(
            db=options.db,
            policies=str(self.folder),
            env=options.env,
            threads=options.threads,
            quiet=True,
        )
        for found in gate_each(settings, [files[name] for name in names]):
            yield (
                f"gate: {self._name(found.challenger)} {found.answer}, {found.difference:+.2f} "
                f"({found.low:+.2f} to {found.high:+.2f}) on {found.sessions:,} held-out sessions"
            )


def _only(kind: type[RetrainConfig], options: LoopConfig) -> RetrainConfig:
    """The settings of the learning alone."""
    return kind(**{name: getattr(options, name) for name in kind.__dataclass_fields__})


def _has_latest(store: Snapshot, decided: Sequence[Mapping[str, Any]], started: float) -> bool:
    """True if the record has the latest decision of the server's list that was written by its moment."""
    highest, when = store.latest_row()
    numbers = {int(row["decision_id"]): row["time"] for row in decided}
    number = max((number for number in numbers if number <= highest), default=None)
    if number is None:
        return not decided and (not highest or when >= started)
    found = store.decision(number)
    return found is not None and found[1].time == numbers[number]

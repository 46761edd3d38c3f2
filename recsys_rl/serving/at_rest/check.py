"""`recsys-rl log check`: each row of a record is whole, has the arm of its release, and is drawn again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from recsys_rl.errors import UserError, amount
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.draw.decide_again import is_same, replay
from recsys_rl.serving.record.record_schema import Damaged, Decision, ServedPolicy, Session, SessionRows
from recsys_rl.serving.record.store_reader import StoreReader
from recsys_rl.serving.releases.arms import NONE, Assigned, History

NAMED = 5  # problems that a check prints


@dataclass
class Checked:
    """The rows and draws that a check went through."""

    sessions: int = 0
    decisions: int = 0
    events: int = 0
    observed: int = 0  # decisions of an application, which drew nothing here
    replayed: int = 0
    not_replayed: str = ""  # why some draws were not repeated


def check(record: Record) -> Checked:
    """Check every row of the record, and repeat every draw. Raises UserError with the first problems."""
    problems, checked = list[str](), Checked()
    integrity = record.store.integrity()
    if integrity != "ok":
        problems.append(f"SQLite says: {integrity}")
    try:
        problems += record.store.changed_rows()
        sessions = _sound_sessions(record, problems, checked)
        problems += wrong_arms(record.store, record.policies, sessions)
    except Damaged as damage:
        problems.append(str(damage))
        sessions = []
    for group in record.groups(iter(sessions)):
        try:
            for step in replay(group, record.version):
                for again in step:
                    if again.decision.application:
                        continue
                    if is_same(again.decision, again.result):
                        checked.replayed += 1
                    else:
                        problems.append(
                            f"decision {again.decision.number} of session {group[again.at].session.number} "
                            "gives other items when it is drawn again"
                        )
        except UserError as error:
            checked.not_replayed = str(error)
    if problems:
        more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise UserError(
            f"{record.name} has {amount(len(problems), 'problem')}: {'; '.join(problems[:NAMED])}{more}."
        )
    return checked


def _sound_sessions(record: Record, problems: list[str], checked: Checked) -> list[SessionRows]:
    """The sessions with draws that have all their rows; damaged ones are added to ``problems``."""
    sound = []
    for number in record.store.sessions():
        try:
            rows = record.store.session(number)
        except Damaged as damage:
            problems.append(f"{damage}: its rows are missing, changed or doubled")
            continue
        if rows is None or not rows.decisions:
            problems.append(f"session {number} has no decision")
            continue
        known = {decision.number for decision in rows.decisions}
        if any(event.decision not in known for event in rows.events):
            problems.append(f"session {number} has an event of a decision that it does not hold")
            continue
        checked.sessions += 1
        checked.decisions += len(rows.decisions)
        checked.events += len(rows.events)
        observed = sum(decision.application != "" for decision in rows.decisions)
        checked.observed += observed
        if observed < len(rows.decisions):  # else there is no draw to repeat
            sound.append(rows)
    return sound


def wrong_arms(
    store: StoreReader, policies: Mapping[int, ServedPolicy], sessions: Iterable[SessionRows]
) -> list[str]:
    """What is wrong with the arms of these sessions.

    Nothing where the rows of releases or people are damaged: ``StoreReader.changed_rows`` names those.
    """
    try:
        releases, people = store.releases(), {person.number: person.name for person in store.people()}
    except Damaged:
        return []
    numbers, states = [row.number for row in releases], [History()]  # before the first row, and after each
    for row in releases:
        states.append(states[-1].after(row))
    found = list[str]()
    for rows in sessions:
        name = people.get(rows.session.person)
        if name is None:
            found.append(f"session {rows.session.number} is of a person whom the record does not hold")
            continue
        for decision in rows.decisions:
            state = states[bisect_left(numbers, decision.number)]
            found += _wrong(state, name, rows.session, decision, policies)
    return found


def _wrong(
    state: History, person: str, session: Session, decision: Decision, policies: Mapping[int, ServedPolicy]
) -> Iterator[str]:
    """What is wrong with the arm of a decision, if ``state`` is that of its moment."""
    given, release = Assigned(decision.arm, decision.arm_probability), state.under_way
    if given == NONE:  # also where the file of the challenger was missing
        return
    if release is None or release.assigned(person, session.visit, session.number) != given:
        yield f"decision {decision.number} has another arm than the releases give"
        return
    wanted = release.challenger if given.arm == "challenger" else state.champion
    if decision.policy in policies and policies[decision.policy].sha256 != wanted:
        yield f"decision {decision.number} is of another version than its arm"

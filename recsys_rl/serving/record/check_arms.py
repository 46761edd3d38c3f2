"""The check that each decision of a record has the arm that its releases gave to the session."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

from recsys_rl.serving.record.record_schema import Damaged, Decision, ServedPolicy, Session, SessionRows
from recsys_rl.serving.record.store_reader import StoreReader
from recsys_rl.serving.releases.arms import NONE, Assigned, History


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

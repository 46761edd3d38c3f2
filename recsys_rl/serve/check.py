"""`recsys-rl log check`: is every row of the record whole, and does every draw give its items again?"""

from __future__ import annotations

from dataclasses import dataclass

from recsys_rl.errors import UserError, amount
from recsys_rl.serve.reading import Record
from recsys_rl.serve.replay import same, walk
from recsys_rl.serve.rows import Whole
from recsys_rl.serve.store import Damaged

NAMED = 5  # problems that are printed


@dataclass
class Checked:
    """What was found."""

    sessions: int = 0
    decisions: int = 0
    events: int = 0
    replayed: int = 0
    not_replayed: str = ""  # why some draws were not repeated


def check(record: Record) -> Checked:
    """Check the whole record. Raises UserError with the first problems, if there are any."""
    problems, found = list[str](), Checked()
    sqlite = record.store.whole()
    if sqlite != "ok":
        problems.append(f"SQLite says: {sqlite}")
    try:
        problems += record.store.wrong()
        sessions = _whole_sessions(record, problems, found)
    except Damaged as damage:
        problems.append(str(damage))
        sessions = []
    for group in record.groups(iter(sessions)):
        try:
            for step in walk(group, record.version):
                for at, decision, _, drawn in step:
                    if same(decision, drawn):
                        found.replayed += 1
                    else:
                        number = group[at][0].number
                        problems.append(
                            f"decision {decision.number} of session {number} gives other items when it is "
                            "drawn again"
                        )
        except UserError as error:
            found.not_replayed = str(error)
    if problems:
        more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise UserError(
            f"{record.name} has {amount(len(problems), 'problem')}: {'; '.join(problems[:NAMED])}{more}."
        )
    return found


def _whole_sessions(record: Record, problems: list[str], found: Checked) -> list[Whole]:
    """The sessions whose rows are whole; the others are problems."""
    sound = []
    for number in record.store.sessions():
        try:
            whole = record.store.session(number)
        except Damaged as damage:
            problems.append(f"{damage}: its rows are missing, changed or doubled")
            continue
        if whole is None or not whole[1]:
            problems.append(f"session {number} has no decision")
            continue
        _, decisions, events = whole
        known = {decision.number for decision in decisions}
        if any(event.decision not in known for event in events):
            problems.append(f"session {number} has an event of a decision that it does not hold")
            continue
        found.sessions += 1
        found.decisions += len(decisions)
        found.events += len(events)
        sound.append(whole)
    return sound

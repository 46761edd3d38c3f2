"""The gate: may a candidate serve beside the champion? Judged on the record's sessions of held-out users.

It is a sieve: a model of the users is asked (gate_compare.py), whose error no interval covers. What passes is
for the canary to decide.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import load_at_home, split_of
from recsys_rl.errors import UserError, one_line
from recsys_rl.make import agent_of
from recsys_rl.settings.fields import Range, check_fields
from recsys_rl.settings.names import platform_of
from recsys_rl.tables.decision_log import catalogue_hash
from recsys_rl.utils.files import sha256_of, write_text
from recsys_rl.utils.progress import announce
from recsys_rl.workflows.gate_card import card
from recsys_rl.workflows.gate_compare import bench, compare, hidden_part, other_objective
from recsys_rl.workflows.gate_rule import GateVerdict, decide
from recsys_rl.workflows.rounds import (
    LOG,
    Interval,
    candidate_in,
    folder_of,
    gate_file,
    held,
    known_in,
    latest_round,
    parts_in,
)
from recsys_rl.workflows.served_log import Served, champion_of, export_new, heldout_log, survey


@dataclass(frozen=True)
class GateConfig:
    """One judgement of a candidate."""

    challenger: str | None = None
    """The candidate: a checkpoint, of recsys-rl retrain or of your own."""
    db: str = "record.sqlite"
    """The record of recsys-rl serve."""
    policies: str | None = None
    """The folder of the policies that the server has, with the champion and the log of recsys-rl retrain
    (default: the folder of the candidate)."""
    env: str | None = None
    """Environment of the policies. Required if its name holds a module to import."""
    threads: Annotated[int, Range(0, 1024)] = 1
    """Threads of torch; 0 = torch's choice."""
    quiet: bool = False
    """Print no progress and no card."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.env is not None:
            platform_of(self.env)


def gate(options: GateConfig) -> GateVerdict:
    """Judge the candidate, and write SHA256.gate.json and SHA256.gate.md into the folder of the policies.

    A candidate of a round is judged on the sessions that the folder's log holds; for another policy, what is
    new in the record is exported first. The same log gives the same verdict.

    Raises UserError for a policy of other items or sessions than the record's, and for a record without
    sessions of held-out users.
    """
    if options.challenger is None:
        raise UserError(
            "The candidate is missing: give its checkpoint, as in recsys-rl gate policies/ppo-1.pt."
        )
    file = Path(options.challenger)
    policies = folder_of(str(file.parent) if options.policies is None else options.policies)
    if options.threads:
        torch.set_num_threads(options.threads)
    champion = champion_of(Path(options.db), policies, options.env)
    sha256, challenger = sha256_of(file), load_at_home(file, options.env)
    _check(file, sha256, challenger, champion)
    known = candidate_in(policies, sha256)
    if known is None or not parts_in(policies):
        with held(policies):  # no round may get other sessions while it learns
            export_new(Path(options.db), policies, options.env)
    log, last = policies / LOG, latest_round(policies)
    if not options.quiet:
        announce(
            f"judging {one_line(file)} against {one_line(champion.file)} on held-out users of the record"
        )
    decisions = heldout_log(log, (challenger, champion.checkpoint))
    if decisions is None:
        raise UserError(
            f"{one_line(log)} has no session of a held-out user, so nobody can judge {one_line(file)}: try "
            "again when more people have come."
        )
    on = bench(log, decisions, champion.checkpoint)
    compared = compare(on, agent_of(challenger), agent_of(champion.checkpoint))
    number = known.round if known is not None else 1 if last is None else last.number
    sides, interval = survey(log, champion.checkpoint), (0, parts_in(policies)[-1][1])
    if sides.nothing:
        compared = dataclasses.replace(compared, doubt="the record shows one item everywhere")
    look = _look(policies, sha256, champion.sha256, interval)
    verdict = decide(compared, sha256, champion.sha256, interval, number, look, bool(sides.lacking))
    doubts = [sides.lacking, other_split(policies, champion.checkpoint)]
    doubts += [hidden_part(on), other_objective(on, challenger, one_line(file.name))]
    text = card(verdict, file.name, champion.file.name, tuple(filter(None, doubts)))
    write_text(gate_file(policies, sha256), json.dumps(verdict.values(), indent=1) + "\n")
    write_text(policies / f"{sha256}.gate.md", text)
    if not options.quiet:
        print(text)
    return verdict


def other_split(policies: Path, champion: Checkpoint) -> str:
    """A sentence if the folder's rounds had other held-out users than the champion; "" if not."""
    known = (candidate_in(policies, name) for name in known_in(policies))
    others = {(of.heldout_fraction, of.seed) for of in known if of is not None} - {split_of(champion)}
    if not others:
        return ""
    seeds = ", ".join(f"seed {seed}, {share:.0%}" for share, seed in sorted(others))
    return (
        f"Other rounds of this folder held out other users ({seeds}): where the champion's weights began "
        "with one of theirs, they have seen some of the users that are judged on."
    )


def _look(policies: Path, challenger: str, champion: str, interval: Interval) -> int:
    """The number of this judgement in the folder: each new one spends its own part of alpha.

    The same policies on the same sessions are the same judgement, and their verdict stays the same.
    """
    looks = [0]
    for path in policies.glob("*.gate.json"):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            look = int(values.get("look", values["round"]))  # before, only rounds were counted
            same = (values["champion"], values["to"]) == (champion, interval[1])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a damaged one counts no more
        if same and path == gate_file(policies, challenger):
            return look
        looks.append(look)
    return 1 + max(looks)


def _check(file: Path, sha256: str, challenger: Checkpoint, champion: Served) -> None:
    """Raise UserError for a candidate that can't serve in the champion's place."""
    name, theirs = one_line(file), champion.checkpoint
    if sha256 == champion.sha256:
        raise UserError(f"{name} is the policy that serves: give a candidate.")
    if challenger.config.env != theirs.config.env:
        raise UserError(
            f"{name} is of {one_line(challenger.config.env)}, and the policy that serves is of "
            f"{one_line(theirs.config.env)}: give a candidate of the same platform."
        )
    if challenger.world.is_empty or catalogue_hash(challenger.catalogue) != catalogue_hash(theirs.catalogue):
        raise UserError(
            f"{name} is of another catalogue than the policy that serves: give a candidate of the same items."
        )
    if challenger.interface != theirs.interface:
        raise UserError(
            f"{name} is of other sessions than the policy that serves (length, slate or pieces of the "
            "context): give a candidate of the same settings."
        )

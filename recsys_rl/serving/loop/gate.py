"""The gate: may a candidate serve beside the champion? Judged on the record's sessions of held-out users.

It is a sieve: a model of the users is asked (gate_compare.py), whose error no interval covers. What passes is
for the canary to decide.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import load_at_home, split_of
from recsys_rl.errors import UserError, one_line
from recsys_rl.logs.ope.place import challenger_of, check_place
from recsys_rl.logs.source import over_log
from recsys_rl.serving.loop.gate_card import card
from recsys_rl.serving.loop.gate_compare import (
    Bench,
    bench,
    compare,
    effective_items,
    hidden_part,
    new_part,
    other_objective,
    unjudged,
)
from recsys_rl.serving.loop.gate_rule import GateVerdict, decide
from recsys_rl.serving.loop.rounds import (
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
from recsys_rl.serving.loop.served_log import Served, Sides, champion_of, export_new, heldout_log
from recsys_rl.settings.fields import Range, check_fields
from recsys_rl.settings.names import platform_of
from recsys_rl.utils.files import sha256_of, write_text
from recsys_rl.utils.progress import announce


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


class Challenger(NamedTuple):
    """A policy that is judged."""

    file: Path
    sha256: str
    checkpoint: Checkpoint
    round: int | None  # that learned it; None: no round of the folder did


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
    (verdict,) = gate_each(options, [Path(options.challenger)])
    return verdict


def gate_each(options: GateConfig, files: Sequence[Path]) -> Iterator[GateVerdict]:
    """Judge candidates as ``gate`` does, on the same sessions: of users whom none of them has learned from.

    The log is read once, and users are learned from it once. Each verdict is written before the next
    candidate is judged.
    """
    policies = folder_of(str(files[0].parent) if options.policies is None else options.policies)
    if options.threads:
        torch.set_num_threads(options.threads)
    champion = champion_of(Path(options.db), policies, options.env)
    challengers = [_challenger(file, policies, champion, options.env) for file in files]
    if not parts_in(policies) or any(of.round is None for of in challengers):
        with held(policies):  # no round may get other sessions while it learns
            export_new(Path(options.db), policies, options.env)
    names = ", ".join(one_line(file) for file in files)
    if not options.quiet:
        announce(f"judging {names} against {one_line(champion.file)} on held-out users of the record")
    log, interval = policies / LOG, (0, parts_in(policies)[-1][1])
    champion = champion._replace(checkpoint=over_log(champion.checkpoint, (str(log),)))
    challengers = [of._replace(checkpoint=over_log(of.checkpoint, (str(log),))) for of in challengers]
    for of in challengers:
        check_place(of.file, of.checkpoint, champion.checkpoint)
    checkpoints = [*(of.checkpoint for of in challengers), champion.checkpoint]
    sides, decisions = heldout_log(log, checkpoints)
    if decisions is None:
        raise UserError(
            f"{one_line(log)} has no session of a held-out user, so nobody can judge {names}: try again when "
            "more people have come."
        )
    on = bench(log, decisions, champion.checkpoint)
    hearing = _Hearing(policies, champion, interval, sides, on)
    for of in challengers:
        verdict, text = hearing.judge(of)
        # The verdict last: with it a candidate counts as judged, and no card is written again.
        write_text(policies / f"{of.sha256}.gate.md", text)
        write_text(gate_file(policies, of.sha256), json.dumps(verdict.values(), indent=1) + "\n")
        if not options.quiet:
            print(text)
        yield verdict


@dataclass(frozen=True)
class _Hearing:
    """All that candidates of one gate share."""

    policies: Path
    champion: Served
    interval: Interval  # of the record, that the log holds
    sides: Sides
    on: Bench

    def judge(self, of: Challenger) -> tuple[GateVerdict, str]:
        """The verdict about a candidate, and its card."""
        agent, last = challenger_of(of.checkpoint, self.champion.checkpoint), latest_round(self.policies)
        items = effective_items(self.on.of, agent), self.on.champion_items
        lacks = unjudged(self.on.of, agent)
        compared = dataclasses.replace(compare(self.on, agent), items=items, unjudged=lacks)
        if self.sides.nothing:
            compared = dataclasses.replace(compared, doubt="the record shows one item everywhere")
        number = of.round or (1 if last is None else last.number)
        sha256, lacking = self.champion.sha256, self.sides.lacking
        look = _look(self.policies, of.sha256, sha256, self.interval)
        verdict = decide(compared, of.sha256, sha256, self.interval, number, look, bool(lacking))
        doubts = (
            lacking,
            other_split(self.policies, self.champion.checkpoint),
            hidden_part(self.on),
            self.on.cut,
            self.on.gone,
            new_part(lacks),
            other_objective(self.on, of.checkpoint, one_line(of.file.name)),
        )
        return verdict, card(verdict, of.file.name, self.champion.file.name, [*filter(None, doubts)])


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
            look = int(values["look"])
            same = (values["champion"], values["to"]) == (champion, interval[1])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a damaged one counts no more
        if same and path == gate_file(policies, challenger):
            return look
        looks.append(look)
    return 1 + max(looks)


def _challenger(file: Path, policies: Path, champion: Served, env: str | None) -> Challenger:
    """The candidate in this file. Raises UserError for the policy that serves."""
    sha256, checkpoint = sha256_of(file), load_at_home(file, env)
    if sha256 == champion.sha256:
        raise UserError(f"{one_line(file)} is the policy that serves: give a candidate.")
    known = candidate_in(policies, sha256)
    return Challenger(file, sha256, checkpoint, None if known is None else known.round)

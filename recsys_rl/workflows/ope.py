"""Estimate from a log of decisions the return that a policy would have earned."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from recsys_rl.agents.behaviours import Fixed
from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.data.decision_checks import check_catalogue
from recsys_rl.data.decision_reader import read_decisions
from recsys_rl.data.decisions import DecisionLog
from recsys_rl.data.target import check_support, read_target
from recsys_rl.data.transitions import observations, showable
from recsys_rl.dials import Seed
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.behaviours import SEERS, Behaviours, check_once
from recsys_rl.evaluation.players import Table
from recsys_rl.lookup import DEFAULT_ALGO, platform_of
from recsys_rl.objective.weighted import check_weights, parse_weights, stream_weights, weighted
from recsys_rl.ope.estimate import Estimate, recommend, with_doubt
from recsys_rl.ope.fits import Fit, mlp, ridge
from recsys_rl.ope.intervals import PROMISES
from recsys_rl.ope.judging import Difference, Judgement, Terms, Way, difference, judgement
from recsys_rl.ope.logged import Judged, Prepared, certain_mass, judge, prepare, sessions_of
from recsys_rl.ope.printing import plain, print_result
from recsys_rl.ope.propensities import WARNING, PropensityFit, with_propensities
from recsys_rl.ope.world import Worlds, fit_world, world
from recsys_rl.protocols import Behaviour
from recsys_rl.schema import Count, Positive, Range, Share, check_fields
from recsys_rl.types import UserError
from recsys_rl.utils.files import check_writable, write_text
from recsys_rl.utils.seeding import generators


@dataclass(frozen=True)
class OpeConfig:
    """One evaluation of policies on a log of decisions."""

    log: str | None = None
    """The Parquet file with the decisions (recsys-rl record)."""
    checkpoint: str = f"checkpoints/{DEFAULT_ALGO}.pt"
    """The file with the policy and the catalogue."""
    env: str | None = None
    """Environment of the checkpoint. Required if its name holds a module to import."""
    policy: tuple[str, ...] = ()
    """Row of the evaluation table to judge: ppo, ppo-greedy, random, popularity ... (default: the
    checkpoint's own policy, sampled)."""
    compare: tuple[str, str] | None = None
    """Two policies of the table: their difference on the same sessions, and how many more rows settle it."""
    target: str | None = None
    """CSV or Parquet file with the probabilities of another policy: session, step, propensity."""
    json: str | None = None
    """Write all estimates to this file."""
    discount: Share | None = None
    """Discount per step (default: the log's)."""
    weights: tuple[str, ...] = ()
    """Weights of reward streams as NAME=NUMBER (default: the platform's)."""
    q: Literal["ridge", "mlp"] = "ridge"
    """Regression of the reward model."""
    world: bool = True
    """Estimate also by a learned one-step model in which the policy is played."""
    draws: Count = 8
    """Actions drawn from the policy for each row, over which its values are averaged."""
    interval: Literal["student-t", "bootstrap", "bernstein"] = "student-t"
    """Interval over users. bernstein is for one step, and needs --largest-weight."""
    largest_weight: Positive | None = None
    """The largest weight that the policy and the logging policy can have."""
    seed: Seed = 0
    """The seed of folds, draws and models."""
    threads: Annotated[int, Range(0, 1024)] = 1
    """Threads of torch; 0 = torch's choice."""
    cache_dir: str | None = None
    """Folder for the searched weights of the policy `rule` (default: the user's cache folder)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.env is not None:
            platform_of(self.env)
        check_once(self.policy)
        if self.compare is not None and self.compare[0] == self.compare[1]:
            raise UserError("--compare needs two different policies.")
        if self.interval != "bernstein" and self.largest_weight is not None:
            raise UserError("--largest-weight belongs to --interval bernstein: give both, or neither.")


def ope(options: OpeConfig) -> dict[str, Any]:
    """Judge the policies, print the table, and write the JSON file. Returns its content.

    Raises UserError for a file or a policy that can't be used.
    """
    if options.log is None:
        raise UserError("The log is missing: give --log FILE.parquet.")
    if options.json is not None:
        check_writable(Path(options.json), "--json")
        for given in (options.log, options.checkpoint, options.target):
            if given is not None and Path(options.json).resolve() == Path(given).resolve():
                raise UserError(f"--json {options.json} is a file that is read: give another name.")
    if options.threads:
        torch.set_num_threads(options.threads)
    log = read_decisions(options.log)
    checkpoint = load(options.checkpoint, options.env)
    if checkpoint.world.is_empty:
        raise UserError(
            f"{options.checkpoint} is of {checkpoint.config.env}, which has no catalogue of items."
        )
    check_catalogue(options.log, log, checkpoint.catalogue)
    bench = Bench.make(options, checkpoint, log)
    judged = bench.judge_all()
    table = recommend({name: x.estimates for name, x in judged.items()}, bench.trusted)
    found = bench.compare(judged, table)
    result = bench.result(table, found)
    print_result(result)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


@dataclass(frozen=True)
class Bench:
    """One log with all that is needed to judge policies on it."""

    options: OpeConfig
    prepared: Prepared
    behaviours: Behaviours
    streams: dict[str, torch.Generator]
    fitted: PropensityFit | None  # of estimated propensities; None: the log has its own

    @classmethod
    def make(cls, options: OpeConfig, checkpoint: Checkpoint, log: DecisionLog) -> Bench:
        streams = generators(
            options.seed, "evaluation users", "policy", "random", "mixture", "ope", "propensities"
        )
        users = checkpoint.population.heldout[:1]
        table = Table(checkpoint.config, checkpoint.world, users, options.seed, torch.device("cpu"), streams)
        env = table.env()
        assert isinstance(env, RecEnv)
        if log.header.interface != env.interface:
            raise UserError(
                f"{options.log} was logged in other sessions than those of {options.checkpoint} (platform, "
                "length, or pieces of the context): give the checkpoint of the same settings."
            )
        known = tuple(signal.name for signal in env.signals)
        if log.header.signals != known:
            raise UserError(
                f"{options.log} has the signals {', '.join(log.header.signals)}, but the rewards of "
                f"{checkpoint.config.env} are made of {', '.join(known)}: write them in this order."
            )
        given = parse_weights(options.weights)
        check_weights(given, env.streams)
        rewards = weighted(env.user_model.rewards(log.feedback), stream_weights(env.streams, given))  # (E,)
        gamma = log.header.discount if options.discount is None else options.discount
        fitted = None
        if not log.has_propensities:
            log, fitted = with_propensities(log, checkpoint.catalogue, streams["propensities"])
        prepared = prepare(log, checkpoint.catalogue, rewards, gamma, streams["ope"])
        return cls(options, prepared, Behaviours(checkpoint, table, env, options.cache_dir), streams, fitted)

    @property
    def trusted(self) -> str:
        return "wdr" if self.prepared.grid.shape[1] > 1 else "dr"

    @property
    def names(self) -> list[str]:
        """The policies of the table to judge."""
        chosen = list(self.options.policy)
        chosen += [name for name in self.options.compare or () if name not in chosen]
        return chosen or ([] if self.options.target else [self.behaviours.name])

    def policy(self, name: str) -> Behaviour:
        """The policy of the table. Raises UserError if the log can't judge it."""
        if name in SEERS:
            raise UserError(f"{name} reads the simulator's state, which no log holds: choose another policy.")
        policy = self.behaviours.make(name)
        rule, theirs = self.behaviours.candidate_rule([name]), self.prepared.log.header.candidates
        if rule != theirs and (rule or name != "random"):
            raise UserError(
                f"{name} chooses among {rule or 'all items'}, but the log's policy among "
                f"{theirs or 'all items'}: their probabilities can't be compared."
            )
        return policy

    def fit(self) -> Fit:
        return ridge() if self.options.q == "ridge" else mlp(self.streams["ope"], epochs=10)

    def worlds(self, keep: Tensor | None = None) -> Worlds | None:
        """The world model, of the rows where ``keep`` (E,) is True; None if the log can't have one."""
        of = self.prepared
        if not self.options.world or of.log.header.interface.events or of.log.candidates is not None:
            return None
        log, rows, rewards, folds = of.log, of.rows, of.rewards, of.folds
        if keep is not None:
            log, rows, rewards, folds = log.rows(keep), rows[keep], rewards[keep], folds[keep]
        return fit_world(log, of.catalogue, of.features, rows, rewards, folds, of.gamma, self.streams["ope"])

    def judge_all(self) -> dict[str, Judgement]:
        policies = {name: self.policy(name) for name in self.names}  # all refusals come first
        target = None if self.options.target is None else read_target(self.options.target, self.prepared.log)
        worlds = self.worlds() if policies else None
        found = {name: self._judge(policy, worlds) for name, policy in policies.items()}
        if self.options.target is not None and target is not None:
            found[f"target {Path(self.options.target).name}"] = self._judge_target(*target)
        return found

    def _judge(self, policy: Behaviour, worlds: Worlds | None) -> Judgement:
        draws = 1 if isinstance(policy, Fixed) else self.options.draws
        mine = judge(self.prepared, policy, draws)
        played = None if worlds is None else world(worlds, policy)
        return self._judgement(mine.logprobs, mine, played)

    def _judge_target(self, logprobs: Tensor, every: Tensor | None) -> Judgement:
        of = self.prepared
        if every is None:
            return self._judgement(logprobs, None, None)
        drawn = torch.multinomial(
            every, self.options.draws, replacement=True, generator=self.streams["policy"]
        )
        features = torch.zeros(*drawn.shape, of.rows.shape[1])
        for at, obs in observations(of.log, of.catalogue):
            check_support(every[at], showable(obs, every.shape[1]), at, of.log)
            for k in range(drawn.shape[1]):
                features[at, k] = of.features(obs, drawn[at, k].unsqueeze(1))
        return self._judgement(logprobs, Judged(logprobs, features), None)

    def _judgement(self, logprobs: Tensor, mine: Judged | None, played: Tensor | None) -> Judgement:
        of, options = self.prepared, self.options
        sessions = sessions_of(of, logprobs, None if mine is None else mine.draws, self.fit())
        way = Way(options.interval, largest_weight=options.largest_weight, seed=options.seed)
        found = judgement(
            sessions,
            of.users,
            way,
            certain_mass(of, logprobs),
            of.most,
            {} if played is None else {"world": Terms(played)},
        )
        if self.fitted is None:
            return found
        return dataclasses.replace(found, estimates=with_doubt(found.estimates, WARNING))

    def compare(self, judged: dict[str, Judgement], table: dict[str, list[Estimate]]) -> Difference | None:
        """The difference of the two policies of --compare, by the recommended estimator."""
        if self.options.compare is None:
            return None
        first, second = self.options.compare
        name = next((x.estimator for x in table[first] if x.recommended), None)
        doubt = ""
        if name is None:
            doubt = "Do not trust this: no estimator is recommended on this log."
        elif name == "world":
            doubt = "This is the answer of a learned model, and the interval does not cover its error."
        name = name or self.trusted
        terms = judged[first].terms[name], judged[second].terms[name]
        rows = self.prepared.log.num_rows
        return difference((first, second), name, *terms, self.prepared.users, rows, doubt=doubt)

    def world_checks(self) -> list[dict[str, Any]]:
        """For each logger: its return, predicted by a world of the other loggers' sessions."""
        of, names = self.prepared, self.prepared.log.header.loggers
        if len(names) < 2 or not self.options.world:
            return []
        found = []
        for place, name in enumerate(names):
            theirs = of.log.loggers != place
            if name not in self.behaviours.names or not bool(theirs.any()) or bool(theirs.all()):
                continue
            policy = self.behaviours.make(name)
            if not self._logged_by(policy, place):  # a policy of the same name, of another checkpoint
                continue
            if len(of.log.users[theirs].unique()) < 3 or (worlds := self.worlds(theirs)) is None:
                continue
            mine = of.log.loggers[of.grid[:, 0]] == place
            discounts = of.gamma ** torch.arange(of.grid.shape[1], dtype=torch.float64)
            earned = float((of.on_grid(of.rewards)[mine] @ discounts).mean())
            predicted = float(world(worlds, policy).mean())
            found.append({"logger": name, "predicted": predicted, "earned": earned})
        return found

    def _logged_by(self, policy: Behaviour, place: int) -> bool:
        """True if ``policy`` gives the log's own probabilities under the logger at ``place``."""
        theirs = self.prepared.log.logger_logprobs
        mine = judge(self.prepared, policy, 0).logprobs
        return theirs is not None and torch.allclose(mine.exp(), theirs[:, place].exp(), atol=1e-4)

    def result(self, table: dict[str, list[Estimate]], found: Difference | None) -> dict[str, Any]:
        """The content of the JSON file."""
        rows: list[dict[str, Any]] = []
        for name, estimates in table.items():
            rows += [{"policy": name, **row.row()} for row in estimates]
        of = self.prepared
        by_model = any(row["recommended"] and row["estimator"] == "world" for row in rows)
        return {
            "about": {
                "log": self.options.log,
                "checkpoint": self.options.checkpoint,
                "decisions": of.log.num_rows,
                "sessions": len(of.grid),
                "users": len(of.users.unique()),
                "discount": of.gamma,
                "loggers": list(of.log.header.loggers),
                "interval": self.options.interval,
                "promise": PROMISES[self.options.interval],
                "promises": {kind: PROMISES[kind] for kind in sorted({str(row["interval"]) for row in rows})},
            },
            "rows": [{name: plain(value) for name, value in row.items()} for row in rows],
            "propensities": None if self.fitted is None else self.fitted.row(),
            "world_checks": self.world_checks() if by_model else [],
            "compare": None
            if found is None
            else {name: plain(x) for name, x in dataclasses.asdict(found).items()} | {"text": found.sentence},
        }

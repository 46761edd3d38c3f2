"""The log of all decisions of a training run, which its observer writes while it trains (--record)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, restoring
from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import UserError, error_text
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, assemble, concatenate
from recsys_rl.logs.experience.decisions import forbidden, outcomes
from recsys_rl.logs.writer import write_decisions
from recsys_rl.protocols import Simulator
from recsys_rl.settings.config import Config
from recsys_rl.settings.fields import check_used
from recsys_rl.training.observers import Observer
from recsys_rl.training.run import Run
from recsys_rl.types import Action, Obs, Step, World, tensors_of


def make_recorder(config: Config, world: World, env: Any) -> Recorder:
    """The writer of the run's decisions, for ``record`` of train_config.

    Raises UserError where no log can hold them.
    """
    settings, model = config.train_config, config.model_config
    assert settings.record is not None
    acts = isinstance(env, RecEnv)
    check_used(("record", not acts, "only on a platform with a catalogue, in which the run acts"))
    if env.interface.visits > 1:
        raise UserError("--record: a log holds sessions of one visit, so train with --visits 1.")
    header = DecisionHeader(
        loggers=(config.algo,),
        interface=env.interface,
        signals=tuple(signal.name for signal in env.signals),
        discount=config.agent_config.discount,
        platform=config.env,
        catalogue=catalogue_hash(world.catalogue),
        candidates=f"{model.candidates} candidates of the policy in training" if model.candidates else "",
    )
    return Recorder(Path(settings.record), env, world.population.user_ids, header)


class Recorder:
    """Collects the decisions of N users who step together, and writes whole sessions as parts of a folder.

    The parts are read together as one log (logs/parts.py). A session gets its number when it has ended,
    so numbers ascend from part to part. Call ``decided`` before and ``answered`` after each step.
    """

    def __init__(self, folder: Path, env: Simulator, user_ids: Tensor, header: DecisionHeader) -> None:
        """``user_ids``: (U,) ids of the rows of the population."""
        self.folder, self.env, self.user_ids, self.header = folder, env, user_ids, header
        self.waiting: list[DecisionLog] = []  # of sessions under way, or not yet written
        self.next_session = 0
        self.clock = 0  # steps so far
        self._decision: dict[str, Tensor] = {}
        self._given: Mapping[str, Tensor] = {}

    def decided(self, obs: Obs, action: Action) -> None:
        """``obs`` as the policy saw it, and its action, before the environment's step."""
        users = self.user_ids[self.env.session.users]
        self._decision = {"users": users, "steps": self.env.session.steps.clone(), "items": action.items}
        self._decision["logprobs"] = action.logprob.double()
        if obs.candidates is not None:
            self._decision["candidates"] = obs.candidates
        self._decision |= forbidden(obs, self.env)
        self._given = {name: values.clone() for name, values in self.env.given().items()}

    def answered(self, step: Step) -> None:
        """The outcome of the step."""
        known, device = self._decision, step.terminated.device
        n = len(known["users"])
        self.waiting.append(
            assemble(
                self.header,
                # The row of the environment, until the session has ended.
                sessions=torch.arange(n, device=device),
                times=torch.full((n,), self.clock, device=device),
                given=self._given,
                **{**known, **outcomes(step, known["items"])},
            ).map(Tensor.cpu)
        )
        self.clock += 1

    def write(self, number: int, finished: bool = False) -> None:
        """Write the sessions that have ended as the part ``number``, if there are any.

        ``finished``: the run ends here, which cuts the sessions under way. Raises UserError.
        """
        if not self.waiting:
            return
        log = concatenate(self.waiting)
        log = log.rows(log.sessions.argsort(stable=True))
        last = torch.cat([log.sessions[1:] != log.sessions[:-1], torch.ones(1, dtype=torch.bool)])
        if finished:
            log = dataclasses.replace(log, truncated=log.truncated | (last & ~log.terminated))
        ended = log.terminated | log.truncated
        # Rows after the last end of their user are of a session under way.
        ends_so_far = torch.zeros(int(log.sessions[-1]) + 1, dtype=torch.int64)
        ends_so_far.scatter_add_(0, log.sessions, ended.long())
        before = ended.long().cumsum(0) - ended.long()  # ends before each row, of all users
        first = ends_so_far.cumsum(0) - ends_so_far  # ends of the users before
        done = before - first[log.sessions] < ends_so_far[log.sessions]
        self.waiting = [] if bool(done.all()) else [log.rows(~done)]
        if not bool(done.any()):
            return
        complete = log.rows(done)
        numbers = complete.steps.eq(0).long().cumsum(0) - 1 + self.next_session
        self.next_session = int(numbers[-1]) + 1
        part = self.folder / f"part-{number:08}.parquet"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder} can't be made ({error_text(error)}): mend that.") from error
        write_decisions(part, dataclasses.replace(complete, sessions=numbers))

    def resume_at(self, number: int) -> None:
        """Delete the parts after ``number``, which a run wrote after its last checkpoint."""
        for path in self.folder.glob("part-*.parquet"):
            if int(path.stem.partition("-")[2]) > number:
                path.unlink()

    def state_dict(self) -> dict[str, Tensor]:
        """The sessions under way, after ``write``."""
        state = {
            "recorded_sessions": torch.tensor(self.next_session),
            "recorded_steps": torch.tensor(self.clock),
        }
        rows = concatenate(self.waiting) if self.waiting else None
        return state | (
            {} if rows is None else {f"waiting.{k}": values for k, values in tensors_of(rows).items()}
        )

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises KeyError or TypeError if it doesn't fit."""
        self.next_session, self.clock = int(state["recorded_sessions"]), int(state["recorded_steps"])
        own = {k.removeprefix("waiting."): values for k, values in state.items() if k.startswith("waiting.")}
        given = {k.removeprefix("given."): own.pop(k) for k in [*own] if k.startswith("given.")}
        self.waiting = [assemble(self.header, given=given, **own)] if own else []


class Recording(Observer):
    """Records the decisions of the run, and writes them before each checkpoint."""

    def __init__(self, run: Run, before: Checkpoint | None) -> None:
        """``before``: the checkpoint of a resumed run. Raises UserError where no log can hold them."""
        self.recorder = make_recorder(run.config, run.world, run.env)
        if before is not None:
            with restoring():
                self.recorder.resume_at(run.updates)
                self.recorder.load_state_dict(before.experience)
        run.experience.watcher = self.recorder

    def saving(self, run: Run) -> None:
        self.recorder.write(run.updates, run.updates == run.num_updates)

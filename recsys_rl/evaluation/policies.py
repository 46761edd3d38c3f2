"""The policies of the table as behaviours: policies with exact action probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.checkpoints import row_name
from recsys_rl.evaluation.mixture import EpsilonMixture, Fixed
from recsys_rl.evaluation.players import Table
from recsys_rl.evaluation.rivals.linear_bandit import Thompson
from recsys_rl.evaluation.row_makers import RowMakers
from recsys_rl.make import make_agent, restore
from recsys_rl.protocols import Behaviour
from recsys_rl.records import PRIVILEGED
from recsys_rl.settings.fields import did_you_mean
from recsys_rl.types import Obs, UserError
from recsys_rl.utils.seeding import stream_seed
from recsys_rl.utils.tensor_cache import digest


def check_once(names: Sequence[str]) -> None:
    """Raise UserError if --policy has a name twice."""
    for index, name in enumerate(names):
        if name in names[:index]:
            raise UserError(f"--policy {name} is given twice: name each policy once.")


class Behaviours:
    """Makes the behaviours of one checkpoint, by the names of the table's rows."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        table: Table,
        env: RecEnv,
        cache_dir: str | None,
        reading: Callable[[Any], Any] | None = None,
    ) -> None:
        """
        Args:
            table: its ``streams`` hold "policy", "random" and "mixture".
            reading: makes of an agent one that reads a log of another encoding of the context.
        """
        self.checkpoint, self.table, self.reading = checkpoint, table, reading
        self.name = row_name(checkpoint.config)
        self.two_stage = checkpoint.config.model_config.candidates > 0
        self.references = RowMakers(table, env, checkpoint.total_steps, cache_dir, estimates=True).makers()
        self.env = env

    @property
    def names(self) -> list[str]:
        """The names of all policies."""
        return [*self.learned, *self.references]

    @property
    def learned(self) -> list[str]:
        return [self.name, f"{self.name}-greedy", "untrained"]

    def make(self, name: str) -> Behaviour:
        """The policy of this name. Raises UserError if there is none."""
        if name not in self.names:
            near = did_you_mean(name, self.names)
            raise UserError(f"There is no policy {name!r}{near}: choose from {', '.join(self.names)}.")
        if name not in self.learned:
            if name == "lints" and self.env.interface.slate_size > 1:
                raise UserError("The probability of a slate of lints is unknown: choose another policy.")
            policy: Any = self.references[name]().agent
            return policy if name == "random" or isinstance(policy, Thompson) else Fixed(policy)
        agent = self._agent(trained=name != "untrained")
        return Fixed(agent, greedy=True) if name.endswith("-greedy") else agent

    def mix(self, name: str, other: str, epsilon: float) -> Behaviour:
        """``other`` with probability ``epsilon``, else ``name``.

        Candidates of a first stage are those of ``name``, for both. Raises UserError if they can't be shared.
        """
        if name in PRIVILEGED or other in PRIVILEGED:
            raise UserError(
                "A mixture needs policies that choose by the observation alone, and "
                f"{name if name in PRIVILEGED else other} reads the simulator's state: mix others."
            )
        if not self._has_candidates(name):
            if self._has_candidates(other):
                raise UserError(
                    f"{other} chooses among candidates of its first stage, and {name} from the whole "
                    f"catalogue: give --policy {other} --mix random."
                )
            policies = self.make(name), self.make(other)
            return EpsilonMixture(*policies, epsilon, self.table.streams["mixture"])
        if other != "random":
            raise UserError(
                f"{name} chooses among candidates of its first stage, which {other} does not know: mix "
                "random, which then draws among these candidates."
            )
        agent = self._agent(trained=name != "untrained")
        greedy = name.endswith("-greedy")

        def propose(obs: Obs) -> Obs:
            proposed: Obs = agent.propose(obs, greedy)
            return proposed

        policy = Fixed(agent, greedy=True) if greedy else agent
        return EpsilonMixture(policy, self.make(other), epsilon, self.table.streams["mixture"], propose)

    def candidate_rule(self, names: Sequence[str]) -> str:
        """``candidate_rule`` of the only policy; "" if all choose from the whole catalogue.

        Raises UserError if one of several policies has a first stage.
        """
        staged = [name for name in names if self._has_candidates(name)]
        if staged and len(names) > 1:
            raise UserError(
                f"{staged[0]} chooses among candidates of its first stage, so it can't share a log: record "
                "it in a log of its own."
            )
        return candidate_rule(self.checkpoint, staged[0]) if staged else ""

    def _has_candidates(self, name: str) -> bool:
        return self.two_stage and name in self.learned

    def _agent(self, trained: bool) -> Any:
        """The checkpoint's agent, of any algorithm; before its training unless ``trained``."""
        checkpoint, streams = self.checkpoint, dict(self.table.streams)
        config = checkpoint.config
        streams["model"] = torch.Generator().manual_seed(stream_seed(config.train_config.seed, "model"))
        streams["shuffle"] = torch.Generator()
        agent = make_agent(config, self.env.interface, self.table.world.catalogue, 1, streams)
        if trained:
            restore(agent, checkpoint.agent)
        return agent if self.reading is None else self.reading(agent)


def candidate_rule(checkpoint: Checkpoint, name: str) -> str:
    """A text that is equal for two policies if their first stages propose the same candidates.

    ``name`` is that of the row, as the greedy policy draws no candidates. "" without a first stage.
    """
    model = checkpoint.config.model_config
    if not model.candidates:
        return ""
    explore = 0.0 if name.endswith("-greedy") else model.explore_rate
    weights = "before training" if name == "untrained" else digest(checkpoint.agent)[:16]
    return (
        f"{model.candidates} candidates of the index {model.index}, share {explore:g} drawn, by the agent "
        f"{weights}"
    )

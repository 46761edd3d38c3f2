"""Settings shared by platforms, algorithms and sources. Each of these adds its own settings in its own file.

Field names are the option names of the command line (``--num-items``) and, by section, the keys of a TOML
file (``[env_config] num_items = 1000``). The annotations hold the allowed ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Literal

from recsys_rl.errors import FieldError
from recsys_rl.settings.fields import (
    Count,
    CountOrZero,
    NonNegative,
    Positive,
    Range,
    Share,
    Size,
)

Need = Literal["propensities", "rewards", "gains", "single items", "steps"]
"""The needs of learners from logs: "rewards" that differ, "gains": rewards of which none is negative,
"single items" in place of slates, "steps": sessions of more than one decision."""

# The package implicit takes seeds of 32 bits.
Seed = Annotated[int, Range(0, 2**32 - 1)]


@dataclass(frozen=True)
class NoConfig:
    """A section without settings."""


@dataclass(frozen=True)
class DataConfig:
    """The users and the items."""

    data: str = "movielens"
    """movielens, ml-100k, ml-latest-small, ml-1m, ml-25m, ml-32m, kuairec, kuairand, synthetic, clustered, a
    log (.csv, .tsv, .dat, .txt, .inter, .data, gzipped or not, .parquet), a .npy table of item embeddings, or
    your own module:SOURCE."""
    cache_dir: str | None = None
    """Folder for downloads, learned embeddings and `clustered` items (default: the user's cache folder)."""
    heldout_fraction: Annotated[float, Range(above=0, below=1)] = 0.2
    """Share of the users that are held out from training, for evaluation."""
    stranger_share: Share = 0.0
    """Share of the training users whose profiles are withheld in training, so that the policy also learns to
    act for people without a profile (evaluate --strangers)."""


@dataclass(frozen=True)
class EnvConfig:
    """The simulated users of a platform with a catalogue."""

    num_items: Annotated[int, Range(2, 10**9)] = 1000
    """Number of items in the catalogue: the most liked items, or the first rows of a .npy table."""
    embedding_dim: Size = 32
    """Size of user and item embeddings."""
    max_episode_steps: Size = 20
    """Most steps of one session, or of one visit of a life. The end by this limit is a truncation, not a
    termination."""

    @property
    def state_dim(self) -> int:
        """Size of user embedding (+) last item embedding, the context of most platforms."""
        return 2 * self.embedding_dim


@dataclass(frozen=True)
class ModelConfig:
    """The networks."""

    encoder: Literal["mlp", "transformer", "deep-sets"] = "mlp"
    """Encoder of the session's history: mlp has recency-weighted sums alone; the others stand beside these
    sums. deep-sets adds up a small network of each item, without and with a cap, and the transformer reads
    the order."""
    signal_coef: NonNegative = 20.0
    """Weight of the loss by which the transformer learns to expect the next signals."""
    head: Literal["two-tower", "dense", "scorer", "gated"] = "two-tower"
    """two-tower scores item features; dense has one logit per item id; scorer starts as a ranking by profile
    and learns the weight of each visible feature; gated first chooses the kind of the item (attribute `kind`)
    or of each place of a slate, and then the item as two-tower does."""
    hidden_dims: tuple[Size, ...] = (128, 64)
    """Hidden layers of actor and critic."""
    activation: Literal["tanh", "relu", "elu"] = "relu"
    """Activation of the hidden layers."""
    candidates: CountOrZero = 0
    """Items that a first stage proposes for each user and the policy scores; 0 = the whole catalogue."""
    explore_rate: Share = 0.25
    """Share of the candidates drawn uniformly from the catalogue."""
    index: Literal["auto", "exact", "ivf", "hnsw"] = "auto"
    """Search of the first stage: exact, or with faiss; auto is exact up to 20,000 items, else ivf."""


@dataclass(frozen=True)
class AgentConfig:
    """Settings that all algorithms share.

    The settings of each source of batches, below, add ``steps_per_update``: the steps that one update adds to
    the steps of the run.
    """

    lr: Positive = 3e-3
    """Learning rate of Adam."""
    max_grad_norm: Positive = 1.0
    """Largest norm of the gradient; a longer gradient is scaled down to it."""
    anneal_lr: bool = True
    """Lower the learning rate linearly to zero over the run."""

    @property
    def discount(self) -> float:
        """Discount per step of what is learned; 1 without a ``gamma``."""
        return float(getattr(self, "gamma", 1.0))

    def check(self, total_timesteps: int) -> None:
        """Raise FieldError for settings that exclude each other in a run of so many steps."""


@dataclass(frozen=True)
class OnPolicyConfig(AgentConfig):
    """An actor-critic that learns from rollouts (experience/on_policy.py)."""

    gamma: Share = 0.5
    """Discount per step."""
    gae_lambda: Share = 0.9
    """Lambda of generalised advantage estimation; 1 gives the n-step return."""
    bootstrap_time_limit: bool = True
    """Bootstrap from the value after a time limit. Off if the limit is real and the clock is visible."""
    ent_coef: NonNegative = 0.05
    """Weight of the entropy bonus."""
    vf_coef: NonNegative = 0.5
    """Weight of the value loss."""
    n_steps: Size = 32
    """Steps of a rollout for each user."""
    num_envs: Size = 64
    """Users stepped together."""
    anneal_ent: bool = True
    """Lower the entropy bonus linearly to zero over the run, or over its first part: ``ent_fraction``."""
    ent_fraction: Annotated[float, Range(above=0, high=1)] = 1.0
    """Share of the run after which ``anneal_ent`` has lowered the bonus to zero. What follows trains a policy
    that draws less, and so brings its most probable items nearer to what it draws."""
    normalize_advantage: bool = True
    """Standardise the advantages of each gradient step."""

    @property
    def steps_per_update(self) -> int:
        return self.n_steps * self.num_envs

    def check(self, total_timesteps: int) -> None:
        """Raise FieldError if a minibatch is larger than the rollout."""
        batch_size = getattr(self, "batch_size", None)
        if batch_size and batch_size > self.steps_per_update:
            raise FieldError(
                "agent_config.batch_size",
                f"is {batch_size}: it must be at most the rollout, n_steps * num_envs = "
                f"{self.steps_per_update}.",
            )


@dataclass(frozen=True)
class ReplayConfig(AgentConfig):
    """A learner from a buffer of earlier transitions (experience/replay.py)."""

    gamma: Share = 0.5
    """Discount per step."""
    num_envs: Size = 64
    """Users stepped together."""
    train_freq: Size = 32
    """Steps of each user between two updates."""
    gradient_steps: Size = 32
    """Gradient steps of one update."""
    batch_size: Count = 256
    """Transitions of a gradient step."""
    buffer_size: Count = 100_000
    """Transitions in the buffer, the latest ones."""
    learning_starts: CountOrZero = 2_000
    """Transitions in the buffer before the first gradient step."""
    return_steps: Size = 1
    """Steps of reward in a target before the value of the successor (n-step return)."""

    @property
    def steps_per_update(self) -> int:
        return self.train_freq * self.num_envs

    def check(self, total_timesteps: int) -> None:
        """Raise FieldError for a run that never learns, as its buffer never holds enough."""
        held = max(self.buffer_size // self.num_envs, self.return_steps) * self.num_envs
        played = max(1, total_timesteps // self.steps_per_update) * self.steps_per_update
        most, mend = (held, "buffer_size") if held < played else (played, "total_timesteps")
        if self.return_steps * self.num_envs > played:
            raise FieldError(
                "agent_config.return_steps",
                f"is {self.return_steps}: the run has fewer steps of each user, so nothing would be learned; "
                "lower it, or raise total_timesteps.",
            )
        if self.learning_starts > most:
            raise FieldError(
                "agent_config.learning_starts",
                f"is {self.learning_starts}: it must be at most {most}, the transitions that the buffer ever "
                f"holds, or nothing would be learned; lower it, or raise {mend}.",
            )


@dataclass(frozen=True)
class TargetConfig(AgentConfig):
    """A learner of values with a target network (models/target_network.py), beside those of its source."""

    gamma: Share = 0.5
    """Discount per step."""
    bootstrap_time_limit: bool = True
    """Bootstrap from the value after a time limit. Off if the limit is real and the clock is visible."""
    max_grad_norm: Positive = 10.0
    """Largest norm of the gradient; a longer gradient is scaled down to it."""
    tau: Annotated[float, Range(above=0, high=1)] = 0.01
    """Share by which the target network moves to the network after each gradient step; 1 = it is the same."""


@dataclass(frozen=True)
class QConfig(TargetConfig):
    """A learner whose policy follows from its action values (models/q_learner.py)."""

    temperature: Positive = 0.01
    """The trained policy, where it is sampled, draws items with probability softmax(Q / temperature)."""


@dataclass(frozen=True)
class LoggedConfig(AgentConfig):
    """A learner from a log of decisions, without an environment (logs/experience/logged.py)."""

    log: tuple[str, ...] = ()
    """The log of decisions to learn from: a file of `record`, a folder of its parts, or tables of your own
    with named columns (docs/11). --log may be repeated for several tables."""
    checkpoint: str | None = None
    """Checkpoint with the log's catalogue, platform and sizes, in place of --env and its options. The run
    then has no simulator, and `ope` judges the policy on the log's held-out users."""
    batch_size: Count = 128
    """Decisions of a gradient step."""
    gradient_steps: Size = 50
    """Gradient steps of one update."""

    def __post_init__(self) -> None:
        if isinstance(self.log, str | PurePath) or self.log is None:  # one file, also in earlier checkpoints
            object.__setattr__(self, "log", () if self.log is None else (str(self.log),))

    @property
    def steps_per_update(self) -> int:
        return self.batch_size * self.gradient_steps

    @property
    def held_back(self) -> float:
        """Share of the training users whose decisions are not learned from: they tell when to stop."""
        return 0.0

    @property
    def needs(self) -> tuple[Need, ...]:
        """The needs that come from these settings, beside those of the algorithm itself."""
        return ()


@dataclass(frozen=True)
class TrainConfig:
    """The run."""

    total_timesteps: Annotated[int, Range(1, 10**12)] = 100_000
    """Steps over all users together, or decisions that are learned from if the experience is a log. Rounded
    down to whole updates (at least one)."""
    log_interval: Count = 1
    """Updates between two rows of the log."""
    eval_interval: CountOrZero = 10
    """Updates between two evaluations of the greedy policy on training users; 0 = never."""
    save_interval: Count = 10
    """Updates between two checkpoints; the last update always writes one."""
    runs_dir: str = "runs"
    """Folder of all runs; each run makes its own folder in it."""
    name: str | None = None
    """Name of the run's folder, which must be new (default: env-data-algo-seed, then -2, -3 and so on)."""
    seed: Seed = 0
    """The seed of the run; all random generators are derived from it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; auto uses cuda if there is one."""
    threads: Annotated[int, Range(0, 1024)] = 1
    """Torch threads per process: more are faster on idle cores, slower on busy ones; 0 = torch's choice."""
    num_processes: Annotated[int, Range(1, 1024)] = 1
    """Processes of one run: as many as torchrun starts. num_envs and batch_size are divided among them, and
    gradients are averaged."""
    init_from: str | None = None
    """Checkpoint whose weights a new run begins with, of the same data and seed. Steps, optimiser and
    learning rate begin anew."""
    weights: tuple[str, ...] = ()
    """Weights of reward streams for learning, as NAME=NUMBER. A stream without one keeps the platform's
    weight. Tables show the platform's own reward."""
    limit: tuple[str, ...] = ()
    """A limit on a stream, as in "ads<=0.1" or "watch>=0.5" (in quotes), kept by a Lagrange multiplier. It
    may be repeated. --limit help lists the streams of the platform."""
    limit_kp: NonNegative = 2.0
    """Proportional gain of the multiplier of a limit. Gains and multiplier are without a unit: 1 gives the
    stream the weight of all rewards together."""
    limit_ki: NonNegative = 20.0
    """Integral gain of the multiplier, over the whole run: each update adds its share of it, times the
    violation."""
    limit_most: Positive = 100.0
    """Largest multiplier of a limit."""
    novelty: NonNegative = 0.0
    """Bonus for items that were seldom shown in training, in units of the reward, divided by the root of 1 +
    the times that the item was shown. It falls to zero over the run; 0 = none."""
    record: str | None = None
    """New folder for a log of all decisions of the run, in parts, for learning from its replay."""
    judge_log: str | None = None
    """Log of decisions on which each evaluation judges the greedy policy of a run in learned users, by the
    estimator `world` of `ope` on its held-out users. The run stops after 5 evaluations without a higher
    estimate; best.pt has its best policy."""
    world: str | None = None
    """Each evaluation also plays in this platform, with the items, users and interface of the run: the
    simulator behind the log of learned users. It has no effect on learning."""
    tensorboard: bool = False
    """Write TensorBoard events beside the CSV log (needs the extra `tensorboard`)."""

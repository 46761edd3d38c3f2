"""The settings that platforms, algorithms and sources share; each of them adds its own in its own file.

Field names are the option names of the command line (``--num-items``) and, by section, the keys of a TOML
file (``[env_config] num_items = 1000``). The annotations hold the allowed ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from recsys_rl.schema import (
    Count,
    CountOrZero,
    NonNegative,
    Positive,
    Range,
    Share,
    Size,
)

# implicit seeds its embeddings with 32 bits.
Seed = Annotated[int, Range(0, 2**32 - 1)]


@dataclass(frozen=True)
class NoConfig:
    """A section without settings."""


@dataclass(frozen=True)
class DataConfig:
    """The users and the items."""

    data: str = "movielens"
    """movielens, ml-100k, ml-latest-small, ml-1m, ml-25m, ml-32m, kuairec, synthetic, clustered, a
    CSV/Parquet log, or a .npy table of item embeddings."""
    cache_dir: str | None = None
    """Folder for downloads, learned embeddings and `clustered` items (default: the user's cache folder)."""
    heldout_fraction: Annotated[float, Range(above=0, below=1)] = 0.2
    """Share of the users that are held out: they train nothing, and evaluation plays them."""


@dataclass(frozen=True)
class EnvConfig:
    """The simulated users of a platform with a catalogue."""

    num_items: Annotated[int, Range(2, 10**9)] = 1000
    """Items of the catalogue: the most liked ones (of a .npy table: the first ones)."""
    embedding_dim: Size = 32
    """Size of user and item embeddings."""
    max_episode_steps: Size = 20
    """Steps of one session at most; the time limit truncates, it does not terminate."""

    @property
    def state_dim(self) -> int:
        """Size of user embedding (+) last item embedding, the context of most platforms."""
        return 2 * self.embedding_dim


@dataclass(frozen=True)
class ModelConfig:
    """The networks."""

    encoder: Literal["mlp", "gru"] = "mlp"
    """Reader of the session's history: recency-weighted sums, or a GRU."""
    head: Literal["two-tower", "dense"] = "two-tower"
    """two-tower scores item embeddings; dense has one logit per item id."""
    hidden_dims: tuple[Size, ...] = (128, 64)
    """Hidden layers of actor and critic."""
    activation: Literal["tanh", "relu", "elu"] = "relu"
    """Activation of the hidden layers."""
    candidates: CountOrZero = 0
    """Items that a first stage proposes to each user, to choose from; 0 = the whole catalogue."""
    explore_rate: Share = 0.25
    """Share of the candidates that is drawn uniformly from the catalogue."""
    index: Literal["auto", "exact", "ivf", "hnsw"] = "auto"
    """Search of the first stage: exact, or with faiss; auto is exact up to 20,000 items, ivf above."""


@dataclass(frozen=True)
class AgentConfig:
    """An actor-critic that learns from rollouts."""

    lr: Positive = 3e-3
    """Learning rate of Adam."""
    gamma: Share = 0.5
    """Discount per step."""
    gae_lambda: Share = 0.9
    """Lambda of generalised advantage estimation; 1 gives the n-step return."""
    bootstrap_time_limit: bool = True
    """Value what would follow a time limit. Off where observations show the clock and the limit is real."""
    ent_coef: NonNegative = 0.05
    """Weight of the entropy bonus."""
    vf_coef: NonNegative = 0.5
    """Weight of the value loss."""
    max_grad_norm: Positive = 1.0
    """The gradient is scaled down to this norm."""
    n_steps: Size = 32
    """Steps of a rollout for each user."""
    num_envs: Size = 64
    """Users stepped together."""
    anneal_ent: bool = True
    """Let the entropy bonus fall linearly to zero over the run."""
    anneal_lr: bool = True
    """Let the learning rate fall linearly to zero over the run."""
    normalize_advantage: bool = True
    """Standardise the advantage in each gradient step."""


@dataclass(frozen=True)
class TrainConfig:
    """The run."""

    total_timesteps: Annotated[int, Range(1, 10**12)] = 100_000
    """Steps over all users together, rounded down to whole rollouts (one at least)."""
    log_interval: Count = 1
    """Updates between two rows of the log."""
    eval_interval: CountOrZero = 10
    """Updates between two evaluations of the greedy policy on training users; 0 = never."""
    save_interval: Count = 10
    """Updates between two checkpoints; one is always written at the end."""
    runs_dir: str = "runs"
    """Folder of the runs, each of which makes a folder of its own in it."""
    name: str | None = None
    """Name of the run's folder, which must be new (default: env-data-algo-seed, then -2, -3 and so on)."""
    seed: Seed = 0
    """The one seed that every generator comes from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes cuda where there is one."""
    threads: Annotated[int, Range(0, 1024)] = 1
    """Threads of torch in each process: more help on idle cores, stall on busy ones; 0 = torch's choice."""
    num_processes: Annotated[int, Range(1, 1024)] = 1
    """Processes that train together: num_envs and batch_size are divided among them, gradients averaged."""
    join_timeout: Annotated[float, Range(above=0, high=86_400)] = 60.0
    """Seconds in which all processes must have met at the start."""
    weights: tuple[str, ...] = ()
    """Weights of reward streams in what is learned, as NAME=NUMBER; a stream that is not named keeps the
    platform's weight. Tables show the platform's own reward."""
    tensorboard: bool = False
    """Write TensorBoard events beside the CSV log (needs the extra `tensorboard`)."""

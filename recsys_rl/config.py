"""Every dial, as frozen dataclasses; dict <-> config, with an error that names the field.

The field names are the option names of the command line (``--num-items``) and, by section, the keys
of a TOML file (``[env_config] num_items = 1000``).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class DataConfig:
    """Where the people and the items come from."""

    data: str = "movielens"
    """movielens, ml-100k, ml-latest-small, ml-1m, ml-25m, ml-32m, kuairec, synthetic, or a CSV/Parquet file."""
    data_dir: str | None = None
    """Folder that holds the dataset's own files; tried before every other source."""
    cache_dir: str | None = None
    """Folder for downloads and learned embeddings (default: the user's cache folder)."""
    user_column: str = "user"
    """Column of the user id in a CSV/Parquet log."""
    item_column: str = "item"
    """Column of the item id in a CSV/Parquet log."""
    time_column: str = "timestamp"
    """Column of the time in a CSV/Parquet log; the order of the file stands in where it is missing."""
    rating_column: str = "rating"
    """Column of the rating in a CSV/Parquet log; every row is a like where it is missing."""
    like_threshold: float = 4.0
    """A rating of at least this much is a like."""
    min_item_likes: int = 5
    """Items with fewer likes than this are left out."""
    heldout_fraction: float = 0.2
    """Share of the users that are held out: they train nothing and are what evaluation plays."""
    profile_fraction: float = 0.8
    """Earlier share of each user's likes that makes the profile a recommender may know."""


@dataclass(frozen=True)
class EnvConfig:
    """The simulated users."""

    num_items: int = 1000
    """Items of the catalogue: the most liked ones."""
    num_users: int = 2000
    """Users of a synthetic population (a real dataset brings its own)."""
    embedding_dim: int = 32
    """Size of user and item embeddings."""
    max_episode_steps: int = 20
    """Items shown in one session at most; the time limit truncates, it does not terminate."""
    reward_decay: float = 0.99
    """`drift` only: the reward of step t is multiplied by reward_decay**t."""
    user_drift: float = 0.05
    """`drift` only: how much of a shown item is added to the user."""

    @property
    def state_dim(self) -> int:
        """Size of the observation's context: user embedding (+) last item embedding."""
        return 2 * self.embedding_dim

    # The dials of `satiation`; the equations stand in env/satiation.py.
    affinity_gain: float = 8.0
    """`satiation`: logits of appeal per unit of affinity."""
    affinity_midpoint: float = 0.3
    """`satiation`: affinity (cosine of user and item) of an item that is neither good nor bad."""
    satiation_strength: float = 0.5
    """`satiation`: logits of appeal lost per unit of satiation."""
    satiation_recovery: float = 0.8
    """`satiation`: share of the satiation that is left after one step, in [0, 1)."""
    catchiness_gain: float = 2.0
    """`satiation`: logits of appeal that a catchy item gains now and loses in satisfaction after."""
    patience_cost: float = 0.5
    """`satiation`: patience lost per unit of disappointment."""
    noise: float = 0.1
    """`satiation`: standard deviation of the engagement around the appeal."""

    normalize_obs: bool = False
    """`gym:` environments: normalise observations by running mean and variance (saved in the checkpoint)."""
    normalize_reward: bool = False
    """`gym:` environments: divide rewards by the running deviation of the return (saved too)."""


@dataclass(frozen=True)
class ModelConfig:
    """The networks."""

    encoder: Literal["mlp", "gru"] = "mlp"
    """How the session's history is read: recency-weighted sums, or a GRU."""
    head: Literal["two-tower", "dense"] = "two-tower"
    """two-tower scores item embeddings; dense has one logit per item id."""
    hidden_dims: tuple[int, ...] = (128, 64)
    """Hidden layers of actor and critic."""
    activation: Literal["tanh", "relu", "elu"] = "tanh"
    """Activation of the hidden layers."""


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    lr: float = 3e-4
    """Learning rate of Adam."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    clip_eps: float = 0.2
    """Clip range of the probability ratio."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """The gradient is scaled down to this norm."""
    update_epochs: int = 4
    """Passes over each rollout."""
    batch_size: int = 512
    """Samples per gradient step."""
    n_steps: int = 32
    """Steps of a rollout for each user."""
    num_envs: int = 64
    """Users stepped together."""
    target_kl: float | None = None
    """Stop the epochs of an update once approx_kl exceeds this; none = never."""
    clip_vloss: bool = False
    """Clip the value loss around the old value by clip_eps, too."""
    anneal_lr: bool = True
    """Let the learning rate fall linearly to zero over the run."""
    normalize_advantage: bool = True
    """Standardise the advantage in each minibatch."""


@dataclass(frozen=True)
class A2CConfig:
    """Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783), synchronous."""

    lr: float = 7e-4
    """Learning rate of the optimiser."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 1.0
    """1 gives the n-step return; less gives GAE."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """The gradient is scaled down to this norm."""
    n_steps: int = 8
    """Steps of a rollout for each user."""
    num_envs: int = 64
    """Users stepped together."""
    anneal_lr: bool = True
    """Let the learning rate fall linearly to zero over the run."""
    normalize_advantage: bool = False
    """Standardise the advantage in each update."""


@dataclass(frozen=True)
class TrainConfig:
    """The run."""

    total_timesteps: int = 100_000
    """Steps over all users together."""
    log_interval: int = 1
    """Updates between two rows of the log."""
    eval_interval: int = 10
    """Updates between two evaluations of the greedy policy on training users; 0 = never."""
    save_interval: int = 10
    """Updates between two checkpoints; one is always written at the end."""
    log_dir: str = "logs"
    """Folder of the runs' logs."""
    checkpoint_dir: str = "checkpoints"
    """Folder of the checkpoint, <algo>.pt."""
    seed: int = 0
    """The one seed that every generator comes from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes cuda where there is one."""
    threads: int = 0
    """Threads of torch on the CPU; 0 leaves torch's own choice."""
    tensorboard: bool = False
    """Write TensorBoard events beside the CSV log (needs the extra `tensorboard`)."""


@dataclass(frozen=True)
class Config:
    """One run, whole."""

    algo: Literal["ppo", "a2c"] = "ppo"
    """The algorithm."""
    env: str = "drift"
    """drift, satiation, or gym:Id / gym:module:Id for anyone's environment."""
    data_config: DataConfig = field(default_factory=DataConfig)
    env_config: EnvConfig = field(default_factory=EnvConfig)
    model_config: ModelConfig = field(default_factory=ModelConfig)
    agent_config: PPOConfig | A2CConfig = field(default_factory=PPOConfig)
    train_config: TrainConfig = field(default_factory=TrainConfig)

"""Every dial, as frozen dataclasses; dict <-> config and TOML <-> config.

The field names are the option names of the command line (``--num-items``) and, by section, the keys
of a TOML file (``[env_config] num_items = 1000``). The annotations hold the allowed ranges: a Config that
exists is a valid one.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from recsys_rl.errors import FieldError, UserError
from recsys_rl.presets import PRESETS as PRESETS
from recsys_rl.schema import (
    Count,
    CountOrZero,
    Finite,
    NonNegative,
    Positive,
    Range,
    Share,
    Size,
    build,
    check_fields,
    did_you_mean,
    hints,
    sections,
    shown,
)

T = TypeVar("T")

# implicit seeds its embeddings with 32 bits.
Seed = Annotated[int, Range(0, 2**32 - 1)]


@dataclass(frozen=True)
class DataConfig:
    """Where the people and the items come from."""

    data: str = "movielens"
    """movielens, ml-100k, ml-latest-small, ml-1m, ml-25m, ml-32m, kuairec, synthetic, clustered, a
    CSV/Parquet log, or a .npy table of item embeddings."""
    data_dir: str | None = None
    """Folder that holds the dataset's own files; tried before every other source."""
    cache_dir: str | None = None
    """Folder for downloads, learned embeddings and `clustered` items (default: the user's cache folder)."""
    user_column: str = "user"
    """Column of the user id in a CSV/Parquet log."""
    item_column: str = "item"
    """Column of the item id in a CSV/Parquet log."""
    time_column: str = "timestamp"
    """Column of the time in a CSV/Parquet log; the order of the file stands in where it is missing."""
    rating_column: str = "rating"
    """Column of the rating in a CSV/Parquet log; every row is a like where it is missing."""
    like_threshold: Finite = 4.0
    """A rating of at least this much is a like."""
    min_item_likes: Count = 5
    """Items with fewer likes than this are left out."""
    heldout_fraction: Annotated[float, Range(above=0, below=1)] = 0.2
    """Share of the users that are held out: they train nothing and are what evaluation plays."""
    profile_fraction: Annotated[float, Range(above=0, below=1)] = 0.8
    """Earlier share of each user's likes that makes the profile a recommender may know."""


@dataclass(frozen=True)
class EnvConfig:
    """The simulated users."""

    num_items: Annotated[int, Range(2, 10**9)] = 1000
    """Items of the catalogue: the most liked ones (of a .npy table: the first ones)."""
    num_users: Annotated[int, Range(2, 10**9)] = 2000
    """Users of a synthetic population (a real dataset brings its own)."""
    embedding_dim: Size = 32
    """Size of user and item embeddings."""
    max_episode_steps: Size = 20
    """Items shown in one session at most; the time limit truncates, it does not terminate."""
    reward_decay: Share = 0.99
    """`drift` only: the reward of step t is multiplied by reward_decay**t."""
    user_drift: NonNegative = 0.05
    """`drift` only: how much of a shown item is added to the user."""

    @property
    def state_dim(self) -> int:
        """Size of the observation's context: user embedding (+) last item embedding."""
        return 2 * self.embedding_dim

    # The dials of `satiation`; the equations stand in env/satiation.py.
    affinity_gain: NonNegative = 4.0
    """`satiation`: logits of appeal per unit of affinity."""
    affinity_midpoint: Annotated[float, Range(-1, 1)] = 0.25
    """`satiation`: affinity (cosine of user and item) of an item that is neither good nor bad."""
    satiation_strength: NonNegative = 0.5
    """`satiation`: logits of appeal lost per unit of satiation."""
    satiation_recovery: Annotated[float, Range(0, below=1)] = 0.9
    """`satiation`: share of the satiation that is left after one step, in [0, 1)."""
    catchiness_gain: NonNegative = 3.0
    """`satiation`: logits of appeal that a catchy item gains now and loses in satisfaction after."""
    patience_cost: NonNegative = 0.5
    """`satiation`: patience lost per unit of disappointment."""
    patience_start: Annotated[float, Range(above=0, high=1)] = 0.5
    """`satiation`: patience at the start of a session, of 1 at most."""
    patience_gain: NonNegative = 2.0
    """`satiation`: logits of appeal per unit of patience above (or below) patience_start."""
    noise: NonNegative = 0.1
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
    hidden_dims: tuple[Size, ...] = (128, 64)
    """Hidden layers of actor and critic."""
    activation: Literal["tanh", "relu", "elu"] = "relu"
    """Activation of the hidden layers."""
    candidates: CountOrZero = 0
    """Items that a first stage proposes to each user, to choose from; 0 = the whole catalogue."""
    explore_rate: Share = 0.25
    """Share of the candidates that is drawn uniformly from the catalogue."""
    index: Literal["auto", "exact", "ivf", "hnsw"] = "auto"
    """How the first stage searches: exactly, or with faiss; auto is exact up to 20,000 items, ivf above."""


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    lr: Positive = 3e-3
    """Learning rate of Adam."""
    gamma: Share = 0.5
    """Discount per step."""
    gae_lambda: Share = 0.9
    """Lambda of generalised advantage estimation."""
    bootstrap_time_limit: bool = True
    """Value what would follow a time limit. Off where observations show the clock and the limit is real."""
    clip_eps: Annotated[float, Range(above=0, below=1)] = 0.2
    """Clip range of the probability ratio."""
    ent_coef: NonNegative = 0.05
    """Weight of the entropy bonus."""
    vf_coef: NonNegative = 0.5
    """Weight of the value loss."""
    max_grad_norm: Positive = 1.0
    """The gradient is scaled down to this norm."""
    update_epochs: Size = 4
    """Passes over each rollout."""
    batch_size: Count = 512
    """Samples per gradient step."""
    n_steps: Size = 32
    """Steps of a rollout for each user."""
    num_envs: Size = 64
    """Users stepped together."""
    target_kl: Positive | None = None
    """Stop the epochs of an update once approx_kl exceeds this; none = never."""
    clip_vloss: bool = False
    """Clip the value loss around the old value by clip_eps, too."""
    anneal_ent: bool = True
    """Let the entropy bonus fall linearly to zero over the run."""
    anneal_lr: bool = True
    """Let the learning rate fall linearly to zero over the run."""
    normalize_advantage: bool = True
    """Standardise the advantage in each minibatch."""


@dataclass(frozen=True)
class A2CConfig:
    """Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783), synchronous."""

    lr: Positive = 3e-3
    """Learning rate of the optimiser."""
    gamma: Share = 0.5
    """Discount per step."""
    gae_lambda: Share = 0.9
    """1 gives the n-step return; less gives GAE."""
    bootstrap_time_limit: bool = True
    """Value what would follow a time limit. Off where observations show the clock and the limit is real."""
    ent_coef: NonNegative = 0.05
    """Weight of the entropy bonus."""
    vf_coef: NonNegative = 0.5
    """Weight of the value loss."""
    max_grad_norm: Positive = 1.0
    """The gradient is scaled down to this norm."""
    n_steps: Size = 8
    """Steps of a rollout for each user."""
    num_envs: Size = 32
    """Users stepped together."""
    anneal_ent: bool = True
    """Let the entropy bonus fall linearly to zero over the run."""
    anneal_lr: bool = True
    """Let the learning rate fall linearly to zero over the run."""
    normalize_advantage: bool = True
    """Standardise the advantage in each update."""


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
    tensorboard: bool = False
    """Write TensorBoard events beside the CSV log (needs the extra `tensorboard`)."""


_PRESET: Any = None  # a section that is left out: Config.__post_init__ makes it


@dataclass(frozen=True)
class Config:
    """One run, whole.

    A section that is left out takes the preset of ``algo`` on ``env``: ``Config(env="satiation")``. One that
    is given stands as it is, with its class's own defaults; to change a few fields of a preset, use
    ``from_dict(Config, {"env": "satiation", "agent_config": {"lr": 0.01}})``.
    """

    algo: Literal["ppo", "a2c"] = "ppo"
    """The algorithm."""
    env: str = "drift"
    """drift, satiation, or gym:Id / gym:module:Id for anyone's environment."""
    data_config: DataConfig = _PRESET
    env_config: EnvConfig = _PRESET
    model_config: ModelConfig = _PRESET
    agent_config: PPOConfig | A2CConfig = _PRESET
    train_config: TrainConfig = _PRESET

    def __post_init__(self) -> None:
        """Raise UserError for a value out of its range, and for values that can't go together."""
        preset = _preset(self.algo, self.env)
        for name, cls in _section_classes(type(self), self.algo).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, build(cls, preset.get(name, {}), name))
        check_fields(self)
        self.check_together()

    def check_together(self) -> None:
        check_env(self.env)
        agent, env = self.agent_config, self.env_config
        if type(agent) is not AGENT_CONFIGS[self.algo]:
            raise UserError(
                f"agent_config is a {type(agent).__name__}: algo {self.algo} takes "
                f"{AGENT_CONFIGS[self.algo].__name__}."
            )
        if isinstance(agent, PPOConfig) and agent.batch_size > agent.n_steps * agent.num_envs:
            raise FieldError(
                "agent_config.batch_size",
                f"is {agent.batch_size}: it must be at most the rollout, n_steps * num_envs = "
                f"{agent.n_steps * agent.num_envs}.",
            )
        self._check_processes()
        name = self.train_config.name
        if name is not None and not re.fullmatch(r"\w[\w.-]{0,99}", name):
            raise FieldError(
                "train_config.name",
                f"is {shown(name)}: it becomes the name of a folder, so give at most 100 letters, digits and "
                "'.', '_' or '-', with a letter or digit first.",
            )
        model = self.model_config
        if model.candidates and model.head == "dense":
            raise FieldError(
                "model_config.candidates",
                f"is {model.candidates}: the dense head has one weight vector for each item id and scores no "
                "candidates; give head two-tower, or candidates 0.",
            )
        if self.env == "satiation" and env.max_episode_steps > env.num_items:
            raise FieldError(
                "env_config.max_episode_steps",
                f"is {env.max_episode_steps}: it must be at most num_items = {env.num_items}, as satiation "
                "shows no item twice in a session.",
            )

    def _check_processes(self) -> None:
        size, agent = self.train_config.num_processes, self.agent_config
        for name in ("num_envs", "batch_size"):
            value = getattr(agent, name, size)  # A2C has no minibatches
            if value % size:
                raise FieldError(
                    f"agent_config.{name}",
                    f"is {value}: it must be a multiple of num_processes = {size}, among which it is "
                    "divided.",
                )
        if size > 1 and (self.env_config.normalize_obs or self.env_config.normalize_reward):
            raise UserError(
                "normalize_obs and normalize_reward keep statistics of one process, and num_processes is "
                f"{size}: give --no-normalize-obs --no-normalize-reward, or one process."
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """One evaluation of one or more checkpoints."""

    checkpoint: str = "checkpoints/ppo.pt"
    """The file to evaluate; catalogue, settings and weights all come from it."""
    algo: Literal["ppo", "a2c"] | None = None
    """Refuse a checkpoint of another algorithm; without --checkpoint, chooses checkpoints/<algo>.pt."""
    env: str | None = None
    """Refuse a checkpoint of another environment; to be typed where a module is imported (gym:module:Id)."""
    seed: Seed = 0
    """The seed of the sessions, the same ones for every policy."""
    json: str | None = None
    """Write the table to this file as JSON."""
    report: str | None = None
    """Write a self-contained HTML page to this file: learning curve, table, sample sessions."""
    max_users: CountOrZero = 1000
    """Held-out users that play, spread evenly over all of them where there are more; 0 = all."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes cuda where there is one."""
    threads: Annotated[int, Range(0, 1024)] = 1
    """Threads of torch on the CPU: more help on idle cores, stall on busy ones; 0 = torch's choice."""
    files: tuple[str, ...] = ()
    """Checkpoints to evaluate in one table, in place of --checkpoint."""
    policy: tuple[str, ...] = ()
    """module:NAME of a policy of yours, which gets a row too: an object with act(obs, greedy), a callable
    that makes one from the catalogue, or a Stable-Baselines3 model. The current folder is searched first."""
    full: bool = False
    """Let the planner play all users of the table, and not 64 of them: it takes minutes."""
    cache_dir: str | None = None
    """Folder that keeps the searched weights of the row `rule` (default: the user's cache folder)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.env is not None:
            check_env(self.env)

    @property
    def paths(self) -> tuple[str, ...]:
        """The checkpoints of the table."""
        return self.files or (self.checkpoint,)


AGENT_CONFIGS: dict[str, type[PPOConfig] | type[A2CConfig]] = {"ppo": PPOConfig, "a2c": A2CConfig}
ENVS = ("drift", "satiation", "gym")


def defaults(algo: str, env: str) -> Config:
    """The preset of an algorithm on an environment. Raises UserError where there is no such algo or env."""
    return from_dict(Config, {"algo": algo, "env": env})


def _preset(algo: object, env: object) -> dict[str, dict[str, Any]]:
    return PRESETS.get((str(algo), str(env).partition(":")[0]), {})


def _section_classes(cls: type, algo: object) -> dict[str, Any]:
    """The class of each section; ``algo`` chooses that of agent_config."""
    nested = {name: first for name, (first, *_) in sections(cls).items()}
    if "agent_config" in nested:
        nested["agent_config"] = AGENT_CONFIGS.get(str(algo), PPOConfig)
    return nested


def check_env(env: str) -> None:
    """Raise UserError unless ``env`` is drift, satiation, gym:Id or gym:module:Id."""
    if env not in ("drift", "satiation") and not re.fullmatch(r"gym:([A-Za-z_][\w.]*:)?[\w./-]+", env):
        raise FieldError(
            "env",
            f"is {shown(env)}{did_you_mean(env, ENVS)}: it must be drift, satiation, gym:Id (as in "
            "gym:CartPole-v1) or gym:module:Id.",
        )


def to_dict(config: Any) -> dict[str, Any]:
    """Sections and fields as nested dicts of primitives; tuples become lists."""
    return {
        name: to_dict(value)
        if dataclasses.is_dataclass(value)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    }


def from_dict(cls: type[T], mapping: Mapping[str, Any]) -> T:
    """The inverse of ``to_dict``; ``algo`` and ``env`` choose agent_config's class and all that is missing.

    Raises UserError for an unknown section or field, a wrong type, or a value out of its range.
    """
    if not isinstance(mapping, Mapping):
        raise UserError(f"The settings are {shown(mapping)}: they must be sections of fields.")
    algo, env = mapping.get("algo", Config.algo), mapping.get("env", Config.env)
    nested = _section_classes(cls, algo)
    homes = {name: section for section, first in nested.items() for name in hints(first)}
    preset = _preset(algo, env) if "agent_config" in nested else {}
    given = overlay(preset, {name: mapping[name] for name in nested if name in mapping})
    _check_gone(given.get("train_config"))
    values: dict[str, Any] = {
        name: build(first, given.get(name, {}), name, homes) for name, first in nested.items()
    }
    return build(cls, {**mapping, **values}, homes=homes)


def _check_gone(section: object) -> None:
    """Raise UserError for fields of an earlier version."""
    for name in ("log_dir", "checkpoint_dir"):
        if isinstance(section, Mapping) and name in section:
            raise UserError(
                f"train_config.{name} is of an earlier version: each run has a folder of its own now, in "
                "runs_dir; leave it out."
            )


def overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping ``under`` with the fields that ``over`` has, section by section."""
    merged = dict(under)
    for name, value in over.items():
        both = isinstance(merged.get(name), Mapping) and isinstance(value, Mapping)
        merged[name] = {**merged[name], **value} if both else value
    return merged


def to_toml(config: Config) -> str:
    """The config as TOML text. A field that is None is left out, as TOML has no such value."""
    top, tables = [], []
    for name, value in to_dict(config).items():
        if isinstance(value, dict):
            lines = [f"{key} = {_literal(part)}" for key, part in value.items() if part is not None]
            tables.append("\n".join([f"[{name}]", *lines]))
        else:
            top.append(f"{name} = {_literal(value)}")
    return "\n\n".join(["\n".join(top), *tables]) + "\n"


def read_toml(text: str, source: str = "the TOML text") -> dict[str, Any]:
    """Sections and fields as they stand. Raises UserError where ``text`` is not TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not TOML: {error}.") from error


def from_toml(text: str) -> Config:
    """The inverse of ``to_toml``. Raises UserError as ``from_dict`` does."""
    return from_dict(Config, read_toml(text))


def _literal(value: Any) -> str:
    # JSON's strings, numbers, booleans and lists of numbers are TOML's, but for the DEL character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

# %% [markdown]
# # A platform of your own
#
# A platform is a kind of users: what they answer to an item, what they remember, and when they leave. This
# page writes one, checks it, trains PPO on it, and shows where planning pays. The full run takes about a
# minute on one core.
#
# A newsletter sends one article a day for 20 days. A bait is an article that promises more than it holds: it
# is clicked today, and costs trust. Without trust nothing is clicked. With u the taste of a reader, e the
# article's embedding, and q its quality from 0 to 1:
#
# $$\text{click} = \text{trust} \cdot \sigma(3\, u \cdot e + 3\,(1 - q) - 2)
# \qquad \text{trust} \leftarrow \mathrm{clip}(\text{trust} + 0.2\,(q - 0.6),\; 0,\; 1)$$

# %%
import os
import tempfile
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, ClassVar

import torch

from recsys_rl import Config, collect, make_agent, make_env, make_world, play
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.evaluation.rivals.references import Myopic
from recsys_rl.records import Platform
from recsys_rl.settings.fields import NonNegative, Range
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.testing import check_env, check_user_model
from recsys_rl.types import Feedback, Signal, Stream
from recsys_rl.utils.metrics import interval

SMALL = "SMALL" in os.environ  # a few seconds, for the tests
torch.set_num_threads(1)  # in networks this small, more threads only wait for each other


# %% [markdown]
# ## Settings and users
#
# Each field of the settings is an option of the commands, with its range and its help. The methods of a user
# model are defined in `recsys_rl/protocols.py`. All work on N readers at once.


# %%
@dataclass(frozen=True)
class NewsletterConfig(EnvConfig):
    """Readers whose trust is at stake."""

    bait_gain: NonNegative = 3.0
    """Logits of a click that an article without any quality gains."""
    trust_rate: NonNegative = 0.2
    """Trust gained per unit of quality above 0.6."""
    trust_start: Annotated[float, Range(above=0, high=1)] = 0.5
    """Trust at the start."""


@dataclass(frozen=True)
class Readers:
    """The hidden state of N readers."""

    taste: torch.Tensor  # (N, D)
    profile: torch.Tensor  # (N, D): what a recommender knows of the taste
    trust: torch.Tensor  # (N,)


@dataclass(frozen=True)
class Newsletter:
    """The user model."""

    catalogue: object
    population: object
    config: NewsletterConfig
    slate_size: ClassVar[int] = 1
    repeats: ClassVar[bool] = False
    assumptions: ClassVar[str] = ""
    context: ClassVar[tuple[str, ...]] = ("profile", "last_item")
    signals: ClassVar[tuple[Signal, ...]] = (Signal("clicked"),)
    streams: ClassVar[tuple[Stream, ...]] = (Stream("clicked"),)
    bounds: ClassVar = MappingProxyType({"profile": 1.0})

    def sample(self, users):
        taste, profile = self.population.taste[users], self.population.profile[users]
        return Readers(taste, profile, torch.full((len(users),), self.config.trust_start))

    def possible(self, state):
        return bool(((state.trust >= 0) & (state.trust <= 1)).all())

    def visible(self, state):
        return {"profile": state.profile}

    def respond(self, state, items, shown, generator):
        clicks = self._clicks(state, items[:, 0])  # (N,)
        if generator is not None:  # None: planners look at the mean
            clicks = torch.bernoulli(clicks, generator=generator)
        return Feedback(clicks.view(-1, 1, 1).masked_fill(~shown.unsqueeze(-1), 0), shown)

    def rewards(self, feedback):
        return feedback.signals[:, :, :1].sum(1)  # (N, 1)

    def advance(self, state, items, feedback):
        gained = self.config.trust_rate * (self.catalogue.quality[items[:, 0]] - 0.6) * feedback.shown[:, 0]
        return replace(state, trust=(state.trust + gained).clamp(0, 1)), torch.zeros(
            len(items), dtype=torch.bool
        )

    def expected_reward(self, state, block=slice(None)):
        fit = state.taste @ self.catalogue.embedding[block].T  # (N, b)
        return state.trust.unsqueeze(1) * self._wish(fit, self.catalogue.quality[block])

    def _clicks(self, state, items):
        fit = (state.taste * self.catalogue.embedding[items]).sum(1)
        return state.trust * self._wish(fit, self.catalogue.quality[items])

    def _wish(self, fit, quality):
        return torch.sigmoid(3 * fit + self.config.bait_gain * (1 - quality) - 2)


PLATFORM = Platform(
    NewsletterConfig,
    users=Newsletter,
    presets={"*": {"agent_config": {"lr": 1e-3, "gamma": 0.99, "gae_lambda": 0.95}}},
)

# %% [markdown]
# ## Check
#
# The batteries of `recsys_rl.testing` call each method with many readers, with the same in another order,
# and with one alone. An error names the method at fault. In a file `newsletter.py`, the name of the platform
# is `newsletter:PLATFORM`, also for `recsys-rl train --env`; here the file is the notebook itself.

# %%
config = Config(
    env="__main__:PLATFORM",
    data="synthetic",
    cache_dir=tempfile.mkdtemp(),
    num_users=1000,
    num_items=200,
    embedding_dim=8,
    max_episode_steps=20,
)
world = make_world(config)
check_user_model(Newsletter(*world, config.env_config), world.catalogue, world.population.train[:8])
check_env(lambda seed: make_env(config, world, 4, torch.Generator().manual_seed(seed)), 20)

# %% [markdown]
# ## Train
#
# The platform is new, and PPO is not: the loop is that of all platforms.

# %%
num_updates = 4 if SMALL else 120
env = make_env(config, world)
agent = make_agent(config, env.interface, world.catalogue, num_updates)
obs = env.reset()
for update in range(1, num_updates + 1):
    rollout, obs = collect(env, agent, obs, num_steps=20)
    agent.update(rollout)
    if update % 20 == 0:
        print(f"update {update}: {rollout.rewards.mean():.3f} clicks a day")

# %% [markdown]
# ## Compare, on readers held out of training
#
# `Myopic` sees the true probability of each click, which no recommender does, and takes the best article of
# today. It sends baits, and the trust goes. A policy that plans earns trust first and spends it at the end.

# %%
heldout = make_env(config, world, 1, torch.Generator().manual_seed(1), heldout=True)
players = {
    "PPO": agent,
    "random": RandomPolicy(env.interface.action_sizes, torch.Generator().manual_seed(2)),
    "myopic": Myopic(heldout),
}
for name, player in players.items():
    clicks = interval(play(heldout, player, world.population.heldout, greedy=True).returns)
    print(f"{name:<8}{clicks.mean:6.2f} clicks in 20 days ({clicks.low:.2f} to {clicks.high:.2f})")
    assert 0 < clicks.mean < 20

"""`satiation`, the flagship: sessions in which planning ahead increases the return.

Hidden state of a user (units in brackets):

- taste u [unit vector], from all of the user's log; a recommender only sees the profile, from its first part
- weariness m [vector] and w [vector]: recency-weighted sums of the embeddings e and genres g just shown
- patience p [patience_start at the start, 1 at most; the user leaves at 0]

Showing item i, with popularity_i the z-score of log(popularity + 0.001) and quality_i that of quality::

    catch_i      = max(0, (popularity_i - quality_i) / sqrt(2))           [z-score; more popular than good]
    wear_i       = max(0, m . e_i) + w . g_i                              [1 = one such item shown just now]
    base_i       = affinity_gain * (u . e_i - affinity_midpoint)
                   + patience_gain * (p - patience_start) - satiation_strength * wear_i               [logits]
    appeal_i     = sigmoid(base_i + catchiness_gain * catch_i)            [0..1, share that would be watched]
    satisfaction = sigmoid(base_i - catchiness_gain * catch_i)            [0..1, how good it was afterwards]
    engagement   = clip(appeal_i + noise * N(0, 1), 0, 1)                 [the reward]

    m <- satiation_recovery * (m + e_i)        w <- satiation_recovery * (w + g_i)
    p <- min(1, p - patience_cost * (1/2 - satisfaction))

Satisfaction below one half costs patience, and above one half it restores patience. A patient user watches
more of every item. A disappointed user watches less of every item, and leaves in the end. An item that may
not be shown leaves the place empty: reward 0, satisfaction 0, no weariness. If the data hold no quality (it
is the same for all items), no item is catchy, as nothing shows that it disappoints.

There are three reasons to plan ahead. Patience can be gained early and spent late, on catchy items near the
end of the session. Each item lowers the appeal of similar items for a while. A disappointed user leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from recsys_rl.data.attributes import catch
from recsys_rl.functional import rows
from recsys_rl.records import Platform, Preset, Split
from recsys_rl.settings.fields import NonNegative, Range
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Catalogue, Feedback, Interface, Obs, Population, Signal, Stream

FAVOURITES = 50
"""Number of a user's best items that ``tiresomeness`` averages over."""


@dataclass(frozen=True)
class SatiationConfig(EnvConfig):
    """Users who tire of repetition and lose patience; the equations are at the top of the file."""

    affinity_gain: NonNegative = 4.0
    """Logits of appeal per unit of affinity."""
    affinity_midpoint: Annotated[float, Range(-1, 1)] = 0.25
    """Affinity (cosine of user and item) of an item that is neither good nor bad."""
    satiation_strength: NonNegative = 0.5
    """Logits of appeal lost per unit of weariness."""
    satiation_recovery: Annotated[float, Range(0, below=1)] = 0.9
    """Share of the weariness that remains after one step, in [0, 1)."""
    catchiness_gain: NonNegative = 3.0
    """Logits that a catchy item adds to appeal and takes from satisfaction, per unit of catch."""
    patience_cost: NonNegative = 0.5
    """Patience lost per unit of disappointment."""
    patience_start: Annotated[float, Range(above=0, high=1)] = 0.5
    """Patience at the start of a session; the largest is 1."""
    patience_gain: NonNegative = 2.0
    """Logits of appeal per unit of patience above (or below) patience_start."""
    noise: NonNegative = 0.1
    """Standard deviation of the engagement around the appeal."""


@dataclass(frozen=True)
class SatiationState:
    taste: Tensor  # (N, D)
    profile: Tensor  # (N, D)
    weary_of: Tensor  # (N, D): m
    weary_of_genres: Tensor  # (N, G): w
    patience: Tensor  # (N,)


@dataclass(frozen=True)
class Satiation:
    """The user model."""

    catalogue: Catalogue
    population: Population
    config: SatiationConfig
    repeats: ClassVar[bool] = False
    context: ClassVar[tuple[str, ...]] = ("profile", "last_item")
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("engagement"),
        Signal("satisfaction", visible=False, meaning="the satisfaction"),
    )
    streams: ClassVar[tuple[Stream, ...]] = (Stream("engagement"),)
    slate_size: ClassVar[int] = 1
    bounds: ClassVar[Mapping[str, float]] = MappingProxyType({"profile": 1.0})

    @cached_property
    def catch(self) -> Tensor:
        """(I,): catch_i of each item, in z-scores, at least 0."""
        return catch(self.catalogue)

    @property
    def assumptions(self) -> str:
        """Part of a sentence for the console and the report if the data lack quality, else ""."""
        if self.catalogue.knows_quality:
            return ""
        return "the data hold no ratings that differ, so no item is catchy"

    @cached_property
    def genres(self) -> Tensor:
        """(I, G) genres as unit vectors (zero where an item has none)."""
        return self.catalogue.unit_tags

    def sample(self, users: Tensor) -> SatiationState:
        taste = self.population.taste.index_select(0, users)  # (N, D)
        return SatiationState(
            taste=taste,
            profile=self.population.profile.index_select(0, users),
            weary_of=torch.zeros_like(taste),
            weary_of_genres=taste.new_zeros(len(users), self.genres.shape[1]),
            patience=taste.new_full((len(users),), self.config.patience_start),
        )

    def possible(self, user_state: SatiationState) -> bool:
        patience = user_state.patience
        patient = (patience > 0) & (patience <= 1)
        return bool(patient.all()) and bool((user_state.weary_of_genres >= 0).all())

    def visible(self, user_state: SatiationState) -> dict[str, Tensor]:
        return {"profile": user_state.profile}

    def respond(
        self, user_state: SatiationState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        embedding, genres = self.catalogue.embedding, self.genres
        base = self._base(  # (N, K)
            rows.dot_rows(user_state.taste, embedding, items),
            rows.dot_rows(user_state.weary_of, embedding, items),
            rows.dot_rows(user_state.weary_of_genres, genres, items),
            user_state.patience,
        )
        catch = self.config.catchiness_gain * self.catch.take(items)  # (N, K)
        engagement = (base + catch).sigmoid()  # (N, K)
        if generator is not None:
            noise = torch.randn(items.shape, generator=generator, device=items.device)
            engagement = (engagement + self.config.noise * noise).clamp(0, 1)
        satisfaction = (base - catch).sigmoid()
        signals = torch.stack([engagement, satisfaction], -1)  # (N, K, 2)
        return Feedback(signals.masked_fill_(~shown.unsqueeze(-1), 0), shown)

    def rewards(self, feedback: Feedback) -> Tensor:
        return feedback.signals[:, :, :1].sum(1)  # (N, 1): engagement

    def advance(
        self, user_state: SatiationState, items: Tensor, feedback: Feedback
    ) -> tuple[SatiationState, Tensor]:
        weary_of = rows.add_rows(user_state.weary_of, self.catalogue.embedding, items, feedback.shown)
        of_genres = rows.add_rows(user_state.weary_of_genres, self.genres, items, feedback.shown)
        keep, cost = self.config.satiation_recovery, self.config.patience_cost
        satisfaction = feedback.signals[:, :, 1]  # (N, K)
        after = replace(
            user_state,
            weary_of=weary_of.mul_(keep),  # (N, D)
            weary_of_genres=of_genres.mul_(keep),  # (N, G)
            patience=(user_state.patience - cost * (0.5 - satisfaction).sum(1)).clamp_max(1),
        )
        return after, after.patience <= 0

    def expected_reward(self, user_state: SatiationState, block: slice = slice(None)) -> Tensor:
        """Appeal (N, b); the clipping of the noise is left out."""
        return self.prospects(user_state, block)[0]

    def prospects(self, user_state: SatiationState, block: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Expected reward and expected change of patience, (N, b) each, of showing each item now.

        The planner needs both, and they share most of the computation.
        """
        embedding, genres = self.catalogue.embedding[block], self.genres[block]
        base = self._base(  # (N, b)
            user_state.taste @ embedding.T,
            user_state.weary_of @ embedding.T,
            user_state.weary_of_genres @ genres.T,
            user_state.patience,
        )
        return self._outlook(base, self.catch[block], user_state.patience)

    def patience(self, user_state: SatiationState) -> Tensor:
        return user_state.patience

    def tiresomeness(self, user_state: SatiationState) -> Tensor:
        """Mean loss of logits, over the user's FAVOURITES best items, from showing each item: (N, I).

        The planner needs it. It depends on the taste alone.
        """
        of_items, of_genres, user = self.favourites(user_state.taste)
        wear = of_items @ self.catalogue.embedding.T + of_genres @ self.genres.T  # (n, I)
        return self.config.satiation_strength * wear[user]

    def favourites(self, taste: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean embedding (n, D) and genres (n, G) of the FAVOURITES best items by each distinct ``taste``.

        The third tensor (N,) is the row of each user.
        """
        distinct, user = torch.unique(taste, dim=0, return_inverse=True)  # a planner plays few users
        top = (distinct @ self.catalogue.embedding.T).topk(min(FAVOURITES, self.catalogue.num_items)).indices
        return self.catalogue.embedding[top].mean(1), self.genres[top].mean(1), user

    def as_known(self, user_state: SatiationState) -> SatiationState:
        """The state with the profile in place of the taste, as a recommender knows the user."""
        return replace(user_state, taste=user_state.profile)

    def _outlook(self, base: Tensor, catch: Tensor, patience: Tensor) -> tuple[Tensor, Tensor]:
        """The prospects (N, ...) from ``base`` (N, ...), catch (...) and p (N,)."""
        catch = self.config.catchiness_gain * catch
        gain = (base - catch).sigmoid_().sub_(0.5).mul_(self.config.patience_cost)
        return base.add_(catch).sigmoid_(), torch.minimum(gain, (1 - patience).unsqueeze(-1))

    def _base(self, affinity: Tensor, wear: Tensor, wear_of_genres: Tensor, patience: Tensor) -> Tensor:
        """Logits before catchiness (N, ...), from u . e, m . e and w . g (N, ...), and p (N,)."""
        config, wear = self.config, wear.clamp_min(0) + wear_of_genres
        mood = config.patience_gain * (patience - config.patience_start)  # (N,)
        offset = mood - config.affinity_gain * config.affinity_midpoint
        base = torch.add(offset.unsqueeze(-1), affinity, alpha=config.affinity_gain)
        return base.sub_(wear, alpha=config.satiation_strength)


def share_over(obs: Obs, interface: Interface) -> Tensor:
    """(N,): share of the session that is over, in [0, 1), which the number of shown items tells."""
    assert obs.history is not None
    return (obs.history >= 0).sum(1) / interface.session_length


FROM_LOG: Preset = {"train_config": {"total_timesteps": 320_000}}
"""2,500 gradient steps of 128 decisions."""
# The news of a reward at the end crosses the 20 steps of a session one by one, in 1 / tau gradient steps
# each: with tau 0.05 in 400 together, with 0.01 in nearly the whole run.
QUICK_TARGET = {"tau": 0.05}

PLATFORM = Platform(
    SatiationConfig,
    users=Satiation,
    split=Split(share_over, searched=True),
    presets={
        "*": {
            "data_config": {"profile_fraction": 0.9},
            "agent_config": {
                "gamma": 0.99,
                "gae_lambda": 0.95,
                "bootstrap_time_limit": False,  # the history shows the number of steps left
            },
        },
        "ppo": {
            "agent_config": {"lr": 1e-3},
            "model_config": {"encoder": "deep-sets"},  # patience is a sum with a cap
            "train_config": {"total_timesteps": 800_000},
        },
        "a2c": {"train_config": {"total_timesteps": 300_000}},
        # Each step is learned from four times, at four times the cost.
        "dqn": {"train_config": {"total_timesteps": 600_000}},
        **dict.fromkeys(("bc", "iql", "reinforce", "direct"), FROM_LOG),
        "bcq": {**FROM_LOG, "agent_config": QUICK_TARGET},
        # The best of 0.1, 0.5 and 2 by `ope` on held-out users of a log (docs/11_offline.md).
        "cql": {**FROM_LOG, "agent_config": {**QUICK_TARGET, "alpha": 0.1}},
        "dt": {**FROM_LOG, "model_config": {"encoder": "transformer"}},
    },
    question="When should a recommender earn a user's patience, and when may it spend it?",
)

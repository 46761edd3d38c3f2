"""The network of PPO and A2C: one encoder of the session, then an actor and a critic."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch import Tensor, nn

from recsys_rl.functional import categorical
from recsys_rl.models.candidates import CandidateHead
from recsys_rl.models.encoders import Linear, SessionSum, TwinMLP
from recsys_rl.models.expected import Average, Beside, Lessons
from recsys_rl.models.fast import dense
from recsys_rl.models.features import SplitFeatures, feature_parts, features_of
from recsys_rl.models.heads import (
    DenseHead,
    Distribution,
    GatedHead,
    PatternHead,
    TwoTowerHead,
    distribution,
    exploring,
    ranked,
)
from recsys_rl.models.make_head import make_head
from recsys_rl.models.next_signals import Entries, NextSignals, next_entries, signal_loss
from recsys_rl.models.retrieval import Retriever, mark_unusable
from recsys_rl.models.scorer import ScorerHead, gate_names
from recsys_rl.models.sequence import Encoder, Reader, make_encoder, summarise
from recsys_rl.models.shapes import HeadSizes, Shapes
from recsys_rl.models.towers import RATE
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Action, Interface, Obs, Rollout

TILE = 32
"""``place_logprobs`` computes multiples of this many rows. The rounding of a matrix product depends on the
number of its rows: with fewer, logits of 30 differed by 1e-5 between the log and its reader."""


class ActorCritic(nn.Module):
    """obs -> (distribution of the action, value (N,)).

    Actor and critic have separate hidden layers ``hidden_dims`` over the same inputs: the context and, if
    observations have a history, the sums over it and the summary of an encoder that reads its order. The
    encoder also learns to expect the next signals. Two-tower head and scorer let the sums, and what is
    expected, vote for items.

    A slate of ``slate_size`` items is drawn from one vector of logits, without repetition. Positions with
    different alternatives are drawn independently, and positions with fewer than A alternatives are padded
    with -inf.

    Columns of the items for each user (user_columns.py) add to the logits of any head, each with a gate from
    the hidden layers. The first stage does not know them.

    If ``obs.candidates`` (N, C) lists the alternatives, only these are scored. The distribution is then over
    the places 0 .. C - 1, with -inf at padding. ``propose`` adds such a list.
    """

    items: Tensor | SplitFeatures
    inputs: Tensor
    chance = 0.0
    """Share of the draws that shows all possible items nearly alike (categorical.exploring); learning is
    without it. The learner sets it."""
    draw_ratio = 1.0
    """Above 1, slates are drawn by the order of the logits (plackett_luce.by_rank), then with ``chance``;
    learning is without both."""

    def __init__(self, shapes: Shapes, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.shapes = shapes
        items = torch.zeros(0, 0) if shapes.item_features is None else shapes.item_features
        if isinstance(items, Tensor):
            self.register_buffer("items", items, persistent=False)  # (I, F_i)
        else:
            self.items = items
        self.num_candidates = config.candidates
        self.num_drawn = round(config.explore_rate * config.candidates)
        self.retriever: Retriever | None = None
        if config.candidates:
            assert isinstance(items, SplitFeatures) and shapes.available is not None
            self.retriever = Retriever(items, shapes.available, config.index)
        half = shapes.context_dim // 2
        self.embeddings = (
            (slice(0, half), slice(half, 2 * half)) if shapes.embeddings is None else shapes.embeddings
        )
        self.profile = self.embeddings[0] if shapes.profile and self.embeddings else None
        self.columns = shapes.user_columns if shapes.user_columns and shapes.user_columns.names else None
        apart = () if self.columns is None else self.columns.places
        own = [at for at in range(shapes.context_dim) if not any(at in range(s.start, s.stop) for s in apart)]
        self.num_columns = 0 if self.columns is None else len(self.columns.names)
        self.register_buffer("inputs", torch.tensor(own), persistent=False)  # places of the context
        width, num_blocks = self._add_readers(config, len(own), items.shape[1], generator)
        sizes = (width, *config.hidden_dims)
        self.hidden = TwinMLP(sizes, config.activation, generator)  # the actor's and the critic's
        self.value_head = Linear(sizes[-1], 1, 1.0, generator)
        of_head = HeadSizes(width, sizes[-1], num_blocks, items.shape[1], self.num_columns)
        self.head = make_head(config.head, shapes, of_head, generator)
        self.activation = config.activation
        layers = zip(self.hidden.weights, self.hidden.biases, strict=True)
        last = [
            tensor for layer in (self.head.last, self.value_head) for tensor in (layer.weight, layer.bias)
        ]
        self.layers: list[Tensor] = [*itertools.chain(*layers), *last]  # as dense.actor_critic takes them

    def _add_readers(
        self, config: ModelConfig, num_inputs: int, num_item_features: int, generator: torch.Generator
    ) -> tuple[int, int]:
        """Add what reads the history. Returns the inputs of the hidden layers, and the number of blocks."""
        shapes, width, num_blocks = self.shapes, num_inputs, len(self.embeddings)
        if shapes.candidates is not None:  # the hidden layers read their mean
            width -= (shapes.action_sizes[0] - 1) * shapes.candidates.candidate_features
        self.session: SessionSum | None = None
        self.encoder: Encoder | None = None
        self.next_signals: NextSignals | None = None
        self.signal_coef = config.signal_coef
        if not shapes.history_length:
            return width, num_blocks
        self.session = SessionSum(shapes.history_length, shapes.num_signals)
        width += self.session.num_blocks * num_item_features
        num_blocks += self.session.num_blocks
        if config.encoder == "mlp":
            return width, num_blocks
        sizes_of_entry = num_item_features, shapes.num_signals, shapes.history_length
        encoder = make_encoder(config.encoder, *sizes_of_entry, self.profile, generator)
        self.encoder = encoder
        if shapes.num_signals and encoder.expects_signals:
            known = num_inputs + encoder.out_features
            self.next_signals = NextSignals(known, num_item_features, shapes.num_signals, generator)
            num_blocks += shapes.num_signals
        return width + encoder.out_features, num_blocks

    def forward(self, obs: Obs) -> tuple[Distribution, Tensor]:
        distribution, value, _ = self._evaluate(self.summarised(obs))
        return distribution, value

    def learn(self, obs: Obs, lessons: Lessons | None) -> tuple[Distribution, Tensor, Beside | None]:
        """``forward`` of a minibatch, and the losses of what is learned beside it from ``lessons`` (B).

        An encoder reads the history once for both.
        """
        obs = self.summarised(obs)
        distribution, value, asking = self._evaluate(obs)
        return distribution, value, None if lessons is None else self._beside(obs, lessons, asking)

    def _evaluate(self, obs: Obs) -> tuple[Distribution, Tensor, Tensor | None]:
        """Distribution, value (N,), and the query of the expected rewards, of ``summarised`` observations."""
        outputs, value, inputs, sums = self._through_layers(obs)
        distribution, asking = self._distribution(obs, outputs, inputs, sums)
        return distribution, value, asking

    def _through_layers(self, obs: Obs) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The outputs (N, ...) of ``head.last``, the value (N,), and the inputs and sums they are made of.

        ``obs`` is ``summarised``. The sums are those of ``_read``.
        """
        varying, sums = self._read(obs)
        inputs = _joined(self._inputs(obs), None if varying is None else varying.detach())
        outputs, value = dense.actor_critic(inputs, self.activation, self.layers, varying)
        return outputs, value, inputs, sums

    def _distribution(
        self, obs: Obs, outputs: Tensor, inputs: Tensor, sums: Tensor | None
    ) -> tuple[Distribution, Tensor | None]:
        """Distribution, and the query of the expected rewards, from what ``_through_layers`` returns.

        The outputs of a dense head may be overwritten.
        """
        outputs, gates, of_curves = self._parted(outputs)
        blocks = self._blocks(obs, sums)
        asking = self._reward_query(inputs, blocks)
        logits = self._score((outputs, of_curves), obs, blocks, asking)  # (N, K, A)
        if self.columns is not None:
            logits = logits + self._of_columns(gates, obs)
        if obs.candidates is None:
            categorical.forbid_(logits, obs.mask, obs.exclude)
        else:
            categorical.forbid_(logits, obs.candidates >= 0, None)
        if isinstance(self.head, GatedHead | PatternHead):
            return self.head.distribution(outputs, logits, obs.candidates), asking
        return distribution(logits, self.shapes.slate_size), asking

    def _score(
        self, parts: tuple[Tensor, Tensor], obs: Obs, blocks: list[Tensor], asking: Tensor | None
    ) -> Tensor:
        """Logits (N, K, A) of all items, or (N, 1, C) of candidates, from the outputs of ``head.last``."""
        outputs = parts[0]
        candidates = None if obs.candidates is None else obs.candidates.clamp_min(0)
        if isinstance(self.head, CandidateHead):
            assert self.shapes.candidates is not None
            rest, features = self.shapes.candidates.split_candidates(obs.context)
            of_candidates: Tensor = self.head(outputs, rest, features)
            return of_candidates
        if isinstance(self.head, DenseHead):
            logits: Tensor = self.head(outputs)
            return logits if candidates is None else logits.gather(-1, candidates.unsqueeze(1))
        items = self._alternatives(obs)
        if isinstance(self.head, TwoTowerHead):
            assert asking is not None
            profile = None if self.profile is None else obs.context[:, self.profile]
            return self.head.logits(parts, blocks, items, asking, profile)
        if isinstance(items, tuple):
            return self.head.among(outputs, blocks, items)
        scores: Tensor = self.head(outputs, blocks, items)
        return scores

    def _reward_query(self, inputs: Tensor, blocks: list[Tensor]) -> Tensor | None:
        """The query (N, F_i + tower) of the expected rewards; None with a head that knows none.

        ``inputs`` (N, width) are those of the hidden layers.
        """
        if not isinstance(self.head, TwoTowerHead):
            return None
        return self.head.expected.query(inputs, blocks)

    def lessons(self, rollout: Rollout, average: Average = None) -> Lessons | None:
        """The lessons of the steps of a rollout (B = T N) beside the policy; None if there are none.

        ``average`` replaces a tensor in place by its mean over all processes of the run.
        """
        entries, rewards = None, None
        if self.next_signals is not None:
            entries = next_entries(rollout.obs, rollout.terminated | rollout.truncated)
        if isinstance(self.head, TwoTowerHead):
            rewards = self.head.expected.standardise(rollout.rewards, average).flatten()
        if entries is None and rewards is None:
            return None
        return Lessons(rollout.items.flatten(0, 1), rewards, entries)

    def _beside(self, obs: Obs, lessons: Lessons, asking: Tensor | None) -> Beside:
        loss, figures = torch.zeros_like(obs.context[0, 0]), {}
        if lessons.entries is not None:
            of_signals = self.signal_loss(obs, lessons.entries)
            loss, figures["signal_loss"] = loss + self.signal_coef * of_signals, of_signals.detach()
        if lessons.rewards is not None:
            assert isinstance(self.head, TwoTowerHead) and asking is not None
            of_rewards = self.head.expected.loss(asking, self.items, lessons.shown, lessons.rewards)
            loss, figures["reward_r2"] = loss + of_rewards, 1 - of_rewards.detach()
        return Beside(loss, figures)

    def reward_loss(self, obs: Obs, shown: Tensor, rewards: Tensor, average: Average = None) -> Tensor:
        """The loss of the rewards (B,) expected of the items ``shown`` (B, K); 0 if the head expects none."""
        if not isinstance(self.head, TwoTowerHead):
            return torch.zeros_like(rewards[0])
        return self.head.expected.loss(
            self._reward_query_of(obs),
            self.items,
            shown,
            self.head.expected.standardise(rewards, average, minibatch=True),
        )

    def _reward_query_of(self, obs: Obs) -> Tensor:
        """The query of the expected rewards, of a head that has one."""
        with torch.no_grad():  # their loss reaches nothing before the query
            obs = self.summarised(obs)
            varying, sums = self._read(obs)
            inputs, blocks = _joined(self._inputs(obs), varying), self._blocks(obs, sums)
        asking = self._reward_query(inputs, blocks)
        assert asking is not None
        return asking

    @property
    def expects_rewards(self) -> bool:
        """True if the head expects a reward of each item."""
        return isinstance(self.head, TwoTowerHead)

    def expected_rewards(self, obs: Obs) -> Tensor | None:
        """The reward (N, C) that each candidate of ``obs``, or (N, I) each item, is expected to bring now.

        Of a slate: the reward of one whose items are all like this one. None with a head that expects none.
        """
        if not isinstance(self.head, TwoTowerHead):
            return None
        return self.head.expected_rewards(self._reward_query_of(obs), self._alternatives(obs))

    def _alternatives(self, obs: Obs) -> Tensor | tuple[Tensor, ...]:
        """The features of all items (I, F_i), or those of each row's candidates in parts (N, C, size)."""
        if obs.candidates is not None:
            return feature_parts(self.items, obs.candidates.clamp_min(0))
        assert isinstance(self.items, Tensor)
        return self.items

    def _parted(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of ``head.last`` for the head's scores, for the user's columns, and for the curves."""
        num_curves = self.head.curves.num_gates if isinstance(self.head, TwoTowerHead) else 0
        own = outputs.shape[1] - self.num_columns - num_curves
        scores, columns, curves = outputs.split([own, self.num_columns, num_curves], 1)
        return scores, columns, curves

    def _of_columns(self, gates: Tensor, obs: Obs) -> Tensor:
        """The part (N, 1, A) of the logits that the columns of the items for each user give."""
        assert self.columns is not None and not isinstance(self.head, CandidateHead)
        items = slice(None) if obs.candidates is None else obs.candidates
        scores = self.columns.scores(obs.context, RATE * self.head.temperature * gates, items)
        return scores.unsqueeze(1)

    def propose(self, obs: Obs, greedy: bool, generator: torch.Generator, extra: int = 0) -> Obs:
        """``obs`` with the candidates (N, C) of the first stage.

        The first candidates are the items with the highest product of the actor's query and the item's
        features. The last round(explore_rate C) are drawn uniformly from the available items, with
        replacement (greedy: none). Forbidden and repeated items are replaced by -1. Without a first stage, or
        if ``obs`` has candidates already, it is returned as it is; a head that scores the whole catalogue has
        a mask in their place.

        ``extra``: search so many items more, and keep the first C that are not forbidden. It is for a caller
        who forbids more items than a session does.
        """
        if self.retriever is None or obs.candidates is not None:
            return self._whole(obs)
        with torch.no_grad():
            return obs.among(self._candidates(self.retriever, obs, greedy, generator, extra))

    def _whole(self, obs: Obs) -> Obs:
        """``obs`` with a mask in place of candidates where the head scores the whole catalogue."""
        if obs.candidates is None or not isinstance(self.head, PatternHead):
            return obs
        mask = obs.showable(len(self.head.kinds))  # (N, I)
        return replace(obs, candidates=None, exclude=None, mask=mask)

    def _candidates(
        self, retriever: Retriever, obs: Obs, greedy: bool, generator: torch.Generator, extra: int
    ) -> Tensor:
        obs = self.summarised(obs)
        varying, sums = self._read(obs)
        assert isinstance(self.head, TwoTowerHead | ScorerHead)
        outputs = self.head.last(self.hidden.one(0, _joined(self._inputs(obs), varying)))
        user = self.head.user(self._parted(outputs)[0], self._blocks(obs, sums))
        query = user[:, : self.items.shape[1]]  # (N, F_i)
        num_drawn = 0 if greedy else self.num_drawn
        top = retriever.search(query, self.num_candidates - num_drawn + extra)  # (N, C - E)
        rows = retriever.rows
        places = torch.randint(
            len(rows), (obs.num_rows, num_drawn), generator=generator, device=rows.device
        )  # (N, E)
        candidates = torch.cat([top, rows[places]], 1)
        candidates = mark_unusable(candidates, top.shape[1], obs.exclude, obs.mask)
        if not extra:
            return candidates
        usable_first = (candidates < 0).to(torch.uint8).argsort(stable=True, dim=1)
        return candidates.gather(1, usable_first[:, : self.num_candidates])

    def drawn(self, obs: Obs) -> tuple[Distribution, Tensor]:
        """``forward``, but the distribution is that of draws: with ``draw_ratio`` and ``chance``."""
        distribution, value = self(obs)
        if self.draw_ratio > 1:
            distribution = ranked(distribution, self.draw_ratio)
        return exploring(distribution, self.chance) if self.chance else distribution, value

    def act(self, obs: Obs, greedy: bool, generator: torch.Generator) -> Action:
        """The actor's choice for N observations, its log-probability (N,) and V(obs).

        ``greedy`` takes the most probable items; otherwise ``generator`` draws them.
        """
        obs = self.propose(obs, greedy, generator)
        distribution, value = self.drawn(obs)
        if greedy:
            index = distribution.best()  # (N, K)
            logprob = distribution.logprob(index)  # (N,)
        else:
            index, logprob = distribution.draw(generator)
        return Action(obs.items_at(index), logprob, value, obs.candidates)

    def logprob(self, obs: Obs, items: Tensor) -> Tensor:
        """Log-probability (N,) of showing ``items`` (N, K); a first stage needs ``obs.candidates``."""
        obs = self._whole(obs)
        logprob: Tensor = self.drawn(obs)[0].logprob(obs.places_of(items))
        return logprob

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        """The terms (N, K) of the log-probability of ``items`` (N, K), each place given those above it.

        They are float64, as an importance weight is the exponential of a sum of many. Empty places (-1),
        items that may not be shown and items outside the candidates have -inf.
        """
        if obs.num_rows % TILE:
            rows = torch.arange(-(-obs.num_rows // TILE) * TILE, device=items.device)
            rows = rows.clamp_max(obs.num_rows - 1)
            return self.place_logprobs(obs.rows(rows), items[rows])[: obs.num_rows]
        obs = self._whole(obs)
        impossible = items < 0  # (N, K)
        if obs.candidates is not None:
            impossible = impossible | ~(obs.candidates.unsqueeze(1) == items.unsqueeze(2)).any(-1)
        logprobs = self.drawn(obs)[0].place_logprobs(obs.places_of(items).clamp_min(0))
        return logprobs.nan_to_num(nan=-torch.inf, neginf=-torch.inf).masked_fill(impossible, -torch.inf)

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        """(N, I) float64: the probability of showing each item; 0 outside the candidates. For one place."""
        logits = self.drawn(obs)[0].logits.detach()
        chances: Tensor = logits.double().squeeze(1).softmax(1)  # (N, I) or (N, C)
        if obs.candidates is None:
            return chances
        every = chances.new_zeros(len(chances), num_items + 1)  # padding adds 0 to an extra column
        at = torch.where(obs.candidates < 0, num_items, obs.candidates)
        return every.scatter_add_(1, at, chances)[:, :-1]

    def value(self, obs: Obs) -> Tensor:
        """V(obs), (N,)."""
        obs = self.summarised(obs)
        inputs = _joined(self._inputs(obs), self._read(obs)[0])
        if not torch.is_grad_enabled() and dense.serves(inputs, self.layers):
            return dense.critic(inputs, self.activation, self.layers)
        value: Tensor = self.value_head(self.hidden.one(1, inputs))  # (N, 1)
        return value.squeeze(-1)

    @torch.no_grad()
    def mean_gates(self, obs: Obs, interface: Interface) -> dict[str, float]:
        """The mean gates of the scorer head over N observations, by name; empty with another head.

        A sum over the session has two gates, of embeddings and of tags; the gate of the tags of a bare
        embedding has no effect and is left out.
        """
        if not isinstance(self.head, ScorerHead):
            return {}
        names_at = dict(zip(interface.starts, (name for name, _ in interface.context), strict=True))
        pieces = [names_at[span.start] for span in self.embeddings]
        decays = () if self.session is None else SessionSum.DECAYS
        expected = self.next_signals is not None
        names = gate_names(pieces, interface.signals, decays, expected, self.shapes.numbers)
        if self.columns is not None:
            names += self.columns.names
        means = self.head.scaled(self.head_outputs(self.summarised(obs))).mean(0).tolist()
        bare = {f"{piece} (tags)" for piece in pieces}
        return {name: mean for name, mean in zip(names, means, strict=True) if name not in bare}

    def head_outputs(self, obs: Obs) -> Tensor:
        """The outputs (N, ...) of the layer ``head.last``, of ``summarised`` observations."""
        outputs: Tensor = self.head.last(self.hidden.one(0, _joined(self._inputs(obs), self._read(obs)[0])))
        return outputs

    def _inputs(self, obs: Obs) -> Tensor:
        """The inputs of the hidden layers before those of ``_read``.

        They are the context without the pieces of the user's columns, and with the mean of candidates.
        """
        if self.columns is not None:
            return obs.context.index_select(1, self.inputs)
        if self.shapes.candidates is None:
            return obs.context
        rest, features = self.shapes.candidates.split_candidates(obs.context)
        assert features is not None
        return torch.cat([rest, features.mean(1)], 1)

    def _read(self, obs: Obs) -> tuple[Tensor | None, Tensor | None]:
        """The inputs of the hidden layers after the context (N, width - F), and the sums over the session.

        Each is None if there is none. Both depend on weights of the network. ``obs`` is ``summarised``.
        """
        if self.session is None:
            return None, None
        sums = self.session(obs, self.items)  # (N, (1 + S) P, F_i)
        if self.encoder is None:
            return sums.flatten(1), sums
        assert obs.summary is not None
        return torch.cat([sums.flatten(1), obs.summary], -1), sums  # the summary: (N, H)

    def summarised(self, obs: Obs) -> Obs:
        """``obs`` with the summary (N, H) of its history; as it is if it has one, or without an encoder."""
        if self.encoder is None or obs.summary is not None:
            return obs
        return replace(obs, summary=summarise(self.encoder, obs, self.items))

    def signal_loss(self, obs: Obs, entries: Entries) -> Tensor:
        """The loss of the signals that are expected for ``entries`` (B), of ``summarised`` observations (B).

        Call it only if ``next_signals`` is not None. Returns: a scalar.
        """
        assert self.next_signals is not None and obs.summary is not None
        expected = self.next_signals(self._inputs(obs), obs.summary)
        return signal_loss(expected, features_of(self.items, entries.items), entries)

    def reader(self) -> Reader | None:
        """A new state of the encoder for users who act; None if there is nothing to keep."""
        if self.encoder is None:
            return None
        most = min(self.shapes.slate_size, self.shapes.history_length)
        return Reader(self.encoder, self.items, most)

    def _blocks(self, obs: Obs, sums: Tensor | None) -> list[Tensor]:
        """Inputs in the space of item features, of ``summarised`` observations.

        They are embeddings of the context (N, E, D), the sums (N, number, F_i) and, with an encoder, the
        expected signals (N, S, F_i). The features of an item begin with its embedding.
        """
        blocks: list[Tensor] = []
        if self.embeddings:
            blocks.append(torch.stack([obs.context[:, span] for span in self.embeddings], 1))  # (N, E, D)
        if sums is not None:
            blocks.append(sums)
        if self.next_signals is not None:
            assert obs.summary is not None
            blocks.append(self.next_signals(self._inputs(obs), obs.summary))
        return blocks


def _joined(inputs: Tensor, varying: Tensor | None) -> Tensor:
    """The inputs (N, width) of the hidden layers."""
    return inputs if varying is None else torch.cat([inputs, varying], -1)

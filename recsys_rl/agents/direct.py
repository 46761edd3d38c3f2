"""The direct method: learn which reward each item would get, and show what is expected to get most.

With (s, a, r) the decisions of a log with their rewards, lo and hi the smallest and the largest of these and
0, s() the logistic function and z the scores of a network::

    y = (r - lo) / (hi - lo)        p = s(z_a(s))
    L = - mean (y log p + (1 - y) log (1 - p))
    beta_i(s) = lo + (hi - lo) s(z_i(s))        pi(i | s) = softmax(beta / T)

L has its minimum where beta is the mean reward, also with rewards between lo and hi (Papke and Wooldridge
1996, Journal of Applied Econometrics 11(6)). It reads no propensity. So it learns most about what the logger
showed often, and nothing mends an answer that the network can't express (Dudík et al. 2011, arXiv:1103.4601).

A network that reads a log many times remembers it. So a fifth of the training users is held back. After each
update the loss in their decisions is taken with the moving average of the weights (Polyak and Juditsky 1992),
and the average with the lowest loss is the policy's at the end. T is the highest temperature at which the
draws keep the share KEPT of what the best items are expected to add to items drawn uniformly.

Where items are known by their ids alone, the weights of each are learned from its own few decisions, and the
item with the highest score is the luckiest. So z is the shared V(s) and the item's own z_i(s), and the latter
has a normal prior with mean 0 and variance d / c over contexts. With n decisions, n_i of them of item i, I
items and the scores Z (B, I) of a minibatch, all means over an update::

    L + c / (2 n) sum_i mean_s z_i(s)^2
    a_i = n_i mean p_i (1 - p_i)        d = mean tr(Z Z')^2 / tr((Z Z')^2)
    c sum_i mean_s z_i(s)^2 = d sum_i a_i / (a_i + c)

a_i is the information in an item's decisions about a direction, d the number of directions in which items
differ. Then c is the precision that makes the log most probable (MacKay 1992, Neural Computation 4(3)). Items
that are hardly ever shown tell nothing of c: their scores are near 0 whatever it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recsys_rl.models.answer_network import AnswerNetwork
from recsys_rl.models.diagnostics import StepMeans
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.models.q_learner import check_single_items
from recsys_rl.models.sampled import shown_among
from recsys_rl.records import LOGGED, Algorithm
from recsys_rl.settings.shared import LoggedConfig
from recsys_rl.types import Obs, Transitions

HELD_BACK = 0.2
DECAY = 0.99
"""Of the moving average of the weights, for a gradient step."""
KEPT = 0.99
CONTEXTS = 256
"""Decisions in whose contexts the temperature is found."""
COLDEST = 1e-4
"""The lowest temperature, in units of hi - lo; the highest is 1."""


@dataclass(frozen=True)
class DirectConfig(LoggedConfig):
    """The direct method: expected rewards by regression (Dudík et al. 2011, arXiv:1103.4601)."""

    @property
    def held_back(self) -> float:
        return HELD_BACK

    @property
    def discount(self) -> float:
        return 0.0  # the reward of the decision alone


class Direct(NetworkPolicy[DirectConfig]):
    """A network of expected rewards, whose best item is the policy."""

    model: AnswerNetwork

    def __init__(
        self,
        model: AnswerNetwork,
        config: DirectConfig,
        num_updates: int,
        generators: Mapping[str, torch.Generator],
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """As NetworkPolicy. Raises UserError for actions of several positions."""
        check_single_items(model.shapes, type(self).__name__.lower())
        super().__init__(model, config, num_updates, generators, average)
        self.held_back: Transitions | None = None
        self.num_decisions: float = math.inf  # n
        self.precision = 0.0  # c: the first update has no prior, as it shows how much items differ
        self.seen = self.optimizer.weights.new_zeros(())  # or (I,), with weights of each item: rows so far
        self.least_loss = math.inf
        self.mean = self.optimizer.weights.clone()  # (P,): the moving average
        self.best = self.optimizer.weights.clone()  # (P,): the average with the least loss

    def learn_from(self, num_decisions: int, held_back: Transitions | None) -> None:
        """Weigh the prior for ``num_decisions``; keep the weights with the lowest loss in ``held_back``.

        The latter are not learned from; None if there are none.
        """
        self.num_decisions, self.held_back = num_decisions, held_back

    def update(self, batch: Transitions) -> dict[str, float]:
        """A gradient step for each ``batch_size`` decisions. Returns the means over these steps.

        After the last update of the run the weights are the best average, or the last one if no decision is
        held back.
        """
        assert batch.possible is not None
        self.anneal_lr()
        self.model.span.copy_(torch.stack([batch.possible[:, 0].min(), batch.possible[:, 1].max()]))
        averages, spreads = StepMeans(), StepMeans()
        information = self.mean.new_zeros(2, sum(self.model.shapes.action_sizes))
        for minibatch in batch.split(self.config.batch_size):
            obs = self.model.summarised(minibatch.obs)
            logits, shares, scores = self._answers(replace(minibatch, obs=obs))
            loss = nn.functional.binary_cross_entropy_with_logits(logits, shares)
            self.optimizer.zero_grad()
            (loss + self._prior(scores) + self.reward_loss(minibatch, obs)).backward()
            self.optimizer.step()
            self.mean.lerp_(self.optimizer.weights, 1 - DECAY)
            averages.add(loss=loss)
            if scores is not None:
                spreads.add(**spread(scores.detach()))
                chance = logits.detach().sigmoid()  # (B,)
                rows = torch.stack([chance * (1 - chance), torch.ones_like(chance)])
                information.index_add_(1, minibatch.items.squeeze(1), rows)
        self._set_precision(spreads, information)
        self.updates += 1
        metrics = self._validate()
        contexts = batch if self.held_back is None else self.held_back
        self._set_temperature(contexts.obs.rows(torch.arange(min(CONTEXTS, contexts.num_rows))))
        return averages.means() | metrics | {"lr": self.optimizer.lr}

    def loss(self, batch: Transitions) -> Tensor:
        """L of the decisions, a scalar."""
        logits, shares, _ = self._answers(batch)
        return nn.functional.binary_cross_entropy_with_logits(logits, shares)

    def _answers(self, batch: Transitions) -> tuple[Tensor, Tensor, Tensor | None]:
        """The scores z of the shown items and the shares y, (B,) each; the items' own scores (B, I)."""
        obs, _ = shown_among(self.model, batch.obs, batch.items, self.generators["policy"])
        logits, own = self.model.logits_and_own(obs)
        logits = logits.gather(1, obs.places_of(batch.items)).squeeze(1)
        low, high = self.model.span.unbind()
        return logits, ((batch.rewards - low) / (high - low).clamp_min(1e-8)).clamp(0, 1), own

    def _prior(self, scores: Tensor | None) -> Tensor | float:
        """The penalty of the items' own ``scores`` (B, I), the second term of the loss; 0 for None."""
        if scores is None:
            return 0.0
        return self.precision / (2 * self.num_decisions) * scores.square().sum(1).mean()

    def _set_precision(self, spreads: StepMeans, information: Tensor) -> None:
        """Set c from an update, the same in all processes.

        ``spreads``: the ``spread`` of all steps; ``information`` (2, I): sum of p (1 - p) over the decisions
        of each item, and their number.
        """
        means = self.optimizer.weights.new_tensor([*spreads.means().values()])
        if not len(means) or self.num_decisions == math.inf:
            return
        numbers = torch.cat([means, information.flatten()])
        if self.average is not None:
            self.average(numbers)
        (square, directions), (sums, rows) = numbers[:2].tolist(), numbers[2:].view(2, -1)
        self.seen = self.seen + rows
        each = torch.where(rows > 0, sums / rows, sums.sum() / rows.sum())  # mean p (1 - p) of each item
        self.precision = evidence(square, self.num_decisions * self.seen / self.seen.sum() * each, directions)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Keep the average of the weights if it is the best one; at the end of the run take the best one."""
        metrics, weights = {}, self.optimizer.weights.clone()
        self.optimizer.write(self.mean)
        sums = weights.new_zeros(2)  # of the losses, and of the decisions: one process may hold none back
        if self.held_back is not None:
            losses = [self.loss(part) * part.num_rows for part in self.held_back.split(1024)]
            sums = torch.stack([torch.stack(losses).sum(), sums.new_tensor(self.held_back.num_rows)])
        if self.average is not None:
            self.average(sums)
        if sums[1] > 0:
            metrics["held_back_loss"] = float(sums[0] / sums[1])
        if metrics.get("held_back_loss", 0.0) < self.least_loss:
            self.least_loss = metrics.get("held_back_loss", math.inf)
            self.best.copy_(self.mean)
        self.optimizer.write(self.best if self.updates == self.num_updates else weights)
        return metrics

    @torch.no_grad()
    def _set_temperature(self, obs: Obs) -> None:
        """Find T by bisection in the contexts ``obs`` of this process, then the mean over all processes."""
        beta = self.model.q(self.propose(obs, greedy=True)).double()  # (n, C)
        forbidden = beta == -torch.inf
        known = beta.masked_fill(forbidden, 0.0)
        uniform = (known.sum(1) / (~forbidden).sum(1).clamp_min(1)).mean()
        wanted = uniform + KEPT * (beta.amax(1).mean() - uniform)
        span = float(self.model.span[1] - self.model.span[0])
        cold, hot = math.log(COLDEST), 0.0  # logs of T / (hi - lo)
        for _ in range(12):
            middle = (cold + hot) / 2
            drawn = ((beta / (span * math.exp(middle))).softmax(1) * known).sum(1).mean()
            cold, hot = (middle, hot) if drawn >= wanted else (cold, middle)
        self.model.softness.fill_(span * math.exp(cold))
        if self.average is not None:
            self.average(self.model.softness)

    def state_dict(self) -> dict[str, Tensor]:
        """As NetworkPolicy, with the average of the weights, the best one so far and its loss, and c."""
        least = torch.tensor(self.least_loss if self.least_loss < math.inf else -1.0)
        own = {
            "optimizer.mean": self.mean.cpu().clone(),
            "optimizer.best": self.best.cpu().clone(),
            "least_loss": least,
            "precision": torch.tensor(self.precision, dtype=torch.float64),
            "optimizer.seen": self.seen.cpu().clone(),
        }
        return super().state_dict() | own

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises KeyError, RuntimeError or ValueError if it doesn't fit.

        A state without updates, as at the start from another run's weights, has no best weights yet.
        """
        super().load_state_dict(state)
        if self.updates:
            self.mean.copy_(state["optimizer.mean"])
            self.best.copy_(state["optimizer.best"])
            least = float(state["least_loss"])
            if not (least == -1 or 0 <= least < math.inf):
                raise ValueError(f"a loss of {least}")
            self.least_loss = least if least >= 0 else math.inf
            self.precision = float(state["precision"])
            seen = state.get("optimizer.seen", torch.zeros(()))  # of an earlier version: none
            if seen.shape not in (torch.Size(), (sum(self.model.shapes.action_sizes),)):
                raise ValueError(f"decisions of {tuple(seen.shape)} items")
            self.seen = seen.to(self.mean.device, copy=True)
            if not 0 <= self.precision < math.inf:
                raise ValueError(f"a precision of {self.precision}")
        else:
            self.mean.copy_(self.optimizer.weights)
            self.best.copy_(self.optimizer.weights)
            self.least_loss, self.precision = math.inf, 0.0
            self.seen = self.mean.new_zeros(())


def spread(scores: Tensor) -> dict[str, Tensor]:
    """The mean of z_i^2 over a minibatch and all items, and d, from the ``scores`` z_i (B, I)."""
    side = scores if scores.shape[0] < scores.shape[1] else scores.T
    products = side @ side.T  # (B, B) or (I, I): both have the same eigenvalues but zeros
    squares = scores.square().sum()
    return {
        "square": squares / scores.numel(),
        "directions": squares.square() / products.square().sum().clamp_min(1e-30),
    }


# c = d / v  mean_i a_i / (a_i + c), with v = mean z^2 (MacKay 1992, Neural Computation 4(3))
def evidence(square: float, information: Tensor, directions: float) -> float:
    """The only c, from v = ``square``, a_i = ``information`` (I,) and d = ``directions``.

    The right side falls while c rises, so halving the interval up to d / v finds it.
    """
    a = information.double()
    low, high = 0.0, directions / max(square, 1e-8)  # c if all a_i are infinite
    most = high
    for _ in range(60):
        c = (low + high) / 2
        share = float(torch.where(a > 0, 1 / (1 + c / a), 0.0).mean())
        low, high = (c, high) if c < most * share else (low, c)
    return (low + high) / 2


ALGORITHM = Algorithm(DirectConfig, Direct, LOGGED, AnswerNetwork, needs=("rewards", "single items"))

"""Encoders, which make features of an observation: multilayer perceptrons, and the sums over a history."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys_rl.models.fast.dense import ACTIVATIONS
from recsys_rl.models.fast.session_sums import session_sums, weigh
from recsys_rl.models.features import SplitFeatures
from recsys_rl.types import Obs


def orthogonal(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> Tensor:
    """A matrix (inputs, outputs) whose shorter side is orthogonal, times ``gain`` (Saxe et al. 2014)."""
    return nn.init.orthogonal_(torch.empty(outputs, inputs), gain, generator=generator).T.contiguous()


class Linear(nn.Module):
    """x W + b, with W (inputs, outputs) orthogonal times ``gain``, and b zero.

    torch.nn.Linear stores W as (outputs, inputs). Here neither W nor its gradient is transposed.
    """

    def __init__(self, inputs: int, outputs: int, gain: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(orthogonal(inputs, outputs, gain, generator))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def widen(self, weight: Tensor) -> None:
        """Add outputs after the others, with the first weights ``weight`` (inputs, more outputs)."""
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), weight], 1))
        self.bias = nn.Parameter(torch.zeros(self.weight.shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight) if x.ndim == 2 else x @ self.weight + self.bias


class TwinMLP(nn.Module):
    """Two multilayer perceptrons over the same inputs, with separate weights.

    The layers are sizes[0] -> ... -> sizes[-1] with gain sqrt(2), each followed by the activation. Both are
    computed together, as one batch of two, by ``fast.dense.actor_critic``.
    """

    def __init__(self, sizes: Sequence[int], activation: str, generator: torch.Generator) -> None:
        super().__init__()
        layers = list(itertools.pairwise(sizes))
        self.activation = ACTIVATIONS[activation]
        self.weights = nn.ParameterList(
            torch.stack([orthogonal(*layer, 2**0.5, generator) for _ in range(2)]) for layer in layers
        )  # (2, in, out) each
        self.biases = nn.ParameterList(torch.zeros(2, 1, outputs) for _, outputs in layers)

    def one(self, which: int, x: Tensor) -> Tensor:
        """Only the first (0) or the second (1) network: (N, in) -> (N, out)."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = self.activation(torch.addmm(bias[which], x, weight[which]))
        return x


class SessionSum(nn.Module):
    """Recency-weighted sums over the items of a session, without and with their signals.

    With item features f, signals s_1 ... s_S and learned weights w_p(k) for the item shown k places ago::

        out_p = sum_k w_p(k) f_k      out_{p,i} = sum_k w_p(k) s_{i,k} f_k

    The weights start as exponential decays, as most user models forget exponentially.
    """

    DECAYS = (0.0, 0.5, 0.75, 1.0)  # only the last item; the last few; more of them; all with equal weight

    def __init__(self, length: int, num_signals: int) -> None:
        super().__init__()
        age = torch.arange(length - 1, -1, -1, dtype=torch.float32)  # (L,): the latest is last
        decay = torch.tensor(self.DECAYS).unsqueeze(-1)  # (P, 1)
        weights = decay**age  # (P, L)
        self.kernels = nn.Parameter(weights / weights.sum(1, keepdim=True))
        self.num_blocks = (1 + num_signals) * len(self.DECAYS)

    def forward(self, obs: Obs, item_features: Tensor | SplitFeatures) -> Tensor:
        """The sums, (N, (1 + S) P, F_i)."""
        assert obs.history is not None and obs.signals is not None
        if isinstance(item_features, Tensor):
            return session_sums(self.kernels, obs.history, obs.signals, item_features)
        features = item_features[obs.history.clamp_min(0)]  # (N, L, F_i)
        return weigh(self.kernels, obs.history, obs.signals, features)

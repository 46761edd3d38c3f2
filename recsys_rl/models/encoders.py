"""From an observation to features: multilayer perceptrons, and two readers of a session's history."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys_rl.types import Obs

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}


def linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """A linear layer with orthogonal weights of that gain and zero bias (Saxe et al. 2014)."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(sizes: Sequence[int], activation: str, generator: torch.Generator) -> nn.Sequential:
    """Hidden layers sizes[0] -> ... -> sizes[-1], each followed by the activation, gain sqrt(2)."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [linear(inputs, outputs, 2**0.5, generator), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class SessionSum(nn.Module):
    """Recency-weighted sums of what a session showed, as it was shown and as it was received.

    With item features f, signals s and learned weights w_p(k) for the item shown k steps ago::

        out_p = sum_k w_p(k) f_k      out'_p = sum_k w_p(k) s_k f_k

    The weights start as exponential decays, the form that forgetting has in most user models.
    """

    DECAYS = (0.0, 0.5, 0.75, 1.0)  # the last item alone, the last few, more of them, all alike

    def __init__(self, length: int) -> None:
        super().__init__()
        age = torch.arange(length - 1, -1, -1, dtype=torch.float32)  # (L,): the latest is last
        decay = torch.tensor(self.DECAYS).unsqueeze(-1)  # (P, 1)
        weights = decay**age  # (P, L)
        self.kernels = nn.Parameter(weights / weights.sum(1, keepdim=True))
        self.num_blocks = 2 * len(self.DECAYS)

    def forward(self, obs: Obs, item_features: Tensor) -> Tensor:
        assert obs.history is not None and obs.signals is not None
        assert obs.signals.shape[-1] == 1  # one signal weights the sums
        shown = (obs.history >= 0).to(item_features.dtype)  # (N, L)
        plain = shown.unsqueeze(1) * self.kernels  # (N, P, L)
        weights = torch.cat([plain, plain * obs.signals.transpose(1, 2)], 1)  # (N, 2P, L)
        features = item_features[obs.history.clamp_min(0)]  # (N, L, F_i)
        return weights @ features  # (N, 2P, F_i)


class SessionGRU(nn.Module):
    """A gated recurrent unit (Cho et al. 2014) over the shown items' features and signals."""

    def __init__(
        self, num_features: int, num_signals: int, generator: torch.Generator, size: int = 64
    ) -> None:
        super().__init__()
        # Made without values: torch would draw them from the global generator.
        self.gru = nn.GRU(num_features + num_signals, size, batch_first=True, device="meta")
        self.gru.to_empty(device="cpu")
        for name, parameter in self.gru.named_parameters():
            if name.startswith("weight"):
                nn.init.orthogonal_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)
        self.out_features = size

    def forward(self, obs: Obs, item_features: Tensor) -> Tensor:
        assert obs.history is not None and obs.signals is not None
        n, length = obs.history.shape
        lengths = (obs.history >= 0).sum(1, keepdim=True)  # (N, 1)
        # Padding comes first in a history, where the unit's biases would make something of it: it is
        # moved behind the items, and the reading stops at the last of them.
        order = (torch.arange(length, device=lengths.device) - lengths) % length  # (N, L)
        signals = obs.signals.gather(1, order.unsqueeze(-1).expand_as(obs.signals))
        features = item_features[obs.history.gather(1, order).clamp_min(0)]  # (N, L, F_i)
        states, _ = self.gru(torch.cat([features, signals], -1))  # (N, L, size)
        last = states[torch.arange(n, device=lengths.device), lengths[:, 0] - 1]  # (N, size)
        return torch.where(lengths > 0, last, 0.0)

"""The sizes in a checkpoint's settings against its own weights, before a network is built from them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor

from recsys_rl.checkpoint.sealed import Refused
from recsys_rl.settings.config import Config
from recsys_rl.types import Interface


def check_sizes(config: Config, interface: Interface, agent: Mapping[str, Tensor]) -> None:
    """Raise Refused for sizes that the file can't hold: to build such a network could take minutes."""
    items = sum(interface.action_sizes)
    features = 0 if config.platform.users else interface.candidate_features
    apart = sum(dict(interface.context)[name] for name in interface.user_columns)
    width = interface.context_size - apart - ((items - 1) * features if features else 0)
    layers = (width, *config.model_config.hidden_dims)
    needed = 2 * sum(one * other for one, other in pairwise(layers))  # of actor and critic
    needed += interface.history_length  # the weights of its places
    if config.model_config.head == "dense":
        needed += layers[-1] * (features or items)  # shared weights score a candidate by its features
    if needed > sum(tensor.numel() for tensor in agent.values()):
        raise Refused(
            f"holds fewer weights than its settings need (hidden_dims {layers[1:]}, history_length "
            f"{interface.history_length})"
        )
    steps = getattr(config.env_config, "max_episode_steps", interface.session_length)
    if interface.session_length != steps or (config.platform.users and interface.slate_size > items):
        raise Refused(
            f"holds an 'interface' of {interface.session_length} steps of {interface.slate_size} items, and "
            f"its settings say {steps} steps with {items} items"
        )

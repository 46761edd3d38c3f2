"""The streams of a platform that `train --limit` can bound."""

from __future__ import annotations

from recsys_rl.make import make_env, make_world
from recsys_rl.objective.limit_streams import limit_streams
from recsys_rl.settings.config import Config
from recsys_rl.utils.terminal import say


def list_streams(config: Config) -> None:
    """Print the name and the meaning of each stream. Raises UserError if the data can't be used."""
    world = make_world(config)
    streams = limit_streams(world.catalogue, make_env(config, world, 1).streams)
    width = max(map(len, streams))
    for name, stream in streams.items():
        say(f"{name:<{width}}  {stream.meaning}")

"""Small logs of a team, as CSV files, and policies of such logs without training."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recsys_rl.checkpoint import Checkpoint, save
from recsys_rl.logs.source import Place, open_log
from recsys_rl.make import make_agent, make_world
from recsys_rl.settings.config import Config, brought_settings, overlay

DEVICES = ("desk", "phone", "tv")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def clicks(path: Path, rows: int = 120, seed: int = 0, items: int = 4) -> Path:
    """Single decisions, drawn uniformly: an age up to 80, a device, and a list of two numbers."""
    drawn = random.Random(seed)
    header = ["user", "item", "clicked", "propensity", "context.age", "context.device", "context.v"]
    lines = []
    for _ in range(rows):
        vector = f"{drawn.random():.3f}|{drawn.gauss(0, 1):.3f}"
        of_user, item = f"u{drawn.randrange(30)}", f"i{drawn.randrange(items)}"
        age, device = round(drawn.uniform(1, 80), 1), drawn.choice(DEVICES)
        lines.append([of_user, item, int(drawn.random() < 0.4), 1 / items, age, device, vector])
    return write_csv(path, header, lines)


def sessions(path: Path, number: int = 60, seed: int = 0, users: int = 20) -> Path:
    """Sessions of one to four steps with two signals."""
    drawn = random.Random(seed)
    header = [
        "user",
        "session",
        "step",
        "item",
        "signal.clicked",
        "signal.dwell",
        "propensity",
        "context.age",
    ]
    lines = []
    for session in range(number):
        user, age = drawn.randrange(users), round(drawn.uniform(1, 80), 1)
        for step in range(drawn.randint(1, 4)):
            clicked, dwell = int(drawn.random() < 0.4), round(drawn.random(), 2)
            lines.append([user, f"s{session}", step, f"i{drawn.randrange(4)}", clicked, dwell, 0.25, age])
    return write_csv(path, header, lines)


def items_file(path: Path, number: int = 4) -> Path:
    rows = [[f"i{item}", f"Thing {item}", "ab"[item % 2], 1.5 * item] for item in range(number)]
    return write_csv(path, ["item", "title", "genres", "price"], rows)


def policy(path: Path, log: Path, algo: str = "bc", **settings: Any) -> Path:
    """A checkpoint of a policy of this log at ``path``, with the weights of its first update."""
    brought = brought_settings("own-log", {"log": (str(log),), **settings})
    given = overlay(brought, {"algo": algo, "env": "own-log"})
    config = Config(**given, log=(str(log),), hidden_dims=(8,), **settings)
    world = make_world(config)
    interface = open_log(config.agent_config.log, Place.of_run(config, world)).header.interface
    agent = make_agent(config, interface, world.catalogue)
    save(path, Checkpoint(config, interface, world, agent.state_dict(), {}, {}, {}, 0, 0, {}))
    return path

"""DiscreteCQL of d3rlpy on a log of many items, run by the Python that has it: python d3rlpy_cql.py FOLDER.

``problem.npz`` in the folder holds the decisions to learn from, and the other contexts. The items (m,) that
the policy would show there are written to ``shown.npy``; the line of JSON has version and seconds of CPU.

It knows items by their numbers. Hidden layers, penalty, learning rate and the number of gradient steps are
those of ``recsys-rl train --algo cql`` on such a log; the learning rate does not fall.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import d3rlpy
import numpy as np
from d3rlpy.algos import DiscreteCQLConfig
from d3rlpy.constants import ActionSpace
from d3rlpy.dataset import MDPDataset
from d3rlpy.logging import NoopAdapterFactory
from d3rlpy.models import VectorEncoderFactory


def main(folder: Path) -> None:
    log = np.load(folder / "problem.npz")
    d3rlpy.seed(0)
    started = time.process_time()
    data = MDPDataset(
        observations=log["contexts"].astype(np.float32),
        actions=log["chosen"].astype(np.int64)[:, None],
        rewards=log["clicks"].astype(np.float32)[:, None],
        terminals=np.ones(len(log["chosen"]), np.float32),
        action_space=ActionSpace.DISCRETE,
        action_size=int(log["number"]),
    )
    learner = DiscreteCQLConfig(
        batch_size=128,
        learning_rate=3e-3,
        gamma=0.99,
        alpha=0.03,
        encoder_factory=VectorEncoderFactory([128, 64]),
    ).create(device="cpu:0")
    quiet = NoopAdapterFactory()
    learner.fit(data, n_steps=2500, n_steps_per_epoch=2500, logger_adapter=quiet, show_progress=False)
    np.save(folder / "shown.npy", learner.predict(log["others"].astype(np.float32)))
    seconds = time.process_time() - started
    print(json.dumps({"version": d3rlpy.__version__, "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

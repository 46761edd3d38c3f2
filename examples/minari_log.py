"""A log of decisions as a Minari data set, for learners of other libraries, and a Minari data set as a log.

    pip install "minari[hdf5]"
    recsys-rl record --policy random --users train --sessions 2000 --out log.parquet
    python examples/minari_log.py log.parquet checkpoints/ppo.pt satiation/random-v0 sessions.parquet
    recsys-rl train --algo cql --log sessions.parquet

``write`` makes an episode of each session; the checkpoint brings the items and the rewards. An observation is
the context, one number after another, and a 1 for each item that may be shown; the history is left out, as
ids are names and no magnitudes. ``read`` makes a table from any data set of vectors and numbered actions.
Minari keeps its data sets in the folder MINARI_DATASETS_PATH.
"""

from __future__ import annotations

import sys

import minari
import numpy as np
import polars as pl
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from recsys_rl.checkpoint import load
from recsys_rl.foreign.ids import action_mask
from recsys_rl.logs import open_log, read_decisions, transition_table
from recsys_rl.logs.checks import check_catalogue


def write(log_file: str, checkpoint: str, dataset_id: str) -> None:
    """The sessions of a log of `recsys-rl record` as a new Minari data set."""
    if dataset_id in minari.list_local_datasets():
        sys.exit(f"The data set {dataset_id} exists: give another name or version.")
    known = load(checkpoint)
    source, log = open_log((log_file,), known), read_decisions(log_file)
    check_catalogue(log_file, log.header, known.catalogue)
    interface = log.header.interface
    if interface.slate_size != 1:
        sys.exit(f"{log_file} holds slates of {interface.slate_size} items, and here an action is one item.")
    table = transition_table(log, known.catalogue, source.rewards()(log.feedback))
    parts = table.obs.context.numpy(), action_mask(table.obs, interface)
    vectors = np.concatenate(parts, 1, dtype=np.float32)
    actions, rewards = table.items[:, 0].numpy(), table.rewards.numpy()
    terminated, truncated = table.terminated.numpy(), table.truncated.numpy()
    episodes, first = [], 0
    for number, last in enumerate(np.flatnonzero(terminated | truncated).tolist()):
        rows = slice(first, last + 1)
        episodes.append(
            EpisodeBuffer(
                id=number,
                observations=vectors[first + number : last + number + 2],  # one more: after the last step
                actions=actions[rows],
                rewards=rewards[rows],
                terminations=terminated[rows],
                truncations=truncated[rows],
            )
        )
        first = last + 1
    minari.create_dataset_from_buffers(
        dataset_id,
        episodes,
        observation_space=spaces.Box(-np.inf, np.inf, vectors.shape[1:]),
        action_space=spaces.Discrete(interface.action_sizes[0]),
        algorithm_name=", ".join(log.header.loggers),
    )


def read(dataset_id: str, file: str) -> pl.DataFrame:
    """The steps of a Minari data set as a table of one's own, written to a Parquet ``file``."""
    dataset = minari.load_dataset(dataset_id)
    seen, actions = dataset.observation_space, dataset.action_space
    if not isinstance(seen, spaces.Box) or not isinstance(actions, spaces.Discrete):
        sys.exit(f"{dataset_id} has observations {seen} and actions {actions}: Box and Discrete are read.")
    steps = [
        pl.DataFrame(
            {
                "session": np.full(len(episode), episode.id),
                "step": np.arange(len(episode)),
                "item": episode.actions,
                "reward": episode.rewards,
                "terminated": episode.terminations,
                "truncated": episode.truncations,
                "context.observation": episode.observations[:-1].reshape(len(episode), -1).tolist(),
            }
        )
        for episode in dataset.iterate_episodes()
    ]
    table = pl.concat(steps)
    table.write_parquet(file)
    return table


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: python examples/minari_log.py LOG CHECKPOINT DATASET_ID TABLE.parquet")
    log_file, checkpoint, dataset_id, file = sys.argv[1:]
    write(log_file, checkpoint, dataset_id)
    table = read(dataset_id, file)
    sessions = table["session"].n_unique()
    print(f"{dataset_id}: {sessions} sessions, mean return {table['reward'].sum() / sessions:.3f}; {file}")

"""Train PPO on your own log, and compare it with every simple alternative on held-out users.

    python examples/own_log.py plays.csv --user-column listener --item-column track --rating-column stars

The file has one row per event: user, item, and if you have them a time and a rating. The command
`recsys-rl train --data plays.csv` does the same; this example does it from Python. Without a file, the
example makes a log.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from recsys_rl import UserError, evaluate, train


def made_up_log(path: Path, num_users: int = 300, num_items: int = 120) -> Path:
    """Three kinds of listeners. Each plays 30 tracks and gives more stars to tracks of the same kind."""
    rng = np.random.default_rng(0)
    rows = ["listener,track,stars"]
    for user in range(num_users):
        for item in rng.permutation(num_items)[:30]:
            own_kind = user % 3 == item % 3
            stars = rng.integers(3, 6) if own_kind else rng.integers(1, 5)
            rows.append(f"listener {user},track {item},{stars}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def main(log: Path, columns: dict[str, str], folder: Path, total_timesteps: int = 100_000) -> dict[str, Any]:
    """Train on ``log``, write all files to ``folder``, print the table and return it as plain values."""
    checkpoint = train(  # all other settings come from the preset of PPO on satiation
        env="satiation",
        data_config=columns,
        data=log,
        cache_dir=folder,
        num_items=100,
        embedding_dim=16,
        total_timesteps=total_timesteps,
        runs_dir=folder / "runs",
        latest=False,  # no link in the working directory
    )
    return evaluate(checkpoint, report=folder / "report.html")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train PPO on your own log.")
    parser.add_argument("log", nargs="?", type=Path, help="CSV or Parquet file (default: a made-up log)")
    parser.add_argument("--user-column", default="listener", help="column of the user id")
    parser.add_argument("--item-column", default="track", help="column of the item id")
    parser.add_argument("--rating-column", help="column of the rating, if there is one")
    parser.add_argument("--time-column", help="column of the time, if there is one")
    parser.add_argument("--folder", type=Path, help="folder of the results (default: a new temporary one)")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="own-log-"))
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"user_column": given.user_column, "item_column": given.item_column}
    columns |= {} if given.rating_column is None else {"rating_column": given.rating_column}
    columns |= {} if given.time_column is None else {"time_column": given.time_column}
    log = given.log
    if log is None:
        log = made_up_log(folder / "plays.csv")
        columns["rating_column"] = "stars"
    try:
        main(log, columns, folder)
    except UserError as error:
        parser.error(str(error))

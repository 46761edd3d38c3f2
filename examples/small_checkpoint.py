"""A small checkpoint to try without training, and its card, in dist/checkpoint/.

    python -m examples.small_checkpoint [--out FOLDER]     # or: make checkpoint

PPO is trained on `satiation` with 100 made-up items and 1,000 made-up users, so that no data has terms to
keep, and the table of `recsys-rl evaluate` is made with users held out of training (two minutes of a core).
The folder then has ppo.pt and CARD.md: the data and its terms, the table, the seed, the hash, and what the
policy is not for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys_rl import UserError, __version__, evaluate, load, train
from recsys_rl.utils.files import check_writable, sha256_of, write_bytes, write_text

SETTINGS: dict[str, Any] = {
    "env": "satiation",
    "data": "synthetic",
    "num_items": 100,
    "num_users": 1_000,
    "embedding_dim": 8,
    "total_timesteps": 300_000,
    "seed": 0,
}
ROWS = {
    "random": "random items",
    "popularity": "the most popular items",
    "mf": "the items nearest to the user's taste, best first",
    "mmr": "that list, diversified",
    "rule": "a linear score, its weights found by as many trials in the simulator",
    "searched": "the best of nested linear scores, found in the same way",
    "ppo": "**this policy**, as a server draws",
    "ppo-greedy": "**this policy**, its likeliest item",
    "planner": "a search that sees the hidden state of the user, on fewer users",
}


def make(folder: Path, max_users: int = 1000, **settings: Any) -> Path:
    """Train, evaluate, and write ppo.pt and CARD.md into ``folder``: the path of the checkpoint.

    ``settings``: in place of those of SETTINGS. Raises UserError if the folder can't be written.
    """
    chosen = SETTINGS | settings
    out, page = folder / "ppo.pt", folder / "CARD.md"
    for path in (out, page):
        check_writable(path, "--out")
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        trained = train(**chosen, folder=run)
        table = evaluate(trained, max_users=max_users, cache_dir=Path(name) / "cache")
        write_text(page, card(trained, table, chosen))  # before the checkpoint: no file without its card
        write_bytes(out, trained.read_bytes())
    return out


def card(path: Path, table: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The text of CARD.md for the checkpoint at ``path``."""
    checkpoint = load(path).checkpoint
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())
    people, info = checkpoint.population, checkpoint.info
    users = f"{len(people.train):,} training users, {len(people.heldout):,} held out"
    versions = f"recsys_rl {__version__}, torch {info['torch']}, Python {info['python']}, {info['created']}"
    return f"""# PPO on `satiation`, made-up items and users

A policy that chooses movies one after another for simulated people who tire of similar movies and leave when
movies disappoint them. It is here to try `recsys-rl recommend`, `serve` and `evaluate` without training.

| | |
|---|---|
| file | `ppo.pt`, {path.stat().st_size:,} bytes, without code: safetensors with a checksum over all bytes |
| sha256 | `{sha256_of(path)}` |
| data | {checkpoint.catalogue.source}; {users} |
| terms of the data | none: items and users are drawn from a seed, and no person's data is in them |
| licence | MIT, as the code |
| training | `recsys-rl train {options}`, {checkpoint.step:,} steps |
| seed | {checkpoint.config.train_config.seed} |
| made by | {versions} |

Another run with this seed has another hash: the file holds its time, and other processors give other
weights.

## What it earns

The mean return of one session of each of {table["sessions"]:,} held-out users: the sum of the watched shares
of at most {checkpoint.interface.session_length} movies (`recsys-rl evaluate`).

| | who chooses | return | 95 % interval | movies until the user leaves |
|---|---|---:|---:|---:|
{rows(table)}

{gains(table)}

## What it is not for

- **Real people.** The items are random vectors with the titles `item 0`, `item 1`. It knows no movie.
- **A claim that reinforcement learning wins.** It is one seed of one small world, and its users are
  equations. The tables over seeds, on ratings of real people, are in docs/02 and docs/06 of the repository.
- **What a policy gains from a noisy profile.** In a made-up world a user's profile is the taste itself, which
  nobody knows of real people. `mf`, `rule` and `searched` see the same.
- **A start for your own policy.** Your items have other vectors: train on your own data.

## Try it

```bash
sha256sum ppo.pt
recsys-rl recommend --checkpoint ppo.pt --like "item 7" --like "item 12" --k 5
recsys-rl evaluate --checkpoint ppo.pt
recsys-rl serve --checkpoint ppo.pt --db record.sqlite    # HTTP on this machine, with an exact record
```
"""


def rows(table: Mapping[str, Any]) -> str:
    """The lines of the table, from the lowest return to the highest."""
    lines = []
    for row in sorted(table["rows"], key=lambda row: row["return_mean"]):
        if row["policy"] in ROWS:
            interval = f"{row['return_low']:.2f} to {row['return_high']:.2f}"
            cells = [f"`{row['policy']}`", ROWS[row["policy"]], f"{row['return_mean']:.2f}", interval]
            lines.append(f"| {' | '.join([*cells, format(row['length_mean'], '.1f')])} |")
    return "\n".join(lines)


def gains(table: Mapping[str, Any]) -> str:
    """A sentence for each rival that the policy, as it draws, is compared with on the same users."""
    sentences = []
    for row in table["gains"]:
        if row["policy"] == "ppo":
            interval = f"{row['low']:+.1%} to {row['high']:+.1%}"
            sentences.append(f"Against `{row['versus']}`, same users: {row['gain']:+.1%} ({interval}).")
    return " ".join(sentences)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("dist/checkpoint"), metavar="FOLDER")
    out = make(parser.parse_args().out)
    print(f"{out} and {out.with_name('CARD.md')}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None

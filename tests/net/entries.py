"""The entries of the net, in their order: functions of the folder. Later ones use files of earlier ones."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.net import values
from tests.net.commands import CommandFailed, run, start, stop, until
from tests.net.served import serve_entries
from tests.net.world import (
    EPOCHS,
    LOGGED,
    PPO,
    ROLLOUTS,
    RUN,
    SIZES,
    WORLD,
    updates,
    write_decisions,
    write_plays,
    write_ratings,
)

Entry = Callable[[Path], Any]
GAME = "benchmarks.coat.matrix_users:PLATFORM"
SATIATION = ["--env", "satiation", *PPO]
ONLINE = {
    "ppo": [*SATIATION, *updates(9)],
    "a2c": ["--algo", "a2c", "--env", "satiation", *WORLD, *ROLLOUTS, *updates(9)],
    "dqn": [
        *("--algo", "dqn", "--env", "satiation", *WORLD, *RUN, "--num-envs", "16", "--train-freq", "20"),
        *("--buffer-size", "1000", "--learning-starts", "600", "--batch-size", "32"),
        *("--gradient-steps", "10", "--return-steps", "2", *updates(9)),
    ],
}
FROM_LOGS = ("bc", "cql", "bcq", "iql", "reinforce", "dt")
PLATFORMS = {
    "drift": ["--history-length", "5"],
    "short-video": ["--num-items", "120", "--max-episode-steps", "30"],
    "long-video": ["--num-items", "120"],
    "social-feed": ["--num-items", "120"],
}
VARIANTS = {
    "a slate of three": ["--env", "long-video", *PPO, "--num-items", "120", "--suggestions", "3"],
    "transformer": [*SATIATION, "--encoder", "transformer"],
    "candidates": [*SATIATION, "--candidates", "20", "--index", "exact"],
    "scorer": [*SATIATION, "--head", "scorer"],
    "limit": [*SATIATION, "--limit", "tail_exposure>=0.9"],
    "novelty": [*SATIATION, "--novelty", "0.5"],
    "target_kl and clipped values": [*SATIATION, "--target-kl", "0.001", "--clip-vloss"],
    "visits": ["--env", "short-video", *PPO, "--num-items", "120", "--visits", "3"],
    "strangers": [*SATIATION, "--stranger-share", "0.5"],
    "two processes": [*SATIATION, "--num-processes", "2"],
    "record of the run": [*SATIATION, "--record", "replay"],
}
WITHOUT_TABLE = set(VARIANTS) - {"a slate of three", "candidates", "visits"}


def entries() -> dict[str, Entry]:
    """Name -> the function that makes its value."""
    found: dict[str, Entry] = {}
    for algo, options in ONLINE.items():
        found |= _run(f"{algo} on satiation", algo, options, algo)
    for name, options in PLATFORMS.items():
        found |= _run(f"ppo on {name}", name, ["--env", name, *PPO, *options, *updates(6)])
    matrix = ["--env", GAME, "--data", "benchmarks.coat.rating_matrix:SOURCE", "--matrix", "ratings.csv"]
    matrix += ["--num-items", "40", *SIZES, *EPOCHS]
    found["files of the world"] = _files
    found |= _run("ppo on matrix-game", "matrix", [*matrix, *updates(6)])
    gym = ["--env", "gym:CartPole-v1", *EPOCHS, *updates(6)]
    found |= _run("ppo on gym:CartPole-v1", "gym", gym)
    for name, options in VARIANTS.items():
        found |= _run(name, name.replace(" ", "-"), [*options, *updates(6)])
    found["record of the run / rows"] = lambda folder: values.rows(folder / "replay")
    found["kill and --resume / weights"] = _killed

    log = ["record", "--checkpoint", "runs/ppo/ppo.pt", "--quiet", "--sessions", "400", "--users", "all"]
    found["record, two loggers"] = _record(
        [*log, "--policy", "ppo", "--policy", "random", "--out", "two.parquet"], "two.parquet"
    )
    found["record, a mixture in parts"] = _record(
        [*log, "--mix", "random", "--epsilon", "0.3", "--parts", "1000", "--out", "mixture"], "mixture"
    )
    slates = ["--checkpoint", "runs/a-slate-of-three/ppo.pt", "--policy", "random", "--out", "slates.parquet"]
    found["record, slates"] = _record([log[0], *log[3:], *slates], "slates.parquet")
    staged = ["--checkpoint", "runs/candidates/ppo.pt", "--out", "candidates.parquet"]
    found["record, candidates"] = _record([log[0], *log[3:], *staged], "candidates.parquet")
    for algo in FROM_LOGS:
        options = ["--algo", algo, "--env", "satiation", *WORLD, *LOGGED, "--log", "two.parquet", *updates(9)]
        found |= _run(f"{algo} from a log", algo, options, algo)

    begun = {
        "the same shapes": [*SATIATION, "--init-from", "runs/ppo/ppo.pt"],
        "cql to ppo": [*SATIATION, "--encoder", "mlp", "--init-from", "runs/cql/cql.pt"],
    }
    for name, options in begun.items():
        found |= _run(f"--init-from, {name}", f"from-{name.replace(' ', '-')}", [*options, *updates(3)])
    plays = ["--env", "satiation", "--num-items", "30", *SIZES, *EPOCHS, "--min-item-likes", "2"]
    found |= _run("ppo on a log of events", "plays", [*plays, "--data", "old.csv", *updates(3)])
    newer = [*plays, "--data", "new.csv", "--init-from", "runs/plays/ppo.pt"]
    found |= _run("--init-from, newer data", "newer", [*newer, *updates(3)])

    found["fit-users"] = _fit
    inside = ["--env", "learned", "--user-model", "users.pt", *EPOCHS]
    found |= _run("ppo in learned users", "inside", [*inside, *updates(4)])
    found |= _judged()
    found |= serve_entries()
    found |= _words()
    return found


def _run(name: str, run_name: str, options: list[str], algo: str = "ppo") -> dict[str, Entry]:
    """A training; its weights, the rest of its checkpoint, its log and its table."""
    path = Path("runs") / run_name / f"{algo}.pt"

    def weights(folder: Path) -> Any:
        words = ["train", *options, "--runs-dir", "runs", "--name", run_name, "--cache-dir", "cache"]
        if "--data" not in words:  # a gym: environment, learned users
            words = words[:-2]
        if "--num-processes" in words:
            _finish(folder, *words)
        else:
            run(folder, *words)
        return values.checkpoint(folder / path)["agent"]

    def state(folder: Path) -> Any:
        sections = values.checkpoint(folder / path)
        return {section: found for section, found in sections.items() if section != "agent"}

    def table(folder: Path) -> Any:
        out = folder / f"{run_name}.json"
        planner = [] if run_name in ("ppo", "drift") else ["--no-planner"]
        users = [] if run_name == "gym" else ["--max-users", "24", *planner]
        users += ["--env", GAME] if GAME in options else []
        run(folder, "evaluate", str(path), "--json", out.name, "--cache-dir", "cache", *users)
        return values.table(out)

    found: dict[str, Entry] = {
        f"{name} / weights": weights,
        f"{name} / state": state,
        f"{name} / curves": lambda folder: values.curve((folder / path).with_name("log.csv")),
    }
    return found | ({f"{name} / table": table} if name not in WITHOUT_TABLE else {})


def _finish(folder: Path, *words: str) -> None:
    process = start(folder, *words)
    if process.wait(300):
        raise CommandFailed((folder / f"{words[0]}.err").read_text().strip().splitlines()[-1])


def _files(folder: Path) -> Any:
    """Files that stand for those of a team. Their digests show whether two nets had the same ones."""
    write_plays(folder / "old.csv", 80)
    write_plays(folder / "new.csv", 100)
    write_decisions(folder / "own.csv", folder / "target.csv")
    write_decisions(folder / "unknown.csv", folder / "target.csv", propensities=False)
    write_ratings(folder / "ratings.csv")
    (folder / "ids.txt").write_text("3\n7\n11\n")
    return {path.name: values.digest(path.read_bytes()) for path in sorted(folder.glob("*.csv"))}


def _killed(folder: Path) -> Any:
    """A run that is killed after its first checkpoint, and resumed: the weights at its end."""
    options = [*SATIATION, *updates(40), "--runs-dir", "runs", "--name", "killed", "--cache-dir", "cache"]
    process = start(folder, "train", *options)
    until((folder / "runs/killed/ppo.pt").exists, process)
    if stop(process, signal.SIGKILL) != -signal.SIGKILL:
        raise CommandFailed("the run ended before it was killed")
    run(folder, "train", "--resume")
    return values.checkpoint(folder / "runs/killed/ppo.pt")["agent"]


def _record(words: list[str], out: str) -> Entry:
    def rows(folder: Path) -> Any:
        run(folder, *words)
        return values.rows(folder / out)

    return rows


def _fit(folder: Path) -> Any:
    fit = ["--members", "2", "--epochs", "1", "--json", "users.json", "--quiet"]
    run(
        folder,
        "fit-users",
        "--log",
        "two.parquet",
        "--checkpoint",
        "runs/ppo/ppo.pt",
        "--out",
        "users.pt",
        *fit,
    )
    return {"file": values.checkpoint(folder / "users.pt"), "report": values.table(folder / "users.json")}


def _judged() -> dict[str, Entry]:
    """`ope` on logs of five kinds."""
    own = ["--log", "own.csv", "--target", "target.csv", "--compare", "target", "logged"]
    unknown = ["--log", "unknown.csv", "--target", "target.csv", "--no-world"]
    first = ["--checkpoint", "runs/ppo/ppo.pt", "--policy", "ppo", "--policy", "popularity", "--no-world"]
    slates = ["--log", "slates.parquet", "--checkpoint", "runs/a-slate-of-three/ppo.pt", "--no-world"]
    staged = ["--log", "candidates.parquet", "--checkpoint", "runs/candidates/ppo.pt", "--no-world"]
    cql = [
        "--log",
        "two.parquet",
        "--checkpoint",
        "runs/cql/cql.pt",
        "--logger",
        "runs/ppo/ppo.pt",
        "--no-world",
    ]
    options = {
        "two loggers": ["--log", "two.parquet", *first, "--compare", "ppo", "logged"],
        "two loggers, the policy of cql": cql,
        "a mixture in parts": ["--log", "mixture", *first],
        "slates": slates,
        "candidates": staged,
        "a team's own log": own,
        "a team's own log without propensities": unknown,
    }
    return {f"ope, {name}": _json("ope", *words) for name, words in options.items()}


def _json(*words: str) -> Entry:
    """The JSON file of a command."""

    def table(folder: Path) -> Any:
        (folder / "result.json").unlink(missing_ok=True)
        run(folder, *words, "--json", "result.json")
        return values.table(folder / "result.json")

    return table


def _words() -> dict[str, Entry]:
    """Commands that print, write lists, or draw a page."""
    first = ["recommend", "--checkpoint", "runs/ppo/ppo.pt"]
    slate = ["recommend", "--checkpoint", "runs/a-slate-of-three/ppo.pt"]
    printed = {
        "recommend, a user": [*first, "--user", "3", "--k", "5"],
        "recommend, a user, drawn": [*first, "--user", "3", "--k", "5", "--draw", "--seed", "4"],
        "recommend, likes": [*first, "--like", "item 7", "--like", "item 12"],
        "recommend, a slate": [*slate, "--user", "3"],
        "recommend, allowed items": [*first, "--user", "5", "--allow", "ids.txt"],
    }
    found = {name: _lines(*words) for name, words in printed.items()}
    found["recommend, all users"] = _record(
        [*first, "--users", "all", "--out", "lists.parquet"], "lists.parquet"
    )
    found["ranking"] = _json("ranking", "new.csv", "--seen", "old.csv", "--checkpoint", "runs/plays/ppo.pt")
    found["data describe, events"] = _json("data", "describe", "new.csv")
    found["data describe, decisions"] = _json("data", "describe", "two.parquet")
    found["data compare"] = _json("data", "compare", "old.csv", "new.csv")
    found["data split"] = _split
    found["page of a run"] = _page("ppo")
    found["page of a feed"] = _page("social-feed")
    found["strangers and bandits / table"] = _json(
        *("evaluate", "runs/ppo/ppo.pt", "--strangers", "--policy", "linucb", "--policy", "lints"),
        *("--no-planner", "--cache-dir", "cache", "--max-users", "24"),
    )
    found["two checkpoints / table"] = _json(
        *("evaluate", "runs/ppo/ppo.pt", "runs/a2c/a2c.pt", "--no-planner", "--cache-dir", "cache"),
    )
    found["learned users in the simulator / table"] = _json(
        *("evaluate", "runs/inside/ppo.pt", "--world", "satiation", "--no-planner", "--cache-dir", "cache"),
    )
    return found


def _lines(*words: str) -> Entry:
    """What a command prints."""
    return lambda folder: values.lines(run(folder, *words))


def _split(folder: Path) -> Any:
    run(folder, "data", "split", "new.csv", "--by", "user", "--fraction", "0.3")
    return {name: values.rows(folder / name) for name in ("train.parquet", "test.parquet")}


def _page(run_name: str) -> Entry:
    def numbers(folder: Path) -> Any:
        out = f"{run_name}.html"
        run(
            *(folder, "evaluate", f"runs/{run_name}/ppo.pt", "--report", out, "--no-planner"),
            *("--cache-dir", "cache", "--max-users", "24"),
        )
        return values.page(folder / out)

    return numbers

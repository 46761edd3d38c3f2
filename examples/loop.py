"""Learn, serve, learn from serving: three rounds with simulated people over HTTP. `make loop` runs it.

    python -m examples.loop --folder loop

A weak policy is trained and served. In each round people visit the server, `recsys-rl loop` learns candidates
from its record, judges them, and lets the best one serve a few of the sessions; people visit again, and the
loop raises its share up to a half, and promotes it or takes it back. At the end a policy that knows nothing
is let in without a verdict: the server stops it by itself. loop/loop.html shows it all, beside the truth,
which only a simulator knows.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from examples.loop_page.canaries import Band
from examples.loop_page.judged import Judged
from examples.loop_page.rounds import Rounds, Visited, write_rounds
from recsys_rl import make_env, play
from recsys_rl.checkpoint import load
from recsys_rl.cli.train import train_options
from recsys_rl.errors import UserError
from recsys_rl.make import agent_of
from recsys_rl.serving.draw.versions import files_in
from recsys_rl.serving.loop.release import Releases
from recsys_rl.serving.loop.rounds import candidate_in
from recsys_rl.serving.loop.take_turns import LoopConfig, loop
from recsys_rl.serving.loop.turn import Judge, Start
from recsys_rl.serving.loop.visitors import VisitorsConfig, visitors
from recsys_rl.training.train import train
from recsys_rl.utils.files import check_new_folder, sha256_of, write_text
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import generators
from recsys_rl.version import __version__

WORLD = ("--env", "satiation")
WEAK = 81_920  # steps of the first champion
WINDOW = 0.3  # seconds in which feedback counts after the end of a session; for people an hour
GROUP = 200  # visits between two looks at a canary
ROWS = 1000  # sessions of held-out users, from which a truth is taken
ENDS = {"promote": "promoted", "back": "went back", "stop": "stopped"}


class Lines(io.StringIO):
    """Standard output of a turn: each line is one of the story, but for what the turn waits for."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self.story = story

    def write(self, text: str) -> int:
        if text.strip() and not text.startswith("waiting"):
            self.story.say(text.strip())
        return len(text)


class Story:
    """A server, the people who visit it, and what happened."""

    def __init__(self, policies: Path, url: str, seed: int, options: LoopConfig) -> None:
        self.policies, self.url, self.seed, self.options = policies, url, seed, options
        self.first = self.policies / "first.pt"  # its users and items are everybody's
        self.visits, self.began, self.out = 0, time.monotonic(), sys.stdout
        self.served, self.judged, self.bands = list[Visited](), list[Judged](), list[Band]()
        self.truths = dict[str, tuple[float, float]]()

    @property
    def releases(self) -> Releases:
        """The server's releases, on a new connection: it closes one that nobody uses for half a minute."""
        return Releases(self.url)

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self.began:5.0f} s  {line}", file=self.out, flush=True)

    def visit(self, number: int, group: int = GROUP) -> list[float]:
        """People visit, in groups, each a point of the curve. Returns the sessions' returns."""
        returns = list[float]()
        while len(returns) < number:
            some = VisitorsConfig(
                url=self.url,
                checkpoint=str(self.first),
                sessions=min(group, number - len(returns)),
                users="all",
                width=64,
                seed=1_000_000 * self.seed + self.visits,
            )
            with quiet():
                found = visitors(some)
            mean, before = found.mean, self.visits
            self.visits += some.sessions
            self.served.append(Visited(before + 1, self.visits, mean.mean, mean.low, mean.high))
            returns += found.returns
        time.sleep(2 * WINDOW)  # their feedback counts no more
        return returns

    def turn(self, number: int) -> None:
        """One turn of the loop; what the gate found is kept beside the truth."""
        champion = self.releases.status()["champion"]
        with contextlib.redirect_stdout(Lines(self)):
            steps = loop(self.options)
        for step in steps:
            for candidate in step.candidates if isinstance(step, Judge) else ():
                verdict = json.loads((self.policies / f"{candidate}.gate.json").read_text())
                gain = self.truth(candidate)[0] - self.truth(champion)[0]
                mean, low, high = (
                    float("nan") if verdict[k] is None else verdict[k] for k in ("difference", "low", "high")
                )
                self.judged.append(
                    Judged(
                        *(self.name(candidate), number, verdict["answer"], mean, low, high),
                        truth=gain,
                        champion=self.truth(champion)[0],
                        visits=self.visits,
                    )
                )
            if isinstance(step, Start):
                name = self.name(step.candidate)
                self.judged = [
                    dataclasses.replace(row, chosen=row.chosen or row.name == name) for row in self.judged
                ]

    def canary(self, number: int, visits: int, group: int = GROUP // 4) -> None:
        """People visit while a challenger serves some of them; another one may follow one that goes back."""
        until, began, looks = self.visits + visits, self.visits, list[dict[str, Any]]()
        challenger = self.releases.status()["challenger"]
        if challenger is None:
            self.say("no candidate got through the gate")
        while challenger is not None and self.visits < until:
            self.visit(min(group, until - self.visits), group)
            status = self.releases.status()
            if status["challenger"] == challenger:
                looks.append(status["canary"])
                if number:
                    self.turn(number)
            following = self.releases.status()["challenger"]
            if following != challenger or self.visits == until:
                self.end(challenger, began, looks)
                challenger, began, looks = following, self.visits, []
        if self.visits < until and number:
            self.visit(until - self.visits)

    def end(self, challenger: str, began: int, looks: list[dict[str, Any]]) -> None:
        """Keep the band of a canary and how it ended, and tell it."""
        rows = [row for row in self.releases.history() if row["challenger"] == challenger]
        end, reason, last = ENDS.get(rows[-1]["kind"], "under way"), rows[-1]["reason"], rows[-1]["verdict"]
        if last and end == "stopped":
            looks.append(last)
        self.bands.append(self.band(challenger, began, end, looks))
        self.say(f"{self.name(challenger)} {end} after {self.visits - began:,} visits: {reason}")

    def band(self, sha256: str, began: int, end: str, looks: Sequence[dict[str, Any]]) -> Band:
        known = [look for look in looks if look.get("low") is not None and look.get("high") is not None]
        return Band(
            self.name(sha256),
            began,
            self.visits,
            end,
            *([look[key] for look in known] for key in ("sessions", "difference", "low", "high")),
        )

    def name(self, sha256: str) -> str:
        candidate = candidate_in(self.policies, sha256)
        return Path(candidate.file).stem if candidate is not None else files_in(self.policies)[sha256].stem

    def truth(self, sha256: str) -> tuple[float, float]:
        """The mean return of held-out users in the simulator: as the policy is served, and greedily."""
        if sha256 not in self.truths:
            first, agent = load(self.first), agent_of(load(files_in(self.policies)[sha256]))
            held = first.population.heldout
            users = held.repeat(-(-ROWS // len(held)))
            with torch.inference_mode():
                means = []
                for greedy in (False, True):
                    rng = generators(self.seed, "truth")["truth"]
                    env = make_env(first.config, first.world, len(users), rng, heldout=True, training=False)
                    means.append(float(play(env, agent, users, greedy=greedy).returns.mean()))
            self.truths[sha256] = (means[0], means[1])
        return self.truths[sha256]

    def bad(self, file: Path, visits: int) -> None:
        """Let a policy in that knows nothing, without a verdict, until the server stops it."""
        path = self.policies / "untrained.pt"
        shutil.copyfile(file, path)
        share, reason = self.options.share, "forced, to see it stop"
        self.releases.act("start", sha256=sha256_of(path), share=share, reason=reason)
        self.canary(0, visits, GROUP // 8)

    def page(self, path: Path, first: str, last: str, seconds: float) -> Rounds:
        """Write the page; returns its values."""
        served, greedy = self.truth(last)
        facts = {
            "Seed": str(self.seed),
            "Time": f"{seconds / 60:.1f} minutes",
            "Written": datetime.now(UTC).date().isoformat(),
            "recsys_rl": __version__,
        }
        env = load(self.first).config.env
        before = self.truth(first)[0]
        rounds = Rounds(env, self.served, self.judged, self.bands, before, served, greedy, facts)
        write_rounds(path, rounds)
        return rounds


def rounds_of(
    folder: Path,
    seed: int = 0,
    rounds: int = 3,
    visits: int = 2000,
    weak: int = WEAK,
    world: Sequence[str] = WORLD,
    **settings: Any,
) -> dict[str, Any]:
    """All of it. Returns the numbers, which are in loop.json too; ``settings`` are those of the loop.

    Raises UserError if the folder is there already, or if a command fails.
    """
    check_new_folder(folder, "--folder")
    began, policies, record = time.monotonic(), folder / "policies", folder / "record.sqlite"
    policies.mkdir(parents=True)
    first, untrained = (
        trained(folder, "first", weak, seed, world),
        trained(folder, "untrained", 1, seed, world),
    )
    shutil.copyfile(first, policies / "first.pt")
    with serving(policies, record) as url:
        settings = {"sessions": visits * 9 // 10, "canary": visits * 2 // 5, "share": 0.5, **settings}
        options = LoopConfig(db=str(record), policies=str(policies), url=url, quiet=True, **settings)
        story = Story(policies, url, seed, options)
        champions = [sha256_of(first)]
        told = "{} earns {:.2f} a session as it is served, {:.2f} with the most probable item"
        story.say(told.format("the first champion", *story.truth(champions[0])))
        for number in range(1, rounds + 1):
            mean = interval(torch.tensor(story.visit(visits)))
            around = f"{mean.low:.2f} to {mean.high:.2f}"
            story.say(f"round {number}: {visits:,} visits, return {mean.mean:.2f} ({around})")
            time.sleep(WINDOW + 2)  # an export leaves the last second of a record to the next one
            story.turn(number)
            story.canary(number, visits)
            champions.append(story.releases.status()["champion"])
            story.say(
                told.format(
                    f"round {number}: the champion {story.name(champions[-1])}", *story.truth(champions[-1])
                )
            )
        story.bad(untrained, visits)
        page = story.page(folder / "loop.html", champions[0], champions[-1], time.monotonic() - began)
    story.say(f"page: {folder / 'loop.html'}")
    found = {**dataclasses.asdict(page), "champions": [story.truth(name) for name in champions]}
    write_text(folder / "loop.json", json.dumps(found, indent=1) + "\n")
    return found


def trained(folder: Path, name: str, steps: int, seed: int, world: Sequence[str]) -> Path:
    """The checkpoint of a policy that was trained for so many steps."""
    options = [*world, "--seed", str(seed), "--threads", "1", "--total-timesteps", str(steps)]
    with quiet():
        return train(train_options(options).config, folder=folder / "runs" / name, quiet=True, latest=False)


@contextlib.contextmanager
def serving(policies: Path, record: Path, window: float = WINDOW) -> Iterator[str]:
    """A server at a free port of loopback; it ends with the block. Raises UserError if it does not start."""
    said = record.with_name("serve.log")
    command = [
        *(sys.executable, "-m", "recsys_rl", "serve", "--checkpoint", str(policies), "--db", str(record))
    ]
    command += ["--port", "0", "--feedback-window", str(window), "--deadline-ms", "10000"]
    with said.open("w") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        while (found := re.search(r"serving at (http://\S+),", said.read_text())) is None:
            if server.poll() is not None:
                raise UserError(f"The server did not start: {said.read_text().strip()[-500:]}")
            time.sleep(0.1)
        yield found[1]
    finally:
        server.terminate()
        server.wait(60)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No lines of the commands between those of the story."""
    with (
        open(os.devnull, "w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("loop"), help="a new folder (default: loop)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--visits", type=int, default=2000, help="before a round, and while a canary serves")
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        rounds_of(**vars(given))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()

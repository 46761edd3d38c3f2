"""What do policies of `tutor` do in a course, and what do they leave at the test?

    python -m benchmarks.tutor_courses [--seeds 0] [--keep FOLDER]

Two trainings of PPO for each seed: for the default reward, as in benchmarks.tutor_students (the same folder
``--keep`` serves both), and for the test alone, the stream `knowledge`, with TEST_STEPS. Each policy, where
it draws and with its most probable items, and the rule of mastery learning play one course with every
held-out learner.

Columns, as means over learners: the return and the completed skills after 50, 100 and 150 items and of the
course; the gain of the test (`knowledge`); items, by kind; ``same_skill``, the
share of items of the second half that have the skill of the item before; the shares of learners who leave
before the last item, bored and frustrated. Rows are appended to benchmarks/results/tutor_courses.csv.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import runs, tables
from benchmarks.harness.newest import Row as Stored
from benchmarks.harness.newest import origin, read, table
from benchmarks.harness.returns import vector
from benchmarks.harness.turns import Row
from benchmarks.tutor_students import TINY, course_here, course_of, rules, trained
from recsys_rl.checkpoint import load
from recsys_rl.env.course import Course
from recsys_rl.env.course_items import KINDS
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.experience.rollout import play
from recsys_rl.make import agent_of
from recsys_rl.protocols import Policy
from recsys_rl.utils.seeding import parse_seeds

TEST_STEPS = 600_000
FOR_TEST = ("--weights", "completion=0", "correctness=0", "frustration=0", "knowledge=1")
PLACES = (50, 100, 150)  # items
COLUMNS = (
    *("steps", "return_50", "return_100", "return_150", "return_mean", "completed_100", "completed"),
    *("knowledge", "items", *KINDS, "same_skill", "left_bored", "left_frustrated"),
)
WORDS = {"day": "the default reward", "test": "the test alone"}


def trained_for_test(seed: int, smoke: bool, folder: Path) -> Path:
    """The checkpoint of a run for the test alone in ``folder``, trained if it is not there."""
    words = ["train", "--env", "tutor", "--seed", str(seed), "--threads", "1"]
    words += ["--total-timesteps", str(64 if smoke else TEST_STEPS), *FOR_TEST]
    runs.trained(folder, "ppo", [*words, *(TINY if smoke else ())])
    return runs.checkpoint_in(folder, "ppo")


@torch.inference_mode()
def followed(policy: Policy, env: RecEnv, greedy: bool) -> Row:
    """One course of each learner of the environment: the columns of the docstring."""
    course, sessions = course_here(env), play(env, policy, env.users, greedy)
    items = sessions.items[..., 0]  # (T, N), -1 after the end
    there, skill = items >= 0, course.skill[items.clamp_min(0)]
    late = there[len(items) // 2 :]
    same = (skill[1:] == skill[:-1])[len(items) // 2 - 1 :] & late
    earned, completed = (
        part.cumsum(0).double().mean(1) for part in (sessions.rewards, sessions.streams["completion"])
    )  # (T,) each
    kinds = torch.bincount(course.kind[items[there]], minlength=len(KINDS)) / env.num_envs
    early = sessions.left_early
    assert early is not None
    angry = too_frustrated(course, sessions.streams["frustration"], there)
    return {
        **{f"return_{place}": earned[place - 1].item() for place in PLACES if place <= len(items)},
        "return_mean": earned[-1].item(),
        **{f"completed_{place}": completed[place - 1].item() for place in PLACES if place <= len(items)},
        "completed": completed[-1].item(),
        "knowledge": sessions.streams["knowledge"].sum(0).mean().item(),
        "items": there.sum(0).double().mean().item(),
        **dict(zip(KINDS, kinds.tolist(), strict=True)),
        "same_skill": (same.sum() / late.sum().clamp_min(1)).item(),
        "left_bored": (early & ~angry).double().mean().item(),
        "left_frustrated": (early & angry).double().mean().item(),
    }


def too_frustrated(course: Course, strain: Tensor, there: Tensor) -> Tensor:
    """(N,): learners whose frustration reaches 1, from the ``strain`` of their items, (T, N)."""
    mood = torch.zeros(strain.shape[1], 2)
    reached = torch.zeros(strain.shape[1], dtype=torch.bool)
    for step in range(len(strain)):
        mood = course.feelings.after(mood, strain[step], torch.zeros_like(strain[step]))
        reached |= there[step] & (mood[:, 0] >= 1)
        night = (step + 1) % course.day_length == 0
        mood = course.feelings.rested(mood, torch.full_like(reached, night))
    return reached


def rows(seed: int, smoke: bool, keep: Path) -> Iterator[Row]:
    """The rows of one seed."""
    paths = {
        "day": trained("fsrs", seed, 1_500_000, smoke, keep / f"fsrs-{seed}"),
        "test": trained_for_test(seed, smoke, keep / f"test-{seed}"),
    }
    for trained_for, path in paths.items():
        checkpoint = load(path)
        config, world, agent = checkpoint.config, checkpoint.world, agent_of(checkpoint)
        env = course_of(config, world, "fsrs")
        about: Row = {"seed": seed, "steps": checkpoint.total_steps, "trained_for": trained_for}
        played: dict[str, tuple[Policy, bool]] = {"ppo": (agent, False), "ppo-greedy": (agent, True)}
        for name, (policy, greedy) in played.items():
            yield about | {"policy": name} | followed(policy, course_of(config, world, "fsrs"), greedy)
        if trained_for == "test":
            rule, about = rules(world, env)["trade-mastery"], {**about, "trained_for": "", "steps": 0}
            yield about | {"policy": "trade-mastery"} | followed(rule, course_of(config, world, "fsrs"), True)


def means(found: list[Stored], trained_for: str, policy: str) -> Mapping[str, float]:
    """The columns of a policy, as means over seeds."""
    own = [row for row in found if (row["trained_for"], row["policy"]) == (trained_for, policy)]
    return {name: vector([float(row[name]) for row in own]).mean().item() for name in COLUMNS}


def greedy(results: Path) -> str:
    """What the most probable items earn along the course, beside the draws."""
    found, body = read(results, "tutor_courses", ("seed",)), []
    for policy in ("ppo", "ppo-greedy"):
        of = means(found, "day", policy)
        cells = [f"{of[f'return_{place}']:.2f}" for place in PLACES] + [f"{of['return_mean']:.2f}"]
        cells += [f"{of['completed_100']:.1f}", f"{of['items']:.0f}", f"{100 * of['same_skill']:.0f} %"]
        cells += [f"{100 * of[name]:.0f} %" for name in ("left_bored", "left_frustrated")]
        body.append([f"`{policy}`", *cells])
    head = ["return after ... items", *map(str, PLACES), "all", "completed after 100", "items"]
    head += ["same skill, second half", "left bored", "left frustrated"]
    return f"{table(head, body)}\n\n{_said(found)}"


def for_test(results: Path) -> str:
    """What is gained in the test by a training for it, beside the default reward and mastery learning."""
    found, body = read(results, "tutor_courses", ("seed",)), []
    for trained_for, policy in (
        *(("day", "ppo"), ("day", "ppo-greedy"), ("test", "ppo"), ("test", "ppo-greedy")),
        ("", "trade-mastery"),
    ):
        of = means(found, trained_for, policy)
        words = f", trained for {WORDS[trained_for]}, {of['steps']:,.0f} steps" if trained_for else ""
        cells = [f"{of['knowledge']:.2f}", f"{of['return_mean']:.2f}"]
        cells += [f"{of[kind]:.0f}" for kind in KINDS]
        left = of["left_bored"] + of["left_frustrated"]
        body.append([f"`{policy}`{words}", *cells, f"{100 * left:.0f} %"])
    head = ["policy", "gain in the test", "return", "lessons", "exercises", "reviews", "left early"]
    return f"{table(head, body)}\n\n{_said(found)}"


def _said(found: list[Stored]) -> str:
    seeds = list(dict.fromkeys(row["seed"] for row in found))
    return (
        f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}, held-out learners `fsrs`; "
        f"`python -m benchmarks.tutor_courses`, {origin(found)}."
    )


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--keep", type=Path, help="folder for the trained runs")
    args = tables.parse(parser, "tutor_courses")
    with tempfile.TemporaryDirectory() as folder:
        keep = args.keep or Path(folder)
        found = [row for seed in parse_seeds(args.seeds) for row in rows(seed, args.smoke, keep)]
    names = list(dict.fromkeys(name for row in found for name in row))
    tables.publish([{name: row.get(name) for name in names} for row in found], args)


if __name__ == "__main__":
    tables.run(main)

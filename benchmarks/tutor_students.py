"""Does a policy that learned with one kind of student suit another? All pairs, on `tutor`.

    python -m benchmarks.tutor_students [--seeds 0] [--steps 1500000] [--keep FOLDER]

PPO with its preset learns with each student model (`--student`). Each policy, where it draws and with its
most probable items, then plays one course with every held-out learner of each student model; so do the rules
of the trade, with the settings of RULES. Columns: the return with its 95 % interval over learners, the gain
of the test (the stream `knowledge`), and the share of learners who leave early.

The rows `belief` have the distance of the product of marginals from the exact belief over all 2^10 states, of
the same answers: the mean and the largest absolute difference of P(known) over learners, skills and items, in
courses of two rules.

With ``--keep`` the trained runs are kept in that folder, and read from there the next time. Rows are appended
to benchmarks/results/tutor_students.csv.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.harness import runs, tables
from benchmarks.harness.newest import origin, read, table
from benchmarks.harness.returns import vector
from benchmarks.harness.turns import Row
from recsys_rl.checkpoint import load
from recsys_rl.env.course import Course
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.schedulers import SCHEDULERS
from recsys_rl.env.tutor import Tutor
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.experience.rollout import play
from recsys_rl.make import agent_of, make_env
from recsys_rl.protocols import Policy
from recsys_rl.records import Known
from recsys_rl.settings.config import Config
from recsys_rl.types import World
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds

STUDENTS = ("fsrs", "exponential", "irt")
RULES = {
    "syllabus": "4 lessons of each skill",
    **dict.fromkeys(("mastery", "fsrs"), "lessons up to a belief of 0.5"),
}
ORDER = ("ppo", "ppo-greedy")
LEARNERS = 64  # of an exact belief, which holds 1,024 numbers of each
TINY = (
    *("--num-users", "40", "--num-items", "60", "--max-episode-steps", "12", "--items-per-day", "4"),
    *("--n-steps", "8", "--num-envs", "8", "--batch-size", "64", "--hidden-dims", "8"),
)


def trained(student: str, seed: int, steps: int, smoke: bool, folder: Path) -> Path:
    """The checkpoint of a run with this student in ``folder``, trained if it is not there."""
    words = ["train", "--env", "tutor", "--student", student, "--seed", str(seed), "--threads", "1"]
    words += ["--total-timesteps", str(64 if smoke else steps)]
    runs.trained(folder, "ppo", [*words, *(TINY if smoke else ())])
    return runs.checkpoint_in(folder, "ppo")


def course_of(config: Config, world: World, student: str, number: int | None = None) -> RecEnv:
    """The held-out learners of this student model, or the first ``number`` of them."""
    there = replace(config, env_config=replace(config.env_config, student=student))
    count = len(world.population.heldout) if number is None else number
    env = make_env(there, world, count, torch.Generator().manual_seed(0), heldout=True, training=False)
    assert isinstance(env, RecEnv)
    return env


@torch.inference_mode()
def played(policy: Policy, env: RecEnv, greedy: bool = True) -> Row:
    """One course of each held-out learner."""
    sessions = play(env, policy, env.users, greedy)
    over, left = interval(sessions.returns), sessions.left_early
    assert left is not None
    row: Row = {"return_mean": over.mean, "return_low": over.low, "return_high": over.high}
    gain = sessions.streams["knowledge"].sum(0).mean().item()
    return row | {"knowledge": gain, "left_early": left.double().mean().item()}


def rules(world: World, env: RecEnv) -> dict[str, Policy]:
    made = {name: SCHEDULERS[name].settings(world.catalogue, env.interface) for name in RULES}
    return {f"trade-{name}": made[name][setting] for name, setting in RULES.items()}


def distance(config: Config, world: World) -> Iterator[Row]:
    """The rows `belief`."""
    env = course_of(config, world, "fsrs", LEARNERS)
    chosen: dict[str, Policy] = {
        "random": RandomPolicy(env.interface.action_sizes, torch.Generator().manual_seed(0), 1),
        "trade-mastery": rules(world, env)["trade-mastery"],
    }
    for name, policy in chosen.items():
        product = course_here(env)
        exact, obs = replace(product, exact=True), env.reset(env.users[:LEARNERS])
        record: Known = exact.begin(env.num_envs)
        apart = []
        for _ in range(env.interface.session_length):
            items = policy.act(obs).items
            step = env.step_without_reset(items)
            assert step.feedback is not None
            right, completed = step.feedback.signals[:, 0, :2].unbind(1)
            record, obs = (
                exact.after(record, items[:, 0], step.feedback.shown[:, 0], right, completed),
                step.obs,
            )
            known = exact.filter.known(record["belief"])
            apart.append((known - product.filter.known(env.user_state.record["belief"])).abs())
        all_ = torch.stack(apart)
        yield {"trained_on": "belief", "policy": name, "mean": all_.mean().item(), "most": all_.max().item()}


def course_here(env: RecEnv) -> Course:
    assert isinstance(env.user_model, Tutor)
    return env.user_model.course


def rows(seed: int, steps: int, smoke: bool, keep: Path) -> Iterator[Row]:
    for student in STUDENTS:
        yield from rows_of(student, seed, trained(student, seed, steps, smoke, keep / f"{student}-{seed}"))


def rows_of(student: str, seed: int, path: Path) -> Iterator[Row]:
    """The rows of one training; those of the first student are followed by the rules and the belief."""
    checkpoint = load(path)
    config, world, agent = checkpoint.config, checkpoint.world, agent_of(checkpoint)
    about: Row = {"seed": seed, "steps": checkpoint.total_steps}
    for there in STUDENTS:
        for name, greedy in (("ppo", False), ("ppo-greedy", True)):
            row: Row = {"trained_on": student, "tested_on": there, "policy": name}
            yield row | about | played(agent, course_of(config, world, there), greedy)
        if student != STUDENTS[0]:
            continue
        env = course_of(config, world, there)
        for name, rule in rules(world, env).items():
            yield {"trained_on": "", "tested_on": there, "policy": name} | about | played(rule, env)
    if student == STUDENTS[0]:
        for row in distance(config, world):
            yield row | about


def text(results: Path) -> str:
    """The matrix as a table: a row for each policy, a column for each student model.

    Cells are means over seeds, with half of the 95 % interval (Student's t over seeds) from two seeds on.
    """
    found = [row for row in read(results, "tutor_students", ("seed",)) if row["tested_on"]]
    seeds = list(dict.fromkeys(row["seed"] for row in found))
    body = []
    for policy, on in dict.fromkeys((row["policy"], row["trained_on"]) for row in found):
        label = f"`{policy}`" + (f", trained on `{on}`" if on else "")
        cells = []
        for there in STUDENTS:
            key = policy, on, there
            own = [row for row in found if (row["policy"], row["trained_on"], row["tested_on"]) == key]
            earned, knows = (
                interval(vector([float(row[name]) for row in own])) for name in ("return_mean", "knowledge")
            )
            between = f" ± {earned.high - earned.mean:.2f}" if len(own) > 1 else ""
            shown = f"{earned.mean:.2f}{between} ({knows.mean:.2f})"
            cells.append(f"**{shown}**" if on == there else shown)
        body.append((policy, [label, *cells]))
    body.sort(key=lambda row: (*ORDER, row[0]).index(row[0]))  # a stable sort
    head = ["return (gain in the test)", *(f"learners `{there}`" for there in STUDENTS)]
    said = f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}; {int(found[0]['steps']):,} steps each; "
    if len(seeds) > 1:
        said += "means over seeds, ± half of the 95 % interval (Student's t over seeds); "
    return (
        f"{table(head, [cells for _, cells in body])}\n\n{said}`python -m benchmarks.tutor_students "
        f"--seeds {','.join(seeds)}`,\n{origin(found)}."
    )


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--seeds", default="0")
    parser.add_argument(
        "--steps", type=int, default=1_500_000, help="of each training (default: the preset's)"
    )
    parser.add_argument("--keep", type=Path, help="folder for the trained runs")
    args = tables.parse(parser, "tutor_students")
    with tempfile.TemporaryDirectory() as folder:
        keep = args.keep or Path(folder)
        found = [row for seed in parse_seeds(args.seeds) for row in rows(seed, args.steps, args.smoke, keep)]
    names = list(dict.fromkeys(name for row in found for name in row))
    tables.publish([{name: row.get(name) for name in names} for row in found], args)


if __name__ == "__main__":
    tables.run(main)

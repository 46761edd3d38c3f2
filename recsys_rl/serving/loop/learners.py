"""The learners of a round: each makes one candidate from the log of the record.

From sessions two learn, as each is at times the better one: PPO inside users who are learned from the log,
which begins with the champion's weights, and conservative Q-learning from the decisions themselves. From
single decisions learn `reinforce`, which begins with the champion's weights, and another one from nothing:
the direct method for single items, weighted cloning for slates. Where many items have texts that the champion
does not know, that one gets encodings made of the items of now.

Every run has the champion's seed, as the seed says which users are held out: so nobody who is judged on has
ever been learned from.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys_rl.checkpoint import Checkpoint, save
from recsys_rl.checkpoint.home import split_of
from recsys_rl.checkpoint.stock import encoded_anew
from recsys_rl.errors import UserError, one_line
from recsys_rl.logs.source import over_log
from recsys_rl.logs.users.file import load_users
from recsys_rl.logs.users.fit_users import fit_users
from recsys_rl.make import make_agent
from recsys_rl.serving.loop.served_log import Served
from recsys_rl.settings.config import to_dict
from recsys_rl.settings.names import OF_USERS, names_a_module
from recsys_rl.training.train import train
from recsys_rl.training.warm_start import Unfit
from recsys_rl.utils.progress import announce

TEMPERATURE = 0.1
"""At which a policy of values serves: at the default one it hardly draws, and its record teaches little."""

MEMBERS, EPOCHS = 5, 10
"""Of the users that are learned from the log, as of `recsys-rl fit-users`."""


@dataclass(frozen=True)
class Task:
    """What a learner of a round needs."""

    champion: Served
    log: Path  # the folder with all sessions so far
    folder: Path  # of the round, for runs and learned users
    steps: int  # of PPO inside learned users
    decisions: int | None  # that a learner from the log draws; None: the platform's preset
    threads: int
    env: str | None = None  # the environment that the user typed


@dataclass(frozen=True)
class Learner:
    """A learner; ``learn`` returns the checkpoint of its finished run."""

    name: str  # of the candidate's file, and of the run's folder
    how: str  # for a line
    learn: Callable[[Task], Path]


def learners_of(champion: Checkpoint, unknown: bool) -> tuple[Learner, ...]:
    """The learners for the logs of this policy.

    ``unknown``: many items have texts that it does not know. In sessions an observation holds the items that
    were shown, by the champion's encodings, so that a candidate with others could not take its place.
    """
    if champion.interface.session_length > 1:
        return OF_SESSIONS
    how = "with new encodings of the items" if unknown else "from nothing"
    if champion.interface.slate_size == 1:
        learner = Learner("direct", f"the expected reward of each item, {how}", _from_log("direct", unknown))
    else:
        clone = _from_log("bc", unknown, weighted=True)
        learner = Learner("bc", f"the log's decisions, weighted by reward and rarity, {how}", clone)
    return WARM, learner


def _inside_users(task: Task) -> Path:
    """PPO inside users who are learned from the log."""
    champion, users = task.champion, task.folder / "users.pt"
    config = champion.checkpoint.config
    if not _is_fitted(users):
        fit_users(
            log=str(task.log),
            checkpoint=str(champion.file),
            out=str(users),
            env=task.env,
            threads=task.threads,
            quiet=True,
            members=MEMBERS,
            epochs=EPOCHS,
        )
    return _trained(
        task,
        "ppo",
        algo="ppo",
        env=OF_USERS,
        user_model=str(users),
        model_config=to_dict(config)["model_config"],
        init_from=str(champion.file),
        total_timesteps=task.steps,
        weights=config.train_config.weights,
        limit=config.train_config.limit,
        eval_interval=0,
    )


def _is_fitted(users: Path) -> bool:
    """True for a finished file of learned users, as of a round that was killed later."""
    try:
        load_users(users)
    except UserError:
        return False
    return True


def _from_log(algo: str, anew: bool = False, **settings: Any) -> Callable[[Task], Path]:
    """The learner from the decisions themselves. ``anew``: with encodings made of the items of now."""

    def learn(task: Task) -> Path:
        place = _anew(task) if anew else task.champion.file
        given = {**settings, "weights": task.champion.checkpoint.config.train_config.weights}
        if task.env is not None:
            given["env"] = task.env
        if task.decisions is not None:
            given["total_timesteps"] = task.decisions
        if given.pop("warm", False):
            given["init_from"] = str(task.champion.file)
        return _trained(task, algo, algo=algo, checkpoint=str(place), log=(str(task.log),), **given)

    return learn


def _anew(task: Task) -> Path:
    """The file of a policy that has learned nothing, with encodings made of the items at the log's end."""
    file, own = task.folder / "anew.pt", encoded_anew(over_log(task.champion.checkpoint, (str(task.log),)))
    weights = make_agent(own.config, own.interface, own.catalogue).state_dict()
    save(file, dataclasses.replace(own, agent=weights))
    return file


def _trained(task: Task, name: str, **settings: Any) -> Path:
    """The checkpoint of a new run in the round's folder; one that was under way there is begun again.

    Without the champion's weights where they do not fit, as those of another kind of network.
    """
    run, (_, seed) = task.folder / name, split_of(task.champion.checkpoint)
    shutil.rmtree(run, ignore_errors=True)
    given: Mapping[str, Any] = {
        "seed": seed,
        "threads": task.threads,
        **settings,
    }
    try:
        if "init_from" in settings:
            _check_module(task, settings.get("env"))
        return train(folder=run, latest=False, quiet=True, **given)
    except Unfit as error:
        announce(f"{name} begins without the champion's weights: {error}")
    shutil.rmtree(run, ignore_errors=True)
    return train(folder=run, latest=False, quiet=True, **{**given, "init_from": None})


def _check_module(task: Task, env: str | None) -> None:
    """Raise Unfit if a run on ``env`` may not load the champion, whose environment is a module to import."""
    own = task.champion.checkpoint
    if names_a_module(own.config.env) and env != own.config.env and "home" not in own.info:
        raise Unfit(f"its environment {one_line(own.config.env)} is a module, and this run is of another one")


OF_SESSIONS = (
    Learner("ppo", "PPO inside users learned from the log, from the champion's weights", _inside_users),
    Learner("cql", "conservative Q-learning from the log", _from_log("cql", temperature=TEMPERATURE)),
)
WARM = Learner("reinforce", "from the log, from the champion's weights", _from_log("reinforce", warm=True))

"""One self-contained file without code: all data for evaluation, serving and a resumed run.

One exception: a memory-mapped table of item embeddings stays in its own file, and the checkpoint stores its
name and sha256.

``sealed.py`` has the bytes of the file, ``contents.py`` its texts and tensors, ``checks.py`` their checks.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from recsys_rl.checkpoint import sealed
from recsys_rl.checkpoint.checks import check
from recsys_rl.checkpoint.contents import (
    check_finite,
    interface_of,
    rebuild,
    take_apart,
    without_networks,
)
from recsys_rl.checkpoint.sealed import Refused, previous
from recsys_rl.errors import one_line
from recsys_rl.settings.config import Config, from_dict, to_dict, without_source
from recsys_rl.settings.names import is_unknown_algorithm, names_a_module
from recsys_rl.types import Catalogue, Interface, Population, UserError, World

__all__ = ["Checkpoint", "check_algo", "load", "previous", "restoring", "save"]


@dataclass(frozen=True)
class Checkpoint:
    """A run between two updates: tensors and JSON primitives only. ``load`` gives tensors on the CPU."""

    config: Config
    interface: Interface  # of the place where the agent acts
    world: World  # empty if the environment brings its own world
    agent: Mapping[str, Tensor]  # weights, optimiser, count of updates
    env: Mapping[str, Tensor]  # the environment's sessions, or a gym: environment's actions and normalisation
    experience: Mapping[str, Tensor]  # what a resumed run's next batch needs: sessions, a replay buffer
    generators: Mapping[str, Tensor]  # states of torch.Generator, uint8
    step: int  # environment steps so far, over all users
    updates: int
    info: Mapping[str, Any]  # JSON primitives: learning curve, device, versions

    @property
    def steps_before(self) -> int:
        """Steps of the runs whose weights this run began with (``init_from``)."""
        return int(self.info.get("steps_before", 0))

    @property
    def total_steps(self) -> int:
        """Steps of the run and ``steps_before``."""
        return self.step + self.steps_before

    @property
    def catalogue(self) -> Catalogue:
        return self.world.catalogue

    @property
    def population(self) -> Population:
        return self.world.population


_TENSORS = ("agent", "env", "experience", "generators")
_FACTS = {"config": dict, "interface": dict, "step": int, "updates": int, "info": dict}


def save(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint to ``path``. After the first save, the file there is whole at every moment.

    The old checkpoint is kept as ``previous(path)``. Equal checkpoints give equal bytes.

    Raises UserError, and does not change the old checkpoint, if the disk is full or read-only, or if the
    agent holds NaN or infinite values.
    """
    path = Path(path)
    try:
        check_finite("agent", checkpoint.agent)
    except Refused as refused:
        raise UserError(
            f"{path} isn't written, as the agent of step {checkpoint.step:,} {refused.cause}: start again "
            "with a lower --lr or --max-grad-norm."
        ) from None
    sections: dict[str, Mapping[str, Tensor]] = {name: getattr(checkpoint, name) for name in _TENSORS}
    texts: dict[str, Any] = {name: getattr(checkpoint, name) for name in _FACTS}
    texts |= {
        "config": to_dict(checkpoint.config),
        "interface": dataclasses.asdict(checkpoint.interface),
        "info": dict(checkpoint.info),
    }
    for name, noun in (("catalogue", checkpoint.catalogue), ("population", checkpoint.population)):
        texts[name], sections[name] = take_apart(noun)
    tensors = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    sealed.write(path, texts, tensors)


def load(path: str | Path, env: str | None = None, *, networks: bool = True) -> Checkpoint:
    """Read a checkpoint of ``save``.

    Args:
        env: the environment that the user typed. A checkpoint may import a module only if it names this one.
            It imports no module of an algorithm: this program has imported it before.
        networks: False: its policy is not wanted, but its interface, items and users (``without_networks`` in
            contents.py); so one whose networks this version refuses can be read, too.

    Raises UserError, in one sentence, if the file is not a whole and valid checkpoint. The error names the
    previous checkpoint if that one is valid. A pickle is recognised and never opened.
    """
    path = Path(path)
    if not path.name:  # "." and "/"
        raise UserError(f"{path} is not a file: train first, or check the path.")
    try:
        return _assemble(*sealed.read(path), env, networks)
    except Refused as refused:
        mend = refused.mend
        before = previous(path.resolve() if path.is_symlink() else path)  # beside the file itself
        with contextlib.suppress(Refused):
            _assemble(*sealed.read(before), env, networks)
            mend = f"{mend}, or give {before}, the whole checkpoint before it"
        raise UserError(f"{path} {refused.cause}: {mend}.") from refused


def check_algo(path: Path, checkpoint: Checkpoint, algo: str) -> None:
    """Raise UserError if the checkpoint at ``path`` is from another algorithm."""
    saved = checkpoint.config.algo
    if saved != algo:
        mend = f"give --algo {saved} or another file"
        raise UserError(f"{path} is a checkpoint of {saved}, not of {algo}: {mend}.")


@contextlib.contextmanager
def restoring() -> Iterator[None]:
    """Turn errors of the block into a UserError: a file with a right hash may still contradict itself."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"The checkpoint's state does not fit its own settings ({type(error).__name__}: {reason}): give "
            "a whole checkpoint of this version, or train again."
        ) from error


def _assemble(
    texts: Mapping[str, Any], tensors: Mapping[str, Tensor], env: str | None, networks: bool
) -> Checkpoint:
    sections: dict[str, dict[str, Tensor]] = {name: {} for name in (*_TENSORS, "catalogue", "population")}
    for name in sorted(tensors):
        section, _, rest = name.partition(".")
        if section not in sections:
            raise Refused(f"holds the unknown tensor {name!r}")
        sections[section][rest] = tensors[name]
    for name, kind in _FACTS.items():
        if type(texts.get(name)) is not kind or (kind is int and texts[name] < 0):
            raise Refused(f"has no valid {name!r}")
    saved = str(texts["config"].get("env"))
    if names_a_module(saved) and saved != env:
        name = one_line(saved)
        raise Refused(f"was trained on {name}, which imports a module", f"type --env {name} to allow it")
    algo = str(texts["config"].get("algo"))
    if is_unknown_algorithm(algo):
        name = one_line(algo)
        mend = (
            f"import that module first, or give --algo {name} to a command that has this option (train, "
            "evaluate, recommend, export, serve)"
        )
        raise Refused(f"was trained by {name}, which imports a module", mend)
    try:
        settings = without_source(texts["config"])
        config = from_dict(Config, settings if networks else without_networks(settings))
    except UserError as error:
        raise Refused(f"holds settings that this version can't use ({str(error).rstrip('.')})") from error
    checkpoint = Checkpoint(
        config=config,
        world=World(
            rebuild(Catalogue, texts.get("catalogue"), sections["catalogue"]),
            rebuild(Population, texts.get("population"), sections["population"]),
        ),
        interface=interface_of(texts["interface"]),
        step=texts["step"],
        updates=texts["updates"],
        info=texts["info"],
        agent=sections["agent"],
        env=sections["env"],
        experience=sections["experience"],
        generators=sections["generators"],
    )
    check(checkpoint, networks)
    return checkpoint

"""The folder of a run: choose its name, create it, lock it, and find it again. No two runs share a folder.

    runs/env-data-algo-seed/            config.toml, log.csv, ppo.pt, ppo.prev.pt
    checkpoints/ppo.pt                  a symbolic link to the checkpoint of the latest run

A link is better than a copy: ``--resume`` reads the run's folder from it, a run sets it only once, and no
data is lost if it is replaced or deleted. A hard link would have to be made again after each save (a save
renames a new file into place) and can't point to another disk. If the disk has no symbolic links, the
run still has its own folder.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from recsys_rl.agents import AGENTS
from recsys_rl.errors import UserError, error_text
from recsys_rl.settings.config import Config
from recsys_rl.settings.names import DEFAULT_ALGO, checkpoint_name, source_key
from recsys_rl.utils.locks import locked

LATEST = Path("checkpoints")
MARK = ".begun-by"
"""The file in a folder that is kept for a run of a command: it names the command."""


@dataclass(frozen=True)
class KeptFolder:
    """A folder that a command made for a run, which another process begins later.

    The file MARK in it holds ``mark``, so that nobody takes the folder of another command for this one.
    """

    path: Path
    mark: str  # of the command

    def __fspath__(self) -> str:
        return str(self.path)

    def check(self) -> None:
        """Raise UserError unless this is the folder that the command made."""
        try:
            found = (self.path / MARK).read_text(encoding="utf-8")
        except OSError:
            found = ""
        if found != self.mark:
            raise UserError(
                f"{self.path} is not the folder that this command made for the run: if the run is on another "
                "machine, give a --runs-dir that all machines share; otherwise train this seed again."
            )

    def emptied(self) -> Path:
        """The folder with its mark alone. Raises UserError as ``check`` does."""
        self.check()
        for path in self.path.iterdir():
            if path.name != MARK:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return self.path

    def release(self) -> None:
        """Remove the mark, and the folder if nothing was written into it."""
        with suppress(UserError, OSError):
            self.check()
            (self.path / MARK).unlink()
            self.path.rmdir()  # an OSError if the run is in it


def keep(config: Config, mark: str) -> KeptFolder:
    """Make the folder of a run that begins later, as ``take`` does. Raises the errors of ``take``."""
    folder = take(config)
    (folder / MARK).write_text(mark, encoding="utf-8")
    return KeptFolder(folder, mark)


def default_name(config: Config) -> str:
    """env-data-algo-seed, only letters, digits and ``. _ -``; without data if the environment needs none."""
    name = PurePath(getattr(config.data_config, "data", "")).name
    key = source_key(name)
    data = name[: -len(key)] if key is not None and key.startswith(".") else name
    parts = (config.env, data, config.algo, str(config.train_config.seed))
    return "-".join(_safe(piece) for piece in parts if piece)


def _safe(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:60] or "data"


def check_free(config: Config, folder: Path | KeptFolder | None = None) -> None:
    """Raise UserError, before the work begins, if ``take`` with the same arguments would raise one."""
    if isinstance(folder, KeptFolder):
        folder.check()
        return
    settings = config.train_config
    given = folder is not None or settings.name is not None
    path = folder or Path(settings.runs_dir) / (settings.name or default_name(config))
    parent = path.parent
    try:
        if path.exists() and given:
            raise _taken(path)
        while not parent.exists():  # take makes missing folders
            parent = parent.parent
    except OSError as error:  # the name is too long, or a folder may not be entered
        raise UserError(
            f"{path} can't be made ({error_text(error)}): give another --name or --runs-dir."
        ) from error
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"No folder can be made in {parent}: give another --runs-dir.")


def take(config: Config, folder: Path | KeptFolder | None = None) -> Path:
    """Make the run's folder: ``folder``, or ``name`` in runs_dir, or the first free default name there.

    A folder of ``keep`` is emptied.

    Default names are env-data-algo-seed, then the same with -2, -3, ... ``mkdir`` is exclusive, so runs that
    begin at the same time get different folders. Raises UserError if a given name is taken (another choice
    would make a script read the other run's results) or if the folder can't be made.
    """
    if isinstance(folder, KeptFolder):
        return folder.emptied()
    settings = config.train_config
    given = folder is not None or settings.name is not None
    first = folder or Path(settings.runs_dir) / (settings.name or default_name(config))
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            return folder
        except FileExistsError:
            if given or not folder.parent.is_dir():
                raise _taken(folder if folder.parent.is_dir() else folder.parent) from None
        except OSError as error:
            raise UserError(
                f"{folder} can't be made ({error_text(error)}): give another --name or --runs-dir."
            ) from error
    raise AssertionError  # itertools.count has no end


def _taken(path: Path) -> UserError:
    return UserError(
        f"{path} exists, and a run needs a new folder: give another name, or continue the run that is "
        f"there with --run {path}."
        if path.is_dir()
        else f"{path} is not a folder: give another --runs-dir."
    )


@contextmanager
def removed_on_error(folder: Path | None) -> Iterator[None]:
    """Delete ``folder`` (None: no folder) if the block fails, so that a failed start leaves no folder."""
    try:
        yield
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def held(folder: Path) -> AbstractContextManager[None]:
    """Lock the run's folder against other processes (``locked``). Raises UserError if one has the lock."""
    return locked(
        folder,
        f"Another process is training the run in {folder}: wait for it or stop it, or start a run of "
        "your own.",
    )


# The latest run.


def publish(checkpoint: Path) -> tuple[bool, str]:
    """Make ``checkpoints/<name>`` a link to ``checkpoint``, in one step; returns success and a line.

    An old link is replaced. An old file (a checkpoint of an earlier version, for example) is kept under
    another name. If no link can be made, the run continues without one.
    """
    link, second = LATEST / checkpoint.name, None
    temporary = LATEST / f".{checkpoint.name}.{secrets.token_hex(8)}.tmp"
    try:
        LATEST.mkdir(exist_ok=True)
        if link.exists() and not link.is_symlink():
            second = _second_name(link)
        target = os.path.relpath(checkpoint.resolve(), LATEST.resolve())
        temporary.symlink_to(target)
        os.replace(temporary, link)
    except (OSError, ValueError) as error:  # ValueError: another drive
        if second is not None:
            second.unlink(missing_ok=True)
        temporary.unlink(missing_ok=True)
        return (
            False,
            f"{link} can't be made a link to this run ({error_text(error)}): use {checkpoint} instead.",
        )
    return True, "" if second is None else f"{link} was a file, not a link; it is kept as {second}"


def _second_name(path: Path) -> Path:
    """Give the file at ``path`` a second, unused name and return it. The first name stays."""
    for number in itertools.count(1):
        second = path.with_name(f"{path.stem}.kept{'' if number == 1 else f'-{number}'}{path.suffix}")
        try:
            os.link(path, second)
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            if second.exists():
                continue
            shutil.copy2(path, second)
        return second
    raise AssertionError  # itertools.count has no end


def latest_checkpoint(algo: str | None = None) -> Path:
    """The file in checkpoints/ of the latest run, or of the latest one of ``algo``, which may not be there.

    Without any it is that of the default algorithm.
    """
    if algo is not None:
        return LATEST / checkpoint_name(algo)
    default = LATEST / checkpoint_name(DEFAULT_ALGO)
    return max(LATEST.glob("*.pt"), key=lambda path: path.lstat().st_mtime_ns, default=default)


def latest(algo: str) -> Path:
    """The folder of the run to which the link of ``algo`` leads. Raises UserError if there is none."""
    link = LATEST / checkpoint_name(algo)
    if not link.is_symlink():
        if not link.exists():
            raise UserError(f"{link} does not exist: train first, or give --run FOLDER.")
        raise UserError(f"{link} is a file and not a link to a run: give --run FOLDER.")
    folder = link.resolve().parent
    if not folder.is_dir():
        raise UserError(f"{link} is a link to {os.readlink(link)}, which is gone: give --run FOLDER.")
    return nearby(folder)


def nearby(path: Path) -> Path:
    """An absolute path, made relative if it is inside the working directory."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def checkpoint_behind(path: str) -> str:
    """The file that the link ``path`` leads to now. A later run changes the link checkpoints/ALGO.pt."""
    return str(nearby(Path(path).resolve()))


def with_init_behind(config: Config) -> Config:
    """The settings with the file behind the link of ``init_from``, which a later run changes."""
    settings = config.train_config
    if settings.init_from is None:
        return config
    return replace(config, train_config=replace(settings, init_from=checkpoint_behind(settings.init_from)))


def is_latest(path: str | Path) -> bool:
    """True for a file in checkpoints/, which the next run of its algorithm replaces."""
    return Path(path).parent == LATEST


def algo_of(folder: Path) -> str:
    """The algorithm of the run in ``folder``, from its checkpoint. Raises UserError if there is not one."""
    algos = [algo for algo in AGENTS if (folder / f"{algo}.pt").is_file()]
    if len(algos) != 1:
        names = " or ".join(f"{algo}.pt" for algo in AGENTS)
        what = "is not a folder"
        if folder.is_dir():
            what = "holds checkpoints of two algorithms" if algos else f"holds no {names}"
        raise UserError(
            f"--run {folder} {what}: give the folder of one run, as runs/NAME, and --algo for one of an "
            "algorithm of your own."
        )
    return algos[0]

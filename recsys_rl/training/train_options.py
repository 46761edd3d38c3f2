"""The settings of a run before its data are read: what the files that they name bring, and checks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from recsys_rl.checkpoint.home import settings_of_items
from recsys_rl.env import OF_TABLES
from recsys_rl.models.retrieval import check_candidates, import_faiss, kind_of
from recsys_rl.records import WorldFile
from recsys_rl.settings.config import Config, brought_settings, overlay, with_settings
from recsys_rl.settings.fields import check_used
from recsys_rl.settings.names import DEFAULT_ENV, is_strange, source_of
from recsys_rl.training import folder as folders
from recsys_rl.training.run import choose_device
from recsys_rl.training.worlds import check_world
from recsys_rl.utils.download import cache_folder
from recsys_rl.utils.files import check_new_folder


def with_brought(config: Config | None, settings: Mapping[str, Any]) -> Config:
    """``config`` with ``settings``, and with what the files that these name bring. Raises UserError."""
    if settings.get("log") is not None:
        from recsys_rl.data.tables.frames import files_of_frames  # polars

        # In the cache, as a run that is resumed reads its log again.
        frames = cache_folder(settings.get("cache_dir")) / "frames"
        settings = {**settings, "log": files_of_frames(settings["log"], frames)}
    path = settings.get("checkpoint")
    if path is not None:
        settings = {**settings_of_items(path, settings.get("env")), **settings}
    env = settings.get("env", DEFAULT_ENV if config is None else config.env)
    if "log" in settings and "env" not in settings and config is None:
        from recsys_rl.data.tables.read import is_own  # polars

        env = OF_TABLES if is_own(settings["log"]) else env
    has_items = "data" in settings or path is not None
    brought = {} if has_items else brought_settings(env, settings)
    if brought:
        settings = overlay(brought, {**settings, "env": env})
    return with_settings(config, settings)


def device_of(config: Config) -> torch.device:
    """The device of a run; a log is read, and drawn from, on the CPU. Raises UserError for another one."""
    name, from_log = config.train_config.device, config.algorithm.experience.from_log
    device = choose_device("cpu" if from_log and name == "auto" else name)
    check_used(("device", from_log and device.type != "cpu", f"{config.algo} learns on the CPU"))
    return device


def check_new(config: Config, folder: Path | folders.KeptFolder | None, first: bool) -> None:
    """Raise UserError for mistakes in the settings of a new run that show before the data are read.

    ``folder``: of the run; None: it is chosen later. ``first``: this is rank 0.
    """
    if first:
        folders.check_free(config, folder)
    settings, file = config.train_config, config.platform.file
    if settings.world is not None:
        check_world(settings.world)
    plays = getattr(config.agent_config, "checkpoint", None) is None and settings.eval_interval > 0
    judged, reason = settings.judge_log is not None, "only with evaluations in users of a simulator"
    check_used(
        ("name", folder is not None and settings.name is not None, "the folder is given"),
        ("judge_log", judged and not (plays and file), f"{reason} that were learned from a log"),
        ("judge_log", judged and settings.num_processes > 1, "it needs a single process"),
        ("world", settings.world is not None and not plays, reason),
    )
    if file is not None and getattr(config.agent_config, "checkpoint", None) is None:
        _check_brought(config, file)
    if settings.record is not None:
        check_new_folder(Path(settings.record), "--record")
    if config.model_config.candidates and config.platform.users is not None:
        _check_first_stage(config)


def _check_first_stage(config: Config) -> None:
    """Raise UserError where candidates can't be found, or can't fill a session."""
    model, sizes = config.model_config, config.env_config
    slate_size = config.platform.slate_size(sizes)
    most_shown = 0 if config.platform.repeats(sizes) else sizes.max_episode_steps * slate_size
    check_candidates(model, sizes.num_items, most_shown, slate_size)  # a log may have fewer items
    data = config.data_config.data
    made_up = not is_strange(data) and source_of(data).made_up  # learned users bring a strange one's items
    kind = kind_of(model.index, sizes.num_items if made_up else 0)
    if kind != "exact":
        import_faiss(kind)


def _check_brought(config: Config, file: WorldFile) -> None:
    """Raise FieldError for items or sizes other than those that the file of the platform brings."""
    contents = config.platform.brought(config)
    assert contents is not None
    field = file.fields[0]
    value = next(vars(section)[field] for section in vars(config).values() if hasattr(section, field))
    paths = " ".join(map(str, value)) if isinstance(value, tuple) else value
    brought, path = contents.settings, f"--{field.replace('_', '-')} {paths}"
    sizes = ("num_items", "embedding_dim", "max_episode_steps")
    own = {"data_config": ("data",), "env_config": sizes}
    check_used(
        *(
            (
                name,
                not _same(getattr(config, section), brought.get(section, {}), name),
                f"{path} has its own",
            )
            for section, names in own.items()
            for name in names
        )
    )


def _same(given: Any, brought: Mapping[str, Any], name: str) -> bool:
    """True for the value that a file brings, and where it brings none; of a path the last part counts."""
    own = brought.get(name)
    return own is None or Path(str(getattr(given, name))).name == Path(str(own)).name

"""Notes before training: is there enough budget, and is there anything to plan for?"""

from __future__ import annotations

from recsys_rl.evaluation.foresight import about_foresight
from recsys_rl.settings.config import preset_of
from recsys_rl.settings.shared import TrainConfig
from recsys_rl.training.run import Run

ENOUGH = 0.2
"""A run with less than this share of the preset's steps is too short."""


def advice(run: Run) -> str:
    """A note about a run of too few steps, else one about a world that needs no planning; "" without either.

    A run in an environment with its own world gets none.
    """
    if run.world.is_empty:
        return ""
    config, steps = run.config, run.config.train_config.total_timesteps
    preset = preset_of(config.algo, config.env).get("train_config", {})
    wanted = int(preset.get("total_timesteps", TrainConfig.total_timesteps))
    if steps < ENOUGH * wanted:
        return (
            f"note: --total-timesteps {steps:,} is {100 * steps / wanted:.2g} % of the {wanted:,} of the "
            f"preset of {config.algo} on {config.env}: a policy that is trained so briefly loses to simple "
            "rankings"
        )
    return about_foresight(config, run.world, run.streams["users"].device)

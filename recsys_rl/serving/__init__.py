"""A policy behind HTTP, its record, and the loop that learns from it: docs/map_serving.md is the map.

The names in ``__all__`` are for code outside of the package, which itself imports from the files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys_rl.utils.lazily import imported_at_first_use

if TYPE_CHECKING:
    from recsys_rl.serving.at_rest.check import check
    from recsys_rl.serving.at_rest.export_record import export_record
    from recsys_rl.serving.at_rest.opened_record import Record, open_snapshot
    from recsys_rl.serving.at_rest.record_interval import interval_of
    from recsys_rl.serving.loop.gate import GateConfig, gate
    from recsys_rl.serving.loop.release import Releases
    from recsys_rl.serving.loop.retrain import RetrainConfig, retrain
    from recsys_rl.serving.loop.visitors import VisitorsConfig, visitors
    from recsys_rl.serving.options import ServeConfig
    from recsys_rl.serving.record.snapshot import backup
    from recsys_rl.serving.server import application, serve

__all__ = [
    "GateConfig",
    "Record",
    "Releases",
    "RetrainConfig",
    "ServeConfig",
    "VisitorsConfig",
    "application",
    "backup",
    "check",
    "export_record",
    "gate",
    "interval_of",
    "open_snapshot",
    "retrain",
    "serve",
    "visitors",
]

__getattr__ = imported_at_first_use(
    __name__,
    {
        "recsys_rl.serving.at_rest.check": ("check",),
        "recsys_rl.serving.at_rest.export_record": ("export_record",),
        "recsys_rl.serving.at_rest.opened_record": ("Record", "open_snapshot"),
        "recsys_rl.serving.at_rest.record_interval": ("interval_of",),
        "recsys_rl.serving.loop.gate": ("GateConfig", "gate"),
        "recsys_rl.serving.loop.release": ("Releases",),
        "recsys_rl.serving.loop.retrain": ("RetrainConfig", "retrain"),
        "recsys_rl.serving.loop.visitors": ("VisitorsConfig", "visitors"),
        "recsys_rl.serving.record.snapshot": ("backup",),
        "recsys_rl.serving.options": ("ServeConfig",),
        "recsys_rl.serving.server": ("application", "serve"),
    },
)

"""Logs of decisions: read and written, described, judged on and learned from.

The names in ``__all__`` are for code outside of the package, which imports from the files itself. Each is
imported at its first use; docs/map_logs.md is the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys_rl.utils.lazily import imported_at_first_use

if TYPE_CHECKING:
    from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
    from recsys_rl.logs.ope.config import OpeConfig
    from recsys_rl.logs.ope.ope import estimates
    from recsys_rl.logs.ope.read_log import read_log
    from recsys_rl.logs.ope.result import OpeResult
    from recsys_rl.logs.parts import read_decisions
    from recsys_rl.logs.record import RecordConfig
    from recsys_rl.logs.source import LogSource, open_log
    from recsys_rl.logs.transitions import observe, transition_table
    from recsys_rl.logs.users.fit_users import FitUsersConfig, fit_users
    from recsys_rl.logs.writer import DecisionWriter, write_decisions

__all__ = [
    "DecisionHeader",
    "DecisionLog",
    "DecisionWriter",
    "FitUsersConfig",
    "LogSource",
    "OpeConfig",
    "OpeResult",
    "RecordConfig",
    "estimates",
    "fit_users",
    "observe",
    "open_log",
    "read_decisions",
    "read_log",
    "transition_table",
    "write_decisions",
]

__getattr__ = imported_at_first_use(
    __name__,
    {
        "recsys_rl.logs.decision_log": ("DecisionHeader", "DecisionLog"),
        "recsys_rl.logs.ope.config": ("OpeConfig",),
        "recsys_rl.logs.ope.read_log": ("read_log",),
        "recsys_rl.logs.ope.ope": ("estimates",),
        "recsys_rl.logs.ope.result": ("OpeResult",),
        "recsys_rl.logs.parts": ("read_decisions",),
        "recsys_rl.logs.record": ("RecordConfig",),
        "recsys_rl.logs.source": ("LogSource", "open_log"),
        "recsys_rl.logs.transitions": ("observe", "transition_table"),
        "recsys_rl.logs.users.fit_users": ("FitUsersConfig", "fit_users"),
        "recsys_rl.logs.writer": ("DecisionWriter", "write_decisions"),
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

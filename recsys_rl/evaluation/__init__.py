"""Is it better than what a team would ship? Tables of policies on held-out users, with their page.

``recsys_rl.evaluate`` makes a table. The names in ``__all__`` are for code outside of the package, which
imports from the files itself. Each is imported at its first use; docs/map_evaluation.md is the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys_rl.utils.lazily import imported_at_first_use

if TYPE_CHECKING:
    from recsys_rl.evaluation.columns import COLUMNS, Column
    from recsys_rl.evaluation.mixture import EpsilonMixture, Fixed
    from recsys_rl.evaluation.report.html import PICTURES
    from recsys_rl.evaluation.report.learning_curve import learning_curve_svg
    from recsys_rl.evaluation.report.page import Picture
    from recsys_rl.evaluation.report.returns_table import returns_chart_svg
    from recsys_rl.evaluation.rivals.baselines import FixedList, RandomPolicy
    from recsys_rl.evaluation.rivals.references import Myopic, Planner
    from recsys_rl.evaluation.rivals.tuning import Trainees
    from recsys_rl.evaluation.table import Played, mean_over_seeds, summarise

__all__ = [
    "COLUMNS",
    "PICTURES",
    "Column",
    "EpsilonMixture",
    "Fixed",
    "FixedList",
    "Myopic",
    "Picture",
    "Planner",
    "Played",
    "RandomPolicy",
    "Trainees",
    "learning_curve_svg",
    "mean_over_seeds",
    "returns_chart_svg",
    "summarise",
]

__getattr__ = imported_at_first_use(
    __name__,
    {
        "recsys_rl.evaluation.columns": ("COLUMNS", "Column"),
        "recsys_rl.evaluation.mixture": ("EpsilonMixture", "Fixed"),
        "recsys_rl.evaluation.report.html": ("PICTURES",),
        "recsys_rl.evaluation.report.learning_curve": ("learning_curve_svg",),
        "recsys_rl.evaluation.report.page": ("Picture",),
        "recsys_rl.evaluation.report.returns_table": ("returns_chart_svg",),
        "recsys_rl.evaluation.rivals.baselines": ("FixedList", "RandomPolicy"),
        "recsys_rl.evaluation.rivals.references": ("Myopic", "Planner"),
        "recsys_rl.evaluation.rivals.tuning": ("Trainees",),
        "recsys_rl.evaluation.table": ("Played", "mean_over_seeds", "summarise"),
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

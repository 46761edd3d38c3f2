"""The results of a run on one page that needs no network: charts, numbers and sample sessions."""

from recsys_rl.report.charts import learning_curve_svg, returns_chart_svg
from recsys_rl.report.page import write_report

__all__ = ["learning_curve_svg", "returns_chart_svg", "write_report"]

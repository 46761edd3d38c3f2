"""The results of a run on one page that needs no network: charts, numbers and sample sessions."""

from recsys_rl.evaluation.report.charts import learning_curve_svg, returns_chart_svg
from recsys_rl.evaluation.report.html import write_report
from recsys_rl.evaluation.report.page import Page

__all__ = ["Page", "learning_curve_svg", "returns_chart_svg", "write_report"]

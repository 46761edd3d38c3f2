"""Numbers for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from recsys_rl.serving.watch import Watch
from recsys_rl.serving.worker import Worker

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
BOUNDS = [*map(str, SECONDS), "+Inf"]


class Metrics(Collector):
    """The counts of a worker, and the seconds of each route.

    Both are gathered when they are read: a histogram of the library takes several microseconds a request.
    """

    def __init__(self, worker: Worker, watch: Watch) -> None:
        self.worker, self.watch, self.registry = worker, watch, CollectorRegistry()
        # Of each route: its requests by the bound of their seconds, and the sum of these.
        self.counts: dict[str, list[int]] = defaultdict(lambda: [0] * len(BOUNDS))
        self.seconds: dict[str, float] = defaultdict(float)
        self.registry.register(self)

    def observe(self, route: str, seconds: float) -> None:
        """Count a request at ``route``."""
        self.counts[route][bisect_left(SECONDS, seconds)] += 1
        self.seconds[route] += seconds

    def collect(self) -> Iterable[Metric]:
        """The counts of the worker."""
        shared = self.worker.shared
        counts = CounterMetricFamily("recsys_rl", "Decisions, events and refusals so far", labels=["what"])
        known = {**shared.counts, "shed": shared.admission.refused}
        for what, number in sorted(known.items()):
            counts.add_metric([what], number)
        yield counts
        name, text = "recsys_rl_request_seconds", "Seconds of a request"
        seconds = HistogramMetricFamily(name, text, labels=["door"])
        for route, numbers in self.counts.items():
            buckets = [*zip(BOUNDS, accumulate(numbers), strict=True)]
            seconds.add_metric([route], buckets, self.seconds[route])
        yield seconds
        gauges = {
            "recsys_rl_draws_waiting": len(self.worker.recommendations.pending),
            "recsys_rl_people_in_memory": len(shared.memory.people),
        }
        for name, value in gauges.items():
            yield GaugeMetricFamily(name, name, value=value)
        yield from self._of_release()

    def _of_release(self) -> Iterable[Metric]:
        """The share of the challenger, and the returns of both versions, while a release is under way."""
        active = self.worker.shared.active
        release = active.history.under_way
        yield GaugeMetricFamily(
            "recsys_rl_challenger_share",
            "Share of the units that the challenger answers",
            value=0.0 if release is None or release.frozen is not None else release.share,
        )
        if release is None:
            return
        text = "Returns of the sessions of the release that have matured"
        returns = SummaryMetricFamily("recsys_rl_session_return", text, labels=["arm", "version"])
        canary, _ = self.watch.of(release.start.number)
        versions = {"champion": active.version.row.sha256, "challenger": release.challenger}
        for arm, (sessions, total) in canary.sums.items():
            returns.add_metric([arm, versions[arm][:12]], int(sessions), total)
        yield returns

    def text(self) -> bytes:
        """The metrics in the format of Prometheus."""
        return generate_latest(self.registry)

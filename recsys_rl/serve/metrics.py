"""Numbers for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from recsys_rl.serve.worker import Worker

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
BOUNDS = [*map(str, SECONDS), "+Inf"]


class Metrics(Collector):
    """The counts of a worker, and the seconds of each route.

    Both are gathered when they are read: a histogram of the library takes several microseconds a request.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker, self.registry = worker, CollectorRegistry()
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

    def text(self) -> bytes:
        """The metrics in the format of Prometheus."""
        return generate_latest(self.registry)

"""Numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from recsys_rl.serve.worker import Worker

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Metrics(Collector):
    """The counts of a worker, and the seconds of each door."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.registry = worker, CollectorRegistry()
        self.seconds = Histogram(
            "recsys_rl_request_seconds",
            "Seconds of a request",
            ["door"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.by_door: dict[str, Histogram] = {}
        self.registry.register(self)

    def observe(self, door: str, seconds: float) -> None:
        """Count a request at ``door``."""
        if door not in self.by_door:
            self.by_door[door] = self.seconds.labels(door)
        self.by_door[door].observe(seconds)

    def collect(self) -> Iterable[Metric]:
        """The counts of the worker."""
        counts = CounterMetricFamily("recsys_rl", "Decisions, events and refusals so far", labels=["what"])
        known = {**self.worker.counts, "shed": self.worker.admission.refused}
        for what, number in sorted(known.items()):
            counts.add_metric([what], number)
        yield counts
        gauges = {
            "recsys_rl_draws_waiting": len(self.worker.pending),
            "recsys_rl_people_in_memory": len(self.worker.memory.people),
        }
        for name, value in gauges.items():
            yield GaugeMetricFamily(name, name, value=value)

    def text(self) -> bytes:
        """In the format of Prometheus."""
        return generate_latest(self.registry)

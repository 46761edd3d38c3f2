"""The functions of the routes share these: the objects that they use, JSON in and out, and the metrics."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from recsys_rl.errors import one_line
from recsys_rl.serving.field_errors import NOTHING, field_error
from recsys_rl.serving.messages import LARGEST_BODY, Problem
from recsys_rl.serving.releases.active_version import PolicyFiles
from recsys_rl.serving.work.item_report import ItemCounts
from recsys_rl.serving.work.watch import Watch
from recsys_rl.serving.work.worker import Worker

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Services:
    """The objects that the functions of the routes use."""

    worker: Worker
    policies: PolicyFiles
    metrics: Metrics
    watch: Watch
    items: ItemCounts
    restocking: asyncio.Lock = field(default_factory=asyncio.Lock)  # of one change of the items at a time


Post = Callable[[Services, bytes], Awaitable[bytes]]
Get = Callable[[Services, Request], Awaitable[Response]]


class Route(NamedTuple):
    """An address. A POST takes the body and gives the JSON of its answer; a GET takes a Request."""

    method: str
    path: str
    scope: str | None  # that a token must have; None: the route is open
    function: Callable[[Services, Any], Awaitable[Any]]  # raises Problem
    summary: str = ""  # in the description; "" leaves the route out
    body: type | None = None
    answer: Any = None
    largest: int = LARGEST_BODY  # bytes of a body


def post(
    path: str,
    scope: str,
    function: Post,
    summary: str,
    body: type,
    answer: Any,
    largest: int = LARGEST_BODY,
) -> Route:
    """An address that takes a body."""
    return Route("POST", path, scope, function, summary, body, answer, largest)


def get(path: str, scope: str | None, function: Get, summary: str = "", answer: Any = None) -> Route:
    """An address without a body."""
    return Route("GET", path, scope, function, summary, None, answer)


def decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """The struct of a body. Raises Problem."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        given: object = NOTHING  # a body that ends too early, or is nested too deeply
        with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            given = msgspec.json.decode(body)
        raise Problem(422, "wrong-field", field_error(error, given, decoder.type)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(400, "not-json", f"The body is not JSON: {one_line(error)}") from None


def as_json(answer: Any) -> Response:
    """The response with this content."""
    return Response(encode(answer), media_type="application/json")


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

"""The routes of the server: a table of them, the function of each, and their OpenAPI description."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from recsys_rl.checkpoint.stock import find_encoding
from recsys_rl.serving.draw.context import schema_of_context
from recsys_rl.serving.draw.decide_again import report
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.http.item_changes import take_items
from recsys_rl.serving.http.release_routes import release_routes
from recsys_rl.serving.http.services import Get, Route, Services, as_json, decoded, encode, get, post
from recsys_rl.serving.messages import (
    LARGEST_STOCK,
    DecisionReport,
    DecisionRow,
    DecisionRows,
    FeedbackAnswer,
    FeedbackRequest,
    ItemReport,
    ItemsAnswer,
    ItemsFound,
    ItemsRequest,
    ObserveRequest,
    Platform,
    Problem,
    Recommendation,
    RecommendRequest,
    Versions,
)
from recsys_rl.serving.record.facts import FEATURES
from recsys_rl.serving.record.record_schema import Decision, SessionRows
from recsys_rl.serving.work.feedback import take_feedback
from recsys_rl.serving.work.item_report import item_report
from recsys_rl.serving.work.jobs import Call, Observe, Recommend, Shared
from recsys_rl.version import __version__


@cache  # it reads the files of the page
def routes() -> tuple[Route, ...]:
    """All routes, in the order of the description."""

    return (
        post(
            "/v1/recommend", "decide", recommend, "Choose items for a user", RecommendRequest, Recommendation
        ),
        post(
            "/v1/observe",
            "decide",
            observe,
            "Write down what your application showed",
            ObserveRequest,
            Recommendation,
        ),
        post("/v1/feedback", "feedback", feedback, "Take what users did", FeedbackRequest, FeedbackAnswer),
        get("/v1/decisions/{id}", "read", decision, "What was seen and decided", DecisionReport),
        get("/v1/decisions", "read", decisions, "The latest decisions", DecisionRows),
        get("/v1/platform", "read", platform, "What a page must know of the place", Platform),
        get("/v1/items", "read", items, "Items by a text in their titles", ItemsFound),
        get("/v1/items/{id}", "read", item, "An item: its rows, and how it fared", ItemReport),
        post(
            "/v1/items",
            "items",
            take_items,
            "Let items come, change and go",
            ItemsRequest,
            ItemsAnswer,
            LARGEST_STOCK,
        ),
        get("/v1/policies", "read", policies, "The versions of the policy", Versions),
        *release_routes(),
        get("/metrics", "read", metrics),
        get("/healthz", None, alive),
        get("/readyz", None, ready),
        get("/openapi.json", None, description),
        get("/", None, page_file("index.html", "text/html")),
        get("/page.js", None, page_file("page.js", "text/javascript")),
        get("/release.js", None, page_file("release.js", "text/javascript")),
        get("/page.css", None, page_file("page.css", "text/css")),
    )


_recommend_decoder = msgspec.json.Decoder(RecommendRequest)
_observe_decoder = msgspec.json.Decoder(ObserveRequest)
_feedback_decoder = msgspec.json.Decoder(FeedbackRequest)
ROWS = 20  # of the playground
PAGE = Path(__file__).parent / "page"
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


async def recommend(services: Services, body: bytes) -> bytes:
    admission = services.worker.shared.admission
    entered = admission.enter()  # before the body is decoded: a refusal must cost little
    try:
        request = decoded(_recommend_decoder, body)
        answer: bytes = await services.worker.submit(Recommend(request, _digest(request)))
        admission.measure(entered)
        return answer
    finally:
        admission.leave()


async def observe(services: Services, body: bytes) -> bytes:
    request = decoded(_observe_decoder, body)
    answer: bytes = await services.worker.submit(Observe(request, _digest(request)))
    return answer


async def feedback(services: Services, body: bytes) -> bytes:
    events = decoded(_feedback_decoder, body).events
    return encode(await services.worker.submit(Call(partial(take_feedback, events=events))))


async def decision(services: Services, request: Request) -> Response:
    id_ = request.path_params["id"]
    if not (id_.isascii() and id_.isdecimal() and len(id_) < 19):
        raise _unknown_decision()

    def query(shared: Shared) -> tuple[SessionRows, Decision]:
        stored = shared.store.decision(int(id_))
        if stored is None:
            raise _unknown_decision()
        return stored

    rows, row = await services.worker.submit(Call(query))
    active = services.worker.shared.active
    version = active.version  # of a decision before there was a policy
    if row.policy:
        version = await asyncio.to_thread(services.policies.version_of, row, active.served)
    return as_json(await asyncio.to_thread(report, version, rows, row))


async def decisions(services: Services, request: Request) -> Response:
    rows, unreadable = await services.worker.submit(Call(lambda shared: shared.store.latest(ROWS)))
    version = services.worker.shared.active.version
    ids, title = version.item_ids, version.checkpoint.catalogue.title
    described = [
        DecisionRow(
            decision_id=str(row.number),
            user_id=person,
            session=str(row.session),
            step=row.step,
            time=row.time,
            items=[ids[item] for item in row.items],
            titles=[title(item) for item in row.items],
            propensity=row.propensity,
            degraded=row.degraded or None,
            events=events,
        )
        for row, person, events in rows
    ]
    return as_json(DecisionRows(described, [*map(str, unreadable)]))


async def platform(services: Services, request: Request) -> Response:
    shared = services.worker.shared
    features = shared.store.facts.get(FEATURES)
    version = shared.active.version
    if features is not None and (encoding := find_encoding(version.checkpoint)) is not None:
        features = encoding.named(features)
    return as_json(msgspec.structs.replace(version.platform, features=features))


async def items(services: Services, request: Request) -> Response:
    text = request.query_params.get("q", "")[:200]
    version = services.worker.shared.active.version
    return as_json(ItemsFound(await asyncio.to_thread(version.find_items, text)))


async def item(services: Services, request: Request) -> Response:
    return as_json(await item_report(request.path_params["id"], services.items))


async def policies(services: Services, request: Request) -> Response:
    return as_json(await asyncio.to_thread(services.policies.listed, services.worker.shared.active))


async def metrics(services: Services, request: Request) -> Response:
    return Response(services.metrics.text(), media_type="text/plain; version=0.0.4")


async def alive(services: Services, request: Request) -> Response:
    return Response("ok\n", media_type="text/plain")


async def ready(services: Services, request: Request) -> Response:
    why = services.worker.failed
    if services.worker.shared.active.broken:
        why = "the policy failed three times in a row, and popularity answers"
    return Response(f"{why or 'ready'}\n", 503 if why else 200, media_type="text/plain")


async def description(services: Services, request: Request) -> Response:
    return as_json(openapi(routes(), services.worker.shared.active.version))


def page_file(name: str, kind: str) -> Get:
    """The function of a file of the playground."""
    content = (PAGE / name).read_bytes()

    async def answer(services: Services, request: Request) -> Response:
        return Response(content, headers=PAGE_HEADERS, media_type=kind)

    return answer


def _digest(request: RecommendRequest | ObserveRequest) -> str:
    """The digest that a repeated request must have in common with the first of its id; "" without an id."""
    if request.request_id is None:
        return ""
    return hashlib.blake2b(encode(request), digest_size=12).hexdigest()


def _unknown_decision() -> Problem:
    return Problem(
        404,
        "unknown-decision",
        "There is no decision with this id: give the decision_id of an answer of /v1/recommend or "
        "/v1/observe of this server, or one that GET /v1/decisions lists.",
    )


PROBLEM = {
    "type": "object",
    "required": ["type", "status", "title", "detail"],
    "properties": {
        "type": {"type": "string"},
        "status": {"type": "integer"},
        "title": {"type": "string"},
        "detail": {"type": "string"},
    },
}


def openapi(table: Sequence[Route], version: Version) -> dict[str, Any]:
    """The description in OpenAPI 3.1, made from the structs that decode the bodies and encode the answers.

    The context of a request is that of the ``version`` that serves.
    """
    described = [route for route in table if route.summary]
    kinds = [kind for route in described for kind in (route.body, route.answer) if kind is not None]
    kinds = list(dict.fromkeys(kinds))
    refs, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(kinds, refs, strict=True))
    for kind in (RecommendRequest, ObserveRequest):
        described_context = schema_of_context(version)
        schemas[kind.__name__]["properties"]["context"] = described_context
        if described_context.get("required"):
            schemas[kind.__name__]["required"].append("context")
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    paths: dict[str, Any] = {}
    for route in described:
        assert route.answer is not None
        answer = {"application/json": {"schema": schema_of[route.answer]}}
        entry: dict[str, Any] = {
            "summary": route.summary,
            "responses": {
                "200": {"description": "Done", "content": answer},
                "default": {"description": "A problem (RFC 9457)", "content": problem},
            },
        }
        if route.body is not None:
            body = {"application/json": {"schema": schema_of[route.body]}}
            entry["requestBody"] = {"required": True, "content": body}
        if "{id}" in route.path:
            entry["parameters"] = [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        if (route.method, route.path) == ("GET", "/v1/items"):
            entry["parameters"] = [{"name": "q", "in": "query", "schema": {"type": "string"}}]
        paths.setdefault(route.path, {})[route.method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "recsys-rl serve", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }

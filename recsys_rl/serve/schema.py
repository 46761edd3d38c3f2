"""The OpenAPI description of the doors, made from the structs that decode and encode them."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from recsys_rl.serve import wire
from recsys_rl.version import __version__

DOORS = (
    ("/v1/recommend", "post", "Choose items for a user", wire.RecommendRequest, wire.Recommendation),
    ("/v1/feedback", "post", "Take what users did", wire.FeedbackRequest, wire.FeedbackAnswer),
    ("/v1/decisions/{id}", "get", "What was seen and decided", None, wire.DecisionReport),
    ("/v1/decisions", "get", "The latest decisions", None, wire.DecisionRows),
    ("/v1/platform", "get", "What a page must know of the place", None, wire.Platform),
    ("/v1/items", "get", "Items by a text in their titles", None, wire.ItemsFound),
    ("/v1/policies", "get", "The versions of the policy", None, wire.Versions),
    ("/v1/policies/alias", "post", "Serve another version", wire.AliasRequest, wire.Versions),
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


@cache
def openapi() -> dict[str, Any]:
    """The description, in OpenAPI 3.1."""
    kinds = [kind for _, _, _, body, answer in DOORS for kind in (body, answer) if kind is not None]
    kinds = list(dict.fromkeys(kinds))
    refs, parts = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    of = dict(zip(kinds, refs, strict=True))
    paths: dict[str, Any] = {}
    for path, method, summary, body, answer in DOORS:
        problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        door: dict[str, Any] = {
            "summary": summary,
            "responses": {
                "200": {"description": "Done", "content": {"application/json": {"schema": of[answer]}}},
                "default": {"description": "A problem (RFC 9457)", "content": problem},
            },
        }
        if body is not None:
            door["requestBody"] = {"required": True, "content": {"application/json": {"schema": of[body]}}}
        if "{id}" in path:
            door["parameters"] = [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        if path == "/v1/items":
            door["parameters"] = [{"name": "q", "in": "query", "schema": {"type": "string"}}]
        paths.setdefault(path, {})[method] = door
    return {
        "openapi": "3.1.0",
        "info": {"title": "recsys-rl serve", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**parts, "Problem": PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }

"""Bodies of another shape than their structs say are answered with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from recsys_rl.serving.http.services import decoded
from recsys_rl.serving.messages import (
    FeedbackRequest,
    ItemsRequest,
    ObserveRequest,
    Problem,
    RecommendRequest,
)
from tests.serving.servers import event, recommend, serving

SHOWN = {"user_id": "a", "items": ["x"]}
EVENT = {"decision_id": "1", "signal": "clicked"}
ITEM = {"item_id": "x"}


@pytest.mark.parametrize(
    ("kind", "body", "parts"),
    [
        (ObserveRequest, {**SHOWN, "propensity": 1.5}, ["propensity is 1.5", "a number of at most 1."]),
        (ObserveRequest, {**SHOWN, "propensity": [0.5, 0]}, ["propensity[1] is 0", "a number above 0."]),
        (ObserveRequest, {**SHOWN, "items": []}, ["items is []", "a list of at least 1 element."]),
        (ObserveRequest, {**SHOWN, "policy": "\n"}, [r'policy is "\n"', "a text that matches"]),
        (FeedbackRequest, {"events": [{**EVENT, "value": "x"}]}, ['events[0].value is "x"', "or a number."]),
        (FeedbackRequest, {"events": [{**EVENT, "position": -1}]}, ["position is -1", "of at least 0."]),
        (FeedbackRequest, [], ["The body is []", "an object."]),
        (RecommendRequest, {}, ["user_id is missing"]),
        (RecommendRequest, {"user_id": None}, ["user_id is null", "a text."]),
        (RecommendRequest, {"user_id": "a", "m": 1}, ["'m'", "user_id, n, session_id"]),
        (RecommendRequest, {"user_id": "a" * 300}, ["user_id is", "of at most 200 characters."]),
        (RecommendRequest, {"user_id": "a", "context": {"b": 1, "c": [2, "x"]}}, ['context.c[1] is "x"']),
        (RecommendRequest, {"user_id": "a", "context": {"": 1}}, ["context", "at least 1 character."]),
        (ItemsRequest, {"items": [ITEM, {**ITEM, "color": 1}]}, ["items[1]", "'color'", "title, features"]),
        (ItemsRequest, {"items": [{**ITEM, "features": {"a.b": True}}]}, ["items[0].features.a.b is true"]),
    ],
)
def test_a_wrong_field_is_a_sentence(kind: type, body: Any, parts: list[str]) -> None:
    with pytest.raises(Problem) as found:
        decoded(msgspec.json.Decoder(kind), msgspec.json.encode(body))
    said = found.value.detail
    assert all(part in said for part in parts), said
    assert said.endswith(".") and "`" not in said and "$" not in said.replace("+$.", "")


def test_events_of_nothing_say_what_there_is(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        answer = recommend(client, "1")
        signals = [*client.get("/v1/platform").json()["full"]]
        sent = [event(answer, "clik"), event({"decision_id": "99"}, signals[0])]
        one, two = client.post("/v1/feedback", json={"events": sent}).json()["results"]
        assert (one["code"], two["code"]) == ("unknown-signal", "unknown-decision")
        assert all(name in one["detail"] for name in ("'clik'", *signals, "leave"))
        assert "'99'" in two["detail"] and "/v1/recommend" in two["detail"]
        assert "/v1/decisions" in client.get("/v1/decisions/99").json()["detail"]

"""Ids of a request that the catalogue lacks: they are left out, and the answer names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.serving.servers import recommend, serving

At = Callable[[str], Path]


def test_unknown_candidates_and_exclusions_are_dropped_and_named(checkpoint: At, tmp_path: Path) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        known = [item["item_id"] for item in client.get("/v1/items?q=").json()["items"]][:4]
        fields = {"candidates": ["none", *known, "none"], "exclude": [known[0], "gone", "none"], "n": 3}
        answer = recommend(client, "3", request_id="a", **fields)
        assert sorted(x["item_id"] for x in answer["items"]) == sorted(known[1:])
        assert answer["unknown"] == ["none", "gone"]
        assert recommend(client, "3", request_id="a", **fields) == answer
        report = client.get(f"/v1/decisions/{answer['decision_id']}").json()
        assert report["replayed"] and report["decision"] == answer
        same = recommend(client, "4", candidates=known, exclude=[known[0]])
        assert same["unknown"] == []
        for path, more in (("/v1/recommend", {}), ("/v1/observe", {"items": [known[0]]})):
            found = client.post(path, json={"user_id": "5", "candidates": ["none", "nor"], **more})
            assert (found.status_code, found.json()["title"]) == (422, "unknown-item")
            assert "candidates" in found.json()["detail"]
        body = {"user_id": "5", "items": [known[0]], "candidates": [*known, "none"], "propensity": 0.25}
        observed = client.post("/v1/observe", json=body)
        assert observed.status_code == 200 and observed.json()["unknown"] == ["none"]
        everything = client.post(
            "/v1/recommend", json={"user_id": "6", "candidates": ["x", known[0]], "n": 2}
        )
        assert everything.json()["title"] == "too-few-items"

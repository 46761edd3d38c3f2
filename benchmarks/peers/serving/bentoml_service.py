"""BentoML, with its own adaptive batches."""

from __future__ import annotations

import bentoml

from benchmarks.peers.serving.scoring import MOST, Scoring


@bentoml.service(
    workers=1,
    traffic={"timeout": 60, "max_concurrency": 1024},
    logging={"access": {"enabled": False}},  # ours writes none
)
class Recommend:
    def __init__(self) -> None:
        self.scoring = Scoring()

    @bentoml.api(route="/v1/recommend", batchable=True, max_batch_size=MOST, max_latency_ms=60_000)
    def recommend(self, users: list[str]) -> list[dict[str, object]]:
        return [
            {"items": [{"item_id": item, "title": title, "propensity": chance}], "propensity": chance}
            for item, title, chance in self.scoring(users)
        ]

"""Streams over the session: sums by hand, and the picture."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import torch

from recsys_rl.evaluation.report.streams import stream_curves, streams_html
from recsys_rl.evaluation.table import Played
from recsys_rl.experience.rollout import Sessions
from recsys_rl.types import Stream
from tests.evaluation.report.test_report import page_of

STREAMS = (Stream("watch"), Stream("gain", 0.0, "What stays & counts."))


def played(gains: list[list[float]], users: int = 2) -> Played:
    """``gains`` (T, N) of the stream."""
    gain = torch.tensor(gains)
    items = torch.zeros(*gain.shape, 1, dtype=torch.int64)
    nobody = torch.zeros(gain.shape[1], dtype=torch.bool)
    streams = {"watch": torch.ones_like(gain), "gain": gain}
    return Played(Sessions(items, gain, nobody, streams), torch.arange(users), "")


def test_sums_by_hand() -> None:
    """The second user has left after the first step. A planner that fewer users played has no line."""
    (found,) = stream_curves(
        STREAMS, {"ppo": played([[1.0, 3.0], [0.5, 0.0]]), "planner": played([[9.0], [9.0]], 1)}
    )
    assert found == {
        "name": "gain",
        "meaning": "What stays & counts.",
        "users": 2,
        "unit": "step",
        "steps": {"ppo": [2.0, 2.25]},
    }


def test_nothing_to_draw() -> None:
    one = played([[1.0, 3.0]])
    assert stream_curves(STREAMS[:1], {"ppo": one}) == []
    assert (
        streams_html((), page_of()) == "" == streams_html(stream_curves(STREAMS, {"ppo": one}), page_of())
    )  # of one step


def test_sums_of_the_days_of_lives() -> None:
    """The first user comes on day 0, and twice on day 2; the second never again after day 0."""
    life = played([[1.0, 3.0], [0.5, 0.0], [0.25, 9.0]])
    life = replace(life, sessions=replace(life.sessions, days=torch.tensor([[0, 0], [2, -1], [2, -1]])))
    (found,) = stream_curves(STREAMS, {"ppo": life})
    assert found["unit"] == "day" and found["steps"]["ppo"][:4] == [2.0, 2.0, 2.375, 2.375]
    assert len(found["steps"]["ppo"]) == 35 and "Gain over the days" in streams_html([found], page_of())


def test_picture_has_the_learned_rows_and_the_yardstick() -> None:
    rows = {name: played([[1.0, 3.0], [0.5, 0.0]]) for name in ("ppo", "trade-a", "trade-b", "myopic")}
    html = streams_html(stream_curves(STREAMS, rows), page_of(yardstick="trade-a"))
    assert html.startswith("<h2>Gain over the session</h2>") and "What stays &amp; counts." in html
    root = ElementTree.fromstring(f"<div>{html}</div>")
    charts = [element for element in root if element.tag.endswith("svg")]
    assert [chart.get("aria-label") for chart in charts] == ["Gain after step 2: ppo 2.25, trade-a 2.25."] * 3

"""Sample sessions of the report: the chosen item of a slate, what ended, and the signal of the ticks."""

from __future__ import annotations

from dataclasses import replace

import torch

from recsys_rl.env.long_video import LongVideo
from recsys_rl.env.satiation import Satiation
from recsys_rl.env.short_video import ShortVideo
from recsys_rl.evaluation.report.samples import _steps
from recsys_rl.experience.rollout import Sessions
from recsys_rl.types import Events, Feedback, Signal, empty_world, genres_and_year

SIGNALS = (
    Signal("completion"),
    Signal("clicked"),
    Signal("started", visible=False, chosen=True),
    Signal("chance", visible=False),
    Signal("trust", visible=False, meaning="the trust"),
)
CATALOGUE = replace(
    empty_world().catalogue,
    titles=("Fargo", "Heat", "Brazil"),
    attributes={
        "genres": torch.tensor([[1.0, 0], [0, 1], [1, 1]]),
        "year": torch.tensor([1996.0, 1995.0, torch.nan]),
    },
    features=genres_and_year(("Crime", "Drama")),
)


def reaction(places: list[list[float]], event: int, signals: list[float], shown: list[bool]) -> Feedback:
    events = Events(torch.tensor([[event]]), torch.tensor([[signals]]))
    return Feedback(torch.tensor([places]), torch.tensor([shown]), events)


def test_step_of_a_slate_is_of_its_chosen_item() -> None:
    none = [0.0] * 5
    reactions = (
        reaction([[0, 0, 0, 0.1, 0.5], [0, 1, 1, 0.25, 0.5]], -1, none, [True, True]),
        reaction([[0, 0, 0, 0.1, 0.5], [0, 0, 0, 0.0, 0.0]], -1, none, [True, False]),  # an empty place
        reaction([[0, 0, 0, 0.1, 0.5], [0, 0, 0, 0.2, 0.5]], 1, [0.0, 1, 0, 0, 0], [True, True]),
    )
    items = torch.tensor([[[0, 1]], [[2, -1]], [[0, 2]]])
    rewards = torch.tensor([[0.25], [0.0], [0.5]])
    sessions = Sessions(items, rewards, torch.tensor([False]), reactions=reactions)
    first, second, third = _steps(CATALOGUE, SIGNALS, sessions, 0, 3)
    assert (first["title"], first["year"], first["genres"]) == ("Heat", 1995, ["Drama"])
    assert (first["place"], first["places"], first["reward"]) == (2, 2, 0.25)
    assert first["hidden"] == {"chance": 0.25, "trust": 0.5} and first["visible"] == {"clicked": 1.0}
    assert (second["title"], second["place"], second["goes_on"]) == ("", None, "Heat")
    assert second["hidden"] == {"trust": 0.5} and second["events"] == []
    assert third["goes_on"] == ""
    assert third["events"] == [{"title": "Heat", "visible": {"completion": 0.0, "clicked": 1.0}}]


def test_single_item_has_its_own_hidden_signals() -> None:
    found = Feedback(torch.tensor([[[0.75, 0.5]]]), torch.tensor([[True]]))
    signals = (Signal("engagement"), Signal("satisfaction", visible=False))
    rewards = torch.tensor([[0.75]])
    sessions = Sessions(torch.tensor([[[0]]]), rewards, torch.tensor([True]), reactions=(found,))
    assert _steps(CATALOGUE, signals, sessions, 0, 1) == [
        {"title": "Fargo", "year": 1996, "genres": ["Crime"], "reward": 0.75, "hidden": {"satisfaction": 0.5}}
    ]


def test_platforms_mark_what_matters_and_not_their_first_hidden_signal() -> None:
    models = (Satiation, ShortVideo, LongVideo)
    marked = {model.__name__: [x.name for x in model.signals if x.meaning] for model in models}
    assert marked == {"Satiation": ["satisfaction"], "ShortVideo": ["satisfaction"], "LongVideo": ["trust"]}
    assert [x.name for x in LongVideo.signals if x.chosen] == ["started"]

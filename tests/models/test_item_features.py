"""Attributes of items by name: the columns by hand, and their way into heads, rules and checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import Checkpoint, load, save
from recsys_rl.cli.train import train_options
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.errors import UserError
from recsys_rl.evaluation.rivals.forms import Factors, Form, Searched, of_rule
from recsys_rl.evaluation.rivals.rankers import Rule, RuleWeights
from recsys_rl.evaluation.rivals.rule_search import as_weights
from recsys_rl.make import make_agent
from recsys_rl.models.item_columns import feature_columns, feature_names, item_columns
from recsys_rl.session import make_interface
from recsys_rl.types import Catalogue, ItemFeature, Obs, World
from tests.checkpoint.test_checkpoint import make_checkpoint
from tests.doors import DRIFT

KIND = ItemFeature("kind", "classes", ("post", "ad"))


def catalogue() -> Catalogue:
    """Four items: the second and the last are ads; the third has a class without a name."""
    items = synthetic_world(4, 10, 3, 0.5, 0)[0]
    named = {"kind": torch.tensor([0, 1, 2, 1]), "bid": torch.tensor([0.0, 3.0, 0.0, 1.0])}
    features = (*items.features, KIND, ItemFeature("bid", "log"), ItemFeature("bid"))
    return replace(items, attributes={**items.attributes, **named}, features=features)


def test_columns_by_hand() -> None:
    items = catalogue()
    assert feature_names(items) == ("kind post", "kind ad", "bid", "bid")
    assert items.classes("kind") == ("post", "ad") and items.classes("bid") == ()
    columns = feature_columns(items)
    assert columns[:, :2].tolist() == [[1, 0], [0, 1], [0, 0], [0, 1]]
    log = torch.tensor([0.0, 4.0, 0.0, 2.0]).clamp_min(1).log()
    for column, values in ((2, log), (3, items.attributes["bid"])):
        wanted = (values - values.mean()) / values.std(correction=0)
        torch.testing.assert_close(columns[:, column], wanted)
    whole = item_columns(items)
    assert torch.equal(whole[:, 3:7], columns) and bool((whole[:, 7] == 1).all())
    assert torch.equal(whole[:, :3], item_columns(replace(items, features=items.features[:2]))[:, :3])


def test_scaled_as_the_catalogue_of_the_training() -> None:
    items = catalogue()
    other = replace(items, attributes={**items.attributes, "bid": 2 * items.attributes["bid"]})
    scaled, old = feature_columns(other, items)[:, 3], items.attributes["bid"]
    torch.testing.assert_close(scaled, (2 * old - old.mean()) / old.std(correction=0))


def test_rule_and_searched_weigh_features_by_name() -> None:
    """Only the kind differs between the scores of two rules, and each ad gains the weight of its class."""
    items = catalogue()
    obs = Obs(torch.zeros(1, 6), history=torch.tensor([[-1, -1, 1]]))
    names = feature_names(replace(items, features=(KIND,)))
    items = replace(items, features=(KIND,))
    rule = Rule(items, RuleWeights.zeros())
    weights = as_weights(torch.tensor([0.0] * 7 + [0.25, 0.5]), names)
    _, plain = rule.linear(obs, RuleWeights.zeros())
    _, found = rule.linear(obs, weights)
    assert (rule.columns @ (found - plain)[0]).tolist() == [0.25, 0.5, 0.0, 0.5]
    overlap = replace(RuleWeights.zeros(), overlap=torch.tensor(2.0))  # the last item was an ad
    assert (rule.columns @ rule.linear(obs, overlap)[1][0]).tolist() == [0.0, -2.0, 0.0, -2.0]
    interface = make_interface(
        items, context=["profile", "last_item"], given={"profile": 3}, signals=[], session_length=3
    )
    form = Form(features=names)
    searched = Searched(items, interface, form, of_rule(weights), Factors.of(items, torch.ones(2, 3)))
    torch.testing.assert_close(searched.linear(obs, searched.weights)[1], found)


@pytest.mark.parametrize("head", ["scorer", "two-tower"])
def test_heads_see_the_features_and_name_the_gates(head: str) -> None:
    config = train_options([*DRIFT, "--head", head]).config
    items = catalogue()
    interface = make_interface(
        items, context=["profile", "last_item"], given={"profile": 3}, signals=[], session_length=3
    )
    model = make_agent(config, interface, items).model
    assert model.items.shape == (4, 3 + 4 + 4)
    gates = model.mean_gates(Obs(torch.zeros(2, 6), torch.full((2, 3), -1), torch.zeros(2, 3, 0)), interface)
    assert head == "two-tower" or [*gates][-5:] == ["quality", "year", "kind post", "kind ad", "bid"]


def test_checkpoint_keeps_features(tmp_path: Path) -> None:
    checkpoint: Checkpoint = make_checkpoint()
    items = checkpoint.world.catalogue
    kind = torch.arange(items.num_items) % 2
    features = (*items.features, KIND)
    items = replace(items, attributes={**items.attributes, "kind": kind}, features=features)
    path = tmp_path / "a.pt"
    save(path, replace(checkpoint, world=World(items, checkpoint.world.population)))
    found = load(path).world.catalogue
    assert found.features == features and torch.equal(found.attributes["kind"], kind)
    broken = replace(items, attributes={**items.attributes, "kind": kind + 1})
    save(path, replace(checkpoint, world=World(broken, checkpoint.world.population)))
    with pytest.raises(UserError):
        load(path)

"""Estimated propensities: against a known logger, and in the command `ope`."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.ope.propensities import with_propensities
from recsys_rl.logs.ope.reward_model import folds_by_user
from recsys_rl.types import Catalogue, Interface
from tests.proofs import Proof

ROWS, ITEMS, DIM = 3000, 12, 4


def logged(sharpness: float, slate_size: int = 1) -> tuple[DecisionLog, Catalogue, torch.Tensor]:
    """A log without propensities by softmax(sharpness profile . e) over all items but one; the truth (E,)."""
    generator = torch.Generator().manual_seed(0)
    catalogue, population = synthetic_world(ITEMS, 80, DIM, 0.2, 0)
    users = torch.randint(80, (ROWS,), generator=generator)
    profile = population.profile[users]  # (E, D)
    exclude = torch.randint(ITEMS, (ROWS, 1), generator=generator)
    logits = (sharpness * profile @ catalogue.embedding.T).double().scatter(1, exclude, -torch.inf)
    noise = -torch.rand(ROWS, ITEMS, generator=generator, dtype=torch.float64).log().log().neg()
    items = (logits - (-torch.rand(ROWS, ITEMS, generator=generator).double().log()).log()).topk(
        slate_size, 1
    )
    del noise
    left, truth = logits.clone(), torch.zeros(ROWS, dtype=torch.float64)
    for item in items.indices.split(1, 1):
        truth += left.log_softmax(1).gather(1, item).squeeze(1)
        left.scatter_(1, item, -torch.inf)
    interface = Interface(
        context=(("profile", DIM),),
        action_sizes=(ITEMS,),
        slate_size=slate_size,
        signals=("click",),
        session_length=1,
    )
    log = DecisionLog(
        header=DecisionHeader(("people",), interface, ("click",)),
        users=users,
        sessions=torch.arange(ROWS),
        steps=torch.zeros(ROWS, dtype=torch.int64),
        times=torch.arange(ROWS),
        items=items.indices,
        logprobs=torch.full((ROWS,), torch.nan, dtype=torch.float64),
        signals=torch.zeros(ROWS, slate_size, 1),
        terminated=torch.ones(ROWS, dtype=torch.bool),
        truncated=torch.zeros(ROWS, dtype=torch.bool),
        loggers=torch.zeros(ROWS, dtype=torch.int64),
        given={"profile": profile},
        exclude=exclude,
    )
    return log, catalogue, truth


@pytest.mark.learning
@pytest.mark.parametrize(("sharpness", "slate_size"), [(2.0, 1), (2.0, 2), (0.0, 1)])
def test_propensities_of_a_known_logger_are_found(sharpness: float, slate_size: int, proof: Proof) -> None:
    log, catalogue, truth = logged(sharpness, slate_size)
    found, fit = with_propensities(log, catalogue, torch.Generator().manual_seed(1))
    assert found.has_propensities and (found.place_logprobs is None) == (slate_size == 1)
    proof(float((found.logprobs - truth).abs().mean()), below=0.3)
    assert fit.uniform == pytest.approx(-torch.tensor(ITEMS - 1.0).log().item())  # one item is excluded
    proof(abs(fit.mean_inverse - 1), below=0.25, what="mean inverse")
    if sharpness:
        proof(fit.logprob - fit.uniform, above=0.2, what="gain")
        proof(abs(fit.slope - 1), below=0.25, what="slope")


def test_rows_of_a_user_never_train_the_propensities_of_his_rows() -> None:
    """If one user's rows change, the propensities of the others in the same fold stay the same."""
    log, catalogue, _ = logged(2.0)
    before, _ = with_propensities(log, catalogue, torch.Generator().manual_seed(1))
    assert log.exclude is not None
    mine = log.users == 0
    turned = torch.where(mine.unsqueeze(1), (log.exclude + 1) % ITEMS, log.items)
    changed = dataclasses.replace(log, items=turned)
    after, _ = with_propensities(changed, catalogue, torch.Generator().manual_seed(1))
    folds = folds_by_user(log.users, torch.Generator().manual_seed(1))
    same = before.logprobs == after.logprobs
    assert bool(same[(folds == folds[mine][0]) & ~mine].all()) and not bool(same[~mine].all())


def test_item_that_could_not_be_shown_is_refused() -> None:
    log, catalogue, _ = logged(1.0)
    assert log.exclude is not None
    wrong = dataclasses.replace(log, items=log.exclude)
    with pytest.raises(UserError):
        with_propensities(wrong, catalogue, torch.Generator().manual_seed(1))

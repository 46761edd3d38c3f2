"""Propensities of a log that holds none: a two-tower softmax over the items that could be shown.

    pi_b(a|x) = softmax_a  (W s(x)) . [f_a, relu(U f_a)]

with f_a the visible features of an item, the columns of the items for the user among them, and s(x) the
context and the session so far; a slate is a Plackett-Luce draw. It is fitted by maximum likelihood and
cross-fitted by user. Estimates that rest on it are as wrong as it is: a reason for a choice that the
observation lacks can't be found in it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.ope.features import MEMORY
from recsys_rl.logs.ope.reward_model import folds_by_user
from recsys_rl.logs.transitions import observe
from recsys_rl.models.heads import distribution
from recsys_rl.models.item_columns import item_columns
from recsys_rl.types import Catalogue, Obs, UserError
from recsys_rl.user_columns import UserColumns

TOWER, BATCH, LR = 16, 256, 1e-2
PATIENCE = 3  # epochs without a gain of 0.001 a decision, after which the fit ends
WARNING = (
    "The log has no propensities: they were estimated, and the interval does not cover their error; log the "
    "probability of each decision."
)


def by_draws(draws: int) -> str:
    """The warning about a log whose header has ``estimated`` draws."""
    return (
        f"The log's propensities were estimated by {draws:,} draws of its policy: a rare choice has a "
        f"propensity near 1/{draws:,} with an error as large, which the interval does not cover."
    )


@dataclass(frozen=True)
class PropensityFit:
    """The quality of estimated propensities, on rows of users that the model was not fitted on."""

    logprob: float  # mean log-probability of the logged item of the first place
    uniform: float  # the same for a uniform choice
    slope: float  # of "was shown" on the probability, over all items that could be shown; 1 is right
    # Mean of 1 / (propensity x number of items that could be shown); 1 for true propensities if every item
    # has a chance.
    mean_inverse: float

    def row(self) -> dict[str, float | str | None]:
        """The values of the JSON file, and a sentence of them."""
        numbers = {k: v if math.isfinite(v) else None for k, v in dataclasses.asdict(self).items()}
        return numbers | {"text": self.sentence}

    @property
    def sentence(self) -> str:
        return (
            f"propensities are estimated: log-likelihood {self.logprob:.3f} a decision (uniform "
            f"{self.uniform:.3f}), slope {self.slope:.2f} (1 is right), mean of 1 / (propensity x items) "
            f"{self.mean_inverse:.2f} (1 is right)"
        )


class TwoTower(nn.Module):
    """Logits (B, I) from states (B, F) and item features (I, F_i); uniform before training.

    ``columns`` (user_columns.py) of the items for each user have weights of their own, made of the state.
    """

    def __init__(
        self, num_state: int, num_item: int, columns: UserColumns, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.columns, self.num_columns = columns, len(columns.names)
        self.tower = nn.Linear(num_item, TOWER)
        nn.init.kaiming_uniform_(self.tower.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(self.tower.bias)
        self.query = nn.Linear(num_state, num_item + TOWER + self.num_columns)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def forward(self, state: Tensor, items: Tensor, context: Tensor) -> Tensor:
        """``context`` (B, size) is that of the observations, with the pieces of the columns."""
        features = torch.cat([items, self.tower(items).relu()], 1)  # (I, F_i + TOWER)
        query, weights = self.query(state).tensor_split((features.shape[1],), 1)
        logits: Tensor = query @ features.T
        return logits + self.columns.scores(context, weights) if self.num_columns else logits


def with_propensities(
    log: DecisionLog, catalogue: Catalogue, generator: torch.Generator
) -> tuple[DecisionLog, PropensityFit]:
    """The log with estimated ``logprobs`` and ``place_logprobs``.

    All its decisions count as those of one policy, whose probabilities are the average of the loggers'.
    Raises UserError with an empty place, and with fewer than three users.
    """
    if bool((log.items < 0).any()):
        row = int((log.items < 0).any(1).nonzero()[0])
        raise UserError(f"Row {row + 1} of the log has an empty place: drop its session.")
    obs = observe(log, catalogue)
    items = torch.cat([catalogue.embedding, item_columns(catalogue)], 1)  # (I, F_i)
    folds = folds_by_user(log.users, generator)
    users = log.users.unique(return_inverse=True)[1]  # (E,) from 0
    columns = UserColumns.of(log.header.interface, catalogue)
    states = _states(obs, items, torch.tensor(log.header.interface.inputs, dtype=torch.int64))
    states = (states - states.mean(0)) / states.std(0, correction=0).clamp_min(1e-6)
    terms = torch.zeros(log.items.shape, dtype=torch.float64)
    sums = torch.zeros(6, dtype=torch.float64)
    seeds = torch.randint(2**62, (int(folds.max()) + 1,), generator=generator).tolist()
    for fold, seed in enumerate(seeds):  # a stream each, as fits end after different epochs
        generator = torch.Generator().manual_seed(seed)
        own = users.masked_fill(folds == fold, -1)
        net = _fit(states, items, columns, obs, log.items, own, generator)
        for rows in (folds == fold).nonzero().squeeze(1).split(BATCH):
            with torch.no_grad():
                logits = _logits(net, states, items, obs, rows)
            terms[rows] = distribution(logits.unsqueeze(1), log.items.shape[1]).place_logprobs(
                log.items[rows]
            )
            sums += _sums(logits, log.items[rows, 0], terms[rows, 0])
    if not bool(terms.isfinite().all()):
        row = int((~terms.isfinite()).any(1).nonzero()[0])
        raise UserError(f"Row {row + 1} of the log shows an item that could not be shown: drop its session.")
    completed = dataclasses.replace(
        log, logprobs=terms.sum(1), place_logprobs=terms if log.items.shape[1] > 1 else None
    )
    return completed, _summary(sums, log.num_rows)


def _states(obs: Obs, items: Tensor, inputs: Tensor) -> Tensor:
    """(E, F) float32: the context, and sums over the session of item features and of signals times these.

    Of the context it takes the places ``inputs`` (F,).
    """
    context = obs.context[:, inputs]
    if obs.history is None or obs.signals is None:
        return context
    shown = (obs.history >= 0).float()  # (E, L)
    decay = shown * MEMORY ** (shown.flip(1).cumsum(1).flip(1) - 1)
    parts = []
    for rows in torch.arange(obs.num_rows).split(BATCH):
        past = items[obs.history[rows].clamp_min(0)] * decay[rows].unsqueeze(2)  # (B, L, F_i)
        liked = torch.einsum("bls,blf->bsf", obs.signals[rows], past).flatten(1)
        parts.append(torch.cat([past.sum(1), liked], 1))
    return torch.cat([context, torch.cat(parts)], 1)


def _logits(net: TwoTower, states: Tensor, items: Tensor, obs: Obs, rows: Tensor) -> Tensor:
    """(B, I): -inf for items that could not be shown."""
    allowed = obs.rows(rows).showable(len(items))
    logits: Tensor = net(states[rows], items, obs.context[rows])
    return logits.masked_fill(~allowed, -torch.inf)


def _fit(
    states: Tensor,
    items: Tensor,
    columns: UserColumns,
    obs: Obs,
    shown: Tensor,
    users: Tensor,
    generator: torch.Generator,
) -> TwoTower:
    """The net of the epoch that is best for a fifth of the ``users``, on which it is not trained.

    ``users`` (E,): -1 in the rows of other folds. The start counts as an epoch, so that a log without any
    pattern keeps the uniform choice.
    """
    net = TwoTower(states.shape[1], items.shape[1], columns, generator)
    known = users[users >= 0].unique()
    held_users = known[torch.randperm(len(known), generator=generator)[: max(1, len(known) // 5)]]
    test = torch.isin(users, held_users)
    rows, held = ((users >= 0) & ~test).nonzero().squeeze(1), test.nonzero().squeeze(1)

    def loss_of(batch: Tensor) -> Tensor:
        choice = distribution(_logits(net, states, items, obs, batch).unsqueeze(1), shown.shape[1])
        return -choice.logprob(shown[batch]).sum()

    @torch.no_grad()
    def error() -> float:
        return sum(float(loss_of(batch)) for batch in held.split(BATCH))

    best, state = error(), {name: weights.clone() for name, weights in net.state_dict().items()}
    optimizer = torch.optim.Adam(net.parameters(), LR)
    worse = 0
    while worse < PATIENCE and len(rows):
        for batch in rows[torch.randperm(len(rows), generator=generator)].split(BATCH):
            optimizer.zero_grad()
            (loss_of(batch) / len(batch)).backward()
            optimizer.step()
        now = error()
        worse = 0 if now < best - 1e-3 * len(held) else worse + 1
        if now < best:
            best, state = now, {name: weights.clone() for name, weights in net.state_dict().items()}
    net.load_state_dict(state)
    return net


def _sums(logits: Tensor, shown: Tensor, logprobs: Tensor) -> Tensor:
    """(6,): pairs of row and item; sums of p^2, of p at the shown item, of log p, of -log n, of 1 / (p n)."""
    p = logits.double().softmax(1)  # (B, I)
    number = logits.isfinite().sum(1).double()  # (B,): n
    at = p.gather(1, shown.unsqueeze(1))
    parts = [number, p**2, at, logprobs, -number.log(), (-logprobs).exp() / number]
    return torch.stack([values.sum() for values in parts])


def _summary(sums: Tensor, rows: int) -> PropensityFit:
    pairs, squares, at, logprob, uniform, inverse = sums.tolist()
    mean = rows / pairs  # of the probability, and of "was shown"
    spread = squares - pairs * mean**2
    slope = (at - pairs * mean**2) / spread if spread > 1e-9 else math.nan
    return PropensityFit(logprob / rows, uniform / rows, slope, inverse / rows)

"""Play policies in an environment, and record their decisions with their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, assemble, concatenate
from recsys_rl.protocols import Behaviour, Env, ForbiddingUsers, Simulator
from recsys_rl.types import Obs, Step


@torch.inference_mode()
def record(
    env: Env,
    given: Callable[[], Mapping[str, Tensor]],
    behaviours: Sequence[Behaviour],
    header: DecisionHeader,
    users: Tensor,
    user_ids: Tensor,
    first_session: int,
    generator: torch.Generator,
) -> DecisionLog:
    """The decisions of one whole session for each of ``users``, ordered by session and step.

    The time of a decision is that of a clock that counts steps, with one session after another.

    Args:
        env: an environment of a catalogue, with feedback and a limit of steps.
        given: the pieces of the context that no session derives, (N, size) each, at the present step.
        behaviours: the P policies of ``header.loggers``. Each session draws one of them.
        users: (N,) rows of the population.
        user_ids: (N,) their ids.
        first_session: number of the first session; the others count on.
        generator: draws the policy of each session.
    """
    n, length = len(users), env.interface.session_length
    obs = env.reset(users)
    loggers = torch.randint(len(behaviours), (n,), generator=generator)  # (N,)
    sessions = torch.arange(first_session, first_session + n)
    alive = torch.ones(n, dtype=torch.bool)
    steps: list[DecisionLog] = []
    while bool(alive.any()):
        step = len(steps)
        pieces = {name: values.clone() for name, values in given().items()}
        items, columns = _decide(obs, behaviours, loggers)
        columns |= forbidden(obs, env)
        outcome = env.step(items)
        columns |= outcomes(outcome, items)
        row = assemble(
            header,
            users=user_ids,
            sessions=sessions,
            steps=torch.full_like(sessions, step),
            times=sessions * length + step,
            loggers=loggers,
            given=pieces,
            **columns,
        )
        steps.append(row.rows(alive))
        alive = alive & ~(outcome.terminated | outcome.truncated)
        obs = outcome.obs
    return _ordered(steps)


def _decide(obs: Obs, behaviours: Sequence[Behaviour], loggers: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The items (N, K), each row's of its logger, and the columns about their probability."""
    actions = [behaviour.act(obs) for behaviour in behaviours]
    n, places = actions[0].items.shape
    items = torch.stack([action.items for action in actions])[loggers, torch.arange(n)]  # (N, K)
    asked = obs
    columns: dict[str, Tensor] = {}
    if actions[0].candidates is not None:  # a policy with a first stage is the only one
        columns["candidates"] = actions[0].candidates
        asked = obs.among(actions[0].candidates)
    terms = torch.stack([behaviour.place_logprobs(asked, items) for behaviour in behaviours])  # (P, N, K)
    by_logger = terms.sum(2).T.nan_to_num(nan=-torch.inf, neginf=-torch.inf).contiguous()  # (N, P)
    columns["logprobs"] = by_logger.gather(1, loggers.unsqueeze(1)).squeeze(1)
    if places > 1:
        columns["place_logprobs"] = terms[loggers, torch.arange(n)]  # (N, K)
    if len(behaviours) > 1:
        columns["logger_logprobs"] = by_logger
    return items, columns


def forbidden(obs: Obs, env: Env | Simulator) -> dict[str, Tensor]:
    """The column ``exclude`` (N, X): available items that the step forbids; {} where no step forbids any.

    Candidates hold no forbidden item, so they need no such column.
    """
    user_model = getattr(env, "user_model", None)
    if obs.candidates is not None or obs.mask is None or not isinstance(user_model, ForbiddingUsers):
        return {}
    available: Tensor = env.catalogue.available  # type: ignore[union-attr]
    rows, items = (~obs.mask & available).nonzero().unbind(1)  # (R,) each
    counts = torch.bincount(rows, minlength=obs.num_rows)  # (N,)
    column = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    exclude = rows.new_full((obs.num_rows, max(1, int(counts.max()))), -1)
    exclude[rows, column] = items
    return {"exclude": exclude}


def outcomes(outcome: Step, items: Tensor) -> dict[str, Tensor]:
    """The columns about the response. A place whose item could not be shown is empty."""
    feedback = outcome.feedback
    assert feedback is not None
    columns = {
        "items": items.masked_fill(~feedback.shown, -1),
        "signals": feedback.signals,
        "terminated": outcome.terminated,
        "truncated": outcome.truncated,
    }
    if feedback.events is not None:
        columns |= {"event_items": feedback.events.items, "event_signals": feedback.events.signals}
    return columns


def _ordered(steps: list[DecisionLog]) -> DecisionLog:
    """One log of the rows of each step, ordered by session and step."""
    log = concatenate(steps)
    return log.rows(log.sessions.argsort(stable=True))  # the steps of a session are in order already

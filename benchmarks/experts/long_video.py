"""The expert of `long-video`: what each video would bring in place of the one that plays."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.experts.form import Expert, FollowedObs, Walk
from recsys_rl.env import long_video as platform
from recsys_rl.env.long_video import (
    COMPLETION,
    MEMORY,
    QUARTERS,
    SUBSCRIBED,
    LongVideo,
    LongVideoState,
    column,
    expected_completion,
)
from recsys_rl.functional import rows
from recsys_rl.functional.recency import products
from recsys_rl.objective.weighted import stream_weights
from recsys_rl.records import Known
from recsys_rl.types import Interface, Obs


def begin(users: LongVideo, interface: Interface, obs: Obs) -> Known:
    """The state at the start of a session, with the profile for the taste and no video that plays."""
    profile = obs.context[:, interface.place_of("profile")]
    zeros = profile.new_zeros(len(profile))
    return {
        "taste": profile,
        "wear": profile.new_zeros(len(profile), users.categories.shape[1]),
        "trust": zeros + users.config.trust_start,
        "watched": torch.zeros_like(profile),
        "num_watched": zeros,
        "subscribed": torch.full((len(profile), MEMORY), -1, device=profile.device),
    }


def step(
    users: LongVideo, known: Known, items: Tensor, signals: Tensor, numbers: Mapping[str, Tensor]
) -> Known:
    """The same after a video was left.

    Trust is that of the equations. Wear fades as if each video had started when the one before it was left.
    The taste moves along the video by ``learned`` times the completion that was not expected.
    """
    config, embedding = users.config, users.catalogue.embedding[items]
    completion = signals[:, COMPLETION]
    requests = (completion * QUARTERS + 1).clamp_max(QUARTERS)  # the last of them left the video
    hold = users.hold_of_item[items] + config.hold_gain * (known["taste"] * embedding).sum(1)
    residual = numbers["learned"] * (completion - expected_completion(hold.sigmoid()))
    faded = column(platform.WEAR_RECOVERY**requests)
    trust = known["trust"] + platform.TRUST_RATE * (completion - platform.TRUST_MIDPOINT)
    subscribes = column(signals[:, SUBSCRIBED] > 0)
    return {
        "taste": known["taste"] + column(residual) * embedding,
        "wear": (known["wear"] + users.categories[items]) * faded,
        "trust": trust.clamp(0, 1),
        "watched": known["watched"] + embedding,
        "num_watched": known["num_watched"] + 1,
        "subscribed": rows.push_rows(known["subscribed"], column(users.creator[items]), subscribes),
    }


def as_state(users: LongVideo, interface: Interface, obs: FollowedObs) -> LongVideoState:
    """The state at this request of users of whom this is known: the video that plays is visible."""
    known = obs.known
    embedding, progress = (
        obs.context[:, interface.place_of(piece)] for piece in ("current_item", "progress")
    )
    playing, quarters = progress[:, 0] == 0, progress[:, 1:].argmax(1)  # (N,) each
    # The video that plays is the one with this embedding. It was shown in this session.
    if obs.exclude is None:  # among candidates
        item = (embedding @ users.catalogue.embedding.T).argmax(1)
    else:
        like = rows.dot_rows(embedding.contiguous(), users.catalogue.embedding, obs.exclude.clamp_min(0))
        nearest = like.masked_fill(obs.exclude < 0, -torch.inf).argmax(1, keepdim=True)
        item = obs.exclude.gather(1, nearest)[:, 0]
    current = torch.where(playing, item, -1)
    of_current = users.categories[current.clamp_min(0)] * column(playing)
    nothing = torch.zeros_like(known["trust"])
    return LongVideoState(
        taste=known["taste"],
        profile=obs.context[:, interface.place_of("profile")],
        wear=(known["wear"] + of_current) * column(platform.WEAR_RECOVERY ** (quarters * playing)),
        trust=known["trust"],
        current=current,
        quarters=quarters * playing,
        clicked=nothing,
        ad_clicked=nothing,
        watched=known["watched"] + embedding,
        num_watched=known["num_watched"] + playing,
        subscribed=known["subscribed"],
        idle=torch.zeros_like(current),
        luck=current.new_zeros(len(current), 2),
    )


def paid_within(p: Tensor, requests: Tensor, quarters: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Expected completion that is paid within so many ``requests``, and the requests that it takes.

    Each further quarter is watched with probability ``p`` (...), and ``quarters`` of it, whole numbers, are
    already; None: 0.
    """
    if quarters is None:
        if bool((requests >= QUARTERS).all()):  # as at most requests of a session
            return expected_completion(p), 1 + p * (1 + p * (1 + p))
        quarters = torch.zeros_like(requests)
    paid, taken, there = torch.zeros_like(p), torch.zeros_like(p), torch.ones_like(p)
    for quarter in range(QUARTERS):
        done = quarters + quarter
        now = there * ((requests > quarter) & (done < QUARTERS))
        paid = paid + now * ((1 - p) * done / QUARTERS + p * (done == QUARTERS - 1))
        taken, there = taken + now, there * p
    return paid, taken


def tiresomeness(users: LongVideo, state: LongVideoState, items: Tensor | None) -> Tensor:
    """``LongVideo.tiresomeness`` by the profile, of the ``items`` (N, C), -1 padding; None for all items."""
    if items is None:
        return users.tiresomeness(users.as_known(state))
    near, user = users.favourites(state.profile)
    return users.config.wear_gain * products(near[user], users.categories, items)


def scores(
    users: LongVideo,
    interface: Interface,
    obs: FollowedObs,
    numbers: Mapping[str, Tensor],
    items: Tensor | None,
) -> Tensor:
    """The gain of a pick of each video over the session without it, times the chance of the pick.

    ::

        worth of a video   = what is paid for it in time - request (requests that it takes)
                             + price min(TRUST_RATE (completion - TRUST_MIDPOINT), 1 - t)
        start_i            = worth_i - sameness - near (n - 1) / 10 tiresomeness_i
        score_i            = P(pick_i) (start_i + click + worth of leaving - worth of staying - slack)
                             + P(the video that plays ends) (1 - P(pick_i)) start_i
        price              = trust + ahead (n - 1) / 10 + lack (trust_start - t)        [n requests are left]

    The video that plays is worth what it pays when it is left now, or when the user stays.
    """
    number = {name: value.unsqueeze(-1) for name, value in numbers.items()}  # (1,) or (N, 1)
    config, state, catalogue = users.config, as_state(users, interface, obs), users.catalogue
    w_complete, w_click, w_subscribe, w_sameness, _ = stream_weights(users.streams).tolist()
    clock = obs.context[:, interface.place_of("clock")]  # (N, 1)
    left = ((1 - clock) * interface.session_length).round()  # (N, 1): requests, this one included
    lack = config.trust_start - column(state.trust)  # (N, 1)
    price = number["trust"] + number["ahead"] * (left - 1) / 10 + number["lack"] * lack  # (N, 1)

    def gain(completion: Tensor) -> Tensor:  # of trust, which is 1 at most
        return torch.minimum(
            platform.TRUST_RATE * (completion - platform.TRUST_MIDPOINT), column(1 - state.trust)
        )

    def of_items(table: Tensor) -> Tensor:  # (I,), or (N, C)
        return table if items is None else table[items.clamp_min(0)]

    affinity = products(state.taste, catalogue.embedding, items)  # (N, C)
    holds = torch.add(of_items(users.hold_of_item), affinity, alpha=config.hold_gain).sigmoid_()
    creators = of_items(users.creator).expand(len(affinity), -1).contiguous()
    subscribes = users._subscribes_to(affinity).masked_fill_(rows.rows_hold(state.subscribed, creators), 0.0)
    paid, taken = paid_within(holds, left - 1)  # (N, C) each
    start = paid * subscribes.mul_(w_subscribe).add_(w_complete)
    start = start.addcmul_(price * (left > 1), gain(paid))
    start = start.addcmul_(number["request"], taken, value=-1)
    mean = state.watched / column(state.num_watched.clamp_min(1))  # (N, D)
    start = start.add_(products(mean, catalogue.embedding, items), alpha=w_sameness)
    tires = tiresomeness(users, state, items)
    start = start.addcmul_(number["near"] * (left - 1) / 10, tires, value=-1)

    of_playing = users._affinity_of_current(state)  # (N,)
    hold, none = users._hold(state, of_playing)
    playing, p, done = column(state.current >= 0).float(), column(hold.sigmoid()), column(state.quarters)
    pays = w_complete + w_subscribe * column(users._subscribes(state, of_playing))

    def worth(completion: Tensor, requests: Tensor) -> Tensor:  # (N, 1): of the video that plays
        value: Tensor = completion * pays + price * gain(completion) - number["request"] * requests
        return value

    stays = playing * worth(*paid_within(p, left, done))
    leaves = playing * worth(done / QUARTERS, torch.ones_like(p))
    leaves = leaves + (1 - playing) * number["request"]  # at home a pick saves a request
    wear = products(state.wear, users.categories, items)
    picks = users._want(affinity, of_items(users.catch), wear, state.trust).sub_(column(none)).sigmoid_()
    picked = start + (w_click + leaves - stays - number["slack"])
    ends = playing * p * (done == QUARTERS - 1)  # (N, 1): then the first place starts by itself
    worths: Tensor = picked.mul_(picks).addcmul_(ends * (1 - picks), start)
    return worths


EXPERT = Expert(
    "What each video would bring in place of the one that plays, with a price of trust by the requests that "
    "are left, of requests, and of videos near the user's favourites; trust, wear and subscriptions are "
    "followed by the equations, the profile for the taste.",
    {
        "learned": (0.0, 0.1),
        "trust": (0.5, 0.5),
        "ahead": (0.5, 0.5),
        "lack": (0.0, 0.5),
        "request": (0.1, 0.1),
        "slack": (0.0, 0.1),
        "near": (0.1, 0.1),
    },
    scores,
    Walk(begin, step, stock="trust"),
)

"""Requests, answers and problems: the fields of their JSON, and the limits of each."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

LARGEST_BODY = 1 << 20
"""Bytes of a request's body."""
MOST_PLACES = 100  # of a list
MOST_ITEMS = 10_000  # in `exclude` or `candidates`
MOST_LIKES = 1_000
MOST_EVENTS = 1_000  # in one request
MOST_PIECES = 1_000  # of a context
MOST_STOCK = 20_000
"""Items of a team's own place that are there at once."""
LARGEST_STOCK = 1 << 25
"""Bytes of a body with items."""

Id = Annotated[str, Meta(min_length=1, max_length=200)]
Items = Annotated[list[Id], Meta(max_length=MOST_ITEMS)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


PieceValue = float | bool | str | list[float | bool] | None
Context = Annotated[dict[Id, PieceValue], Meta(max_length=MOST_PIECES)]
"""The pieces of the context by their names; ``Hour`` on platforms whose policies know people."""


class Hour(Struct, forbid_unknown_fields=True, frozen=True):
    """The context of a request on a platform whose policies know people."""

    hour: Annotated[float, Meta(ge=0, lt=168)] | None = None
    """Hour of the week, from Monday at midnight; null: the server's clock. Only where the policy sees it."""


class RecommendRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/recommend`."""

    user_id: Id
    n: Annotated[int, Meta(ge=1, le=MOST_PLACES)] | None = None
    """Items of the answer. On a platform with slates it is the slate's size. Default: that, or 1."""
    session_id: Id | None = None
    """The session; if given, it must be the user's open one."""
    request_id: Id | None = None
    """The same id gives the stored answer again, for 24 hours."""
    exclude: Items = msgspec.field(default_factory=list)
    """Items that may not be shown now. Unknown ones are left out, and named in the answer."""
    candidates: Annotated[list[Id], Meta(min_length=1, max_length=MOST_ITEMS)] | None = None
    """The only items that may be shown now; null: all. Unknown ones are left out, and named in the answer; if
    all are unknown, the request is refused."""
    likes: Annotated[list[Id], Meta(max_length=MOST_LIKES)] = msgspec.field(default_factory=list)
    """Items that a stranger likes. They count from the start of their next session on, as do the items of
    earlier sessions of which they consumed at least half."""
    context: Context = msgspec.field(default_factory=dict)
    """The pieces of the context by name, for a policy of a team's own log; else `hour`, if it is seen. null
    or no field: no value, which the policy takes for columns with gaps alone."""


Probability = Annotated[float, Meta(gt=0, le=1)]
Probabilities = Annotated[list[Probability], Meta(min_length=1, max_length=MOST_PLACES)]


class ObserveRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/observe`: what the caller's own application showed."""

    user_id: Id
    items: Annotated[list[Id], Meta(min_length=1, max_length=MOST_PLACES)]
    """In the order of the places, each once. On a platform with slates as many as a slate has."""
    propensity: Probability | Probabilities | None = None
    """Probability with which the application chose them: of an item, or of a slate in this order. A list has
    that of each place, given the places before it; several single items need one. null: it is unknown."""
    candidates: Annotated[list[Id], Meta(min_length=1, max_length=MOST_ITEMS)] | None = None
    """The only items that the application could have shown; null: all. Unknown ones as in `/v1/recommend`."""
    policy: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")] = "application"
    """The name of the application's policy, which logs have in their column `logger`."""
    session_id: Id | None = None
    """If given, it must be the user's open session."""
    request_id: Id | None = None
    """The same id gives the stored answer again."""
    likes: Annotated[list[Id], Meta(max_length=MOST_LIKES)] = msgspec.field(default_factory=list)
    """As in `/v1/recommend`."""
    context: Context = msgspec.field(default_factory=dict)
    """As in `/v1/recommend`."""


class Place(Struct, frozen=True):
    item_id: str
    title: str
    propensity: float | None
    """Probability of this item in this place, given the places before it; null: an application gave none."""


class Alternative(Place, frozen=True):
    expected: float | None
    """The reward that the policy's network expects of this item now; null: it expects none."""


class Policy(Struct, frozen=True):
    name: str
    version: int
    sha256: str


class SessionStep(Struct, frozen=True):
    id: str
    step: int
    """Steps of the session before this decision."""


class Recommendation(Struct, frozen=True):
    """The answer of `POST /v1/recommend` and of `POST /v1/observe`."""

    decision_id: str
    items: list[Place]
    propensity: float | None
    """The product over the places; null: an application chose, and gave none."""
    policy: Policy
    session: SessionStep
    degraded: str | None
    """Why popularity chose in place of the policy: raised, not-finite or late; null: the policy chose."""
    unknown: list[str] = msgspec.field(default_factory=list)
    """Ids in `exclude` and `candidates` that the catalogue lacks. They were left out."""


class FeedbackEvent(Struct, forbid_unknown_fields=True, frozen=True):
    decision_id: Id
    signal: Id
    """A visible signal of the platform, or `leave`: the user left after this decision, the last one."""
    value: float | bool = 1.0
    """Within the range of the signal; true is 1 and false 0."""
    position: Annotated[int, Meta(ge=0, lt=MOST_PLACES)] = 0
    """The place of the item in the answer, from 0."""
    left: Id | None = None
    """The item that the user left after this decision, in place of `position`; where the history holds items
    that were left."""
    event_id: Id | None = None
    """Default: the decision, the position (or the item that was left) and the signal."""
    time: float | None = None
    """Seconds since 1970, by the caller's clock. It is kept, and nothing depends on it."""


class FeedbackRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/feedback`."""

    events: Annotated[list[FeedbackEvent], Meta(min_length=1, max_length=MOST_EVENTS)]


class Receipt(Struct, frozen=True):
    index: int
    """The place of the event in the request."""
    status: Literal["accepted", "duplicate", "conflict", "rejected"]
    code: str | None = None
    """Why it is rejected."""
    detail: str | None = None
    """A sentence on it, where the code does not say all."""


class FeedbackAnswer(Struct, frozen=True):
    results: list[Receipt]


class PolicyRow(Struct, frozen=True):
    name: str
    """The algorithm; of one that has not served yet, the name of its file without the ending."""
    sha256: str
    file: str
    version: int | None
    """The version's number in the record; null: it has not served yet."""
    champion: bool


class Versions(Struct, frozen=True):
    """The answer of `GET /v1/policies`."""

    policies: list[PolicyRow]


class Seen(Struct, frozen=True):
    """The observation of a decision."""

    context: dict[str, list[float]]
    history: list[str]
    """The items of the history, latest last."""
    titles: list[str]
    signals: list[dict[str, float]]
    """Their visible signals."""
    excluded: int
    """Number of items that could not be shown."""


class KnownEvent(Struct, frozen=True):
    event_id: str
    position: int
    left: str | None
    signal: str
    value: float
    time: float | None
    received: float


class DecisionRow(Struct, frozen=True):
    decision_id: str
    user_id: str
    session: str
    step: int
    time: float
    items: list[str]
    titles: list[str]
    propensity: float | None
    degraded: str | None
    events: int


class DecisionRows(Struct, frozen=True):
    """The answer of `GET /v1/decisions`: the latest decisions, the last one first."""

    decisions: list[DecisionRow]
    unreadable: list[str]
    """Decisions among them whose rows are damaged in the record."""


class Item(Struct, frozen=True):
    item_id: str
    title: str
    available: bool
    """False: it was withdrawn, and is not shown any more."""


class ItemsFound(Struct, frozen=True):
    """The answer of `GET /v1/items?q=TEXT`: items with this text in their titles."""

    items: list[Item]


class ItemRow(Struct, frozen=True):
    """A row of the record about an item of a team's own place."""

    number: int
    time: float
    """Seconds since 1970."""
    kind: Literal["add", "withdraw"]
    """An item that changes is withdrawn and added again."""
    title: str
    """"" of a withdrawal."""
    features: dict[str, float | str | list[float | str]]


class ItemReport(Struct, frozen=True):
    """The answer of `GET /v1/items/{id}`."""

    item_id: str
    title: str
    available: bool
    """False: it was withdrawn, and is not shown any more."""
    rows: list[ItemRow]
    """[] on a simulated platform, whose items never change."""
    impressions: int
    """Places with it, of the sessions that have matured, and whose events count no more."""
    mean_reward: float | None
    """Of the steps that showed it, by the weights of the champion; of a slate all its places together. null:
    it was not shown."""
    all_read: bool
    """False: the server is still counting, after its start or with a new champion, so that both are of the
    earlier sessions."""


FeatureValue = float | str | list[float | str] | None


class ItemGiven(Struct, forbid_unknown_fields=True, frozen=True):
    """An item of a team's own place."""

    item_id: Id
    title: Annotated[str, Meta(min_length=1, max_length=1_000)] | None = None
    """Default: that of before, and of a new item the id."""
    features: Annotated[dict[Id, FeatureValue], Meta(max_length=MOST_PIECES)] = msgspec.field(
        default_factory=dict
    )
    """What is known of it, by the columns of the place (`features` of `GET /v1/platform`). A column that is
    left out keeps its value, also of an item that comes back; null: it has no value."""


class ItemsRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/items`: the items that come, change or go, all of them or none."""

    items: Annotated[list[ItemGiven], Meta(max_length=MOST_STOCK)] = msgspec.field(default_factory=list)
    """Items that are there from now on. Of one that is there already the columns that are given change."""
    withdraw: Annotated[list[Id], Meta(max_length=MOST_STOCK)] = msgspec.field(default_factory=list)
    """Items that are shown no more."""
    only: bool = False
    """Withdraw also each item that `items` lacks."""


class ItemsAnswer(Struct, frozen=True):
    """The answer of `POST /v1/items`."""

    added: int
    changed: int
    withdrawn: int
    unchanged: int
    """Items of the request that are there already, with the same features."""
    items: int
    """Items that are there now."""
    stock: int
    """The number of the record's last change of the items."""
    unknown_values: int
    """Items that came or changed, with a text that the champion does not know and takes for *other*."""
    incomplete: list[str]
    """Items that came or changed and of which nothing is known: they are drawn like any unknown item."""
    not_showable: int
    """Items that are there and that the champion can't show, as it knows items by their ids alone."""


class ContextField(Struct, frozen=True):
    """A piece of the context that requests give."""

    name: str
    kind: str
    """number, list or text."""
    size: int
    """Numbers of a list."""
    low: float | None
    """The smallest number in the log."""
    high: float | None
    values: list[str]
    """The texts that the policy knows; any other one is the same to it."""
    example: PieceValue
    """The middle of the log's range, or the first text."""
    gaps: bool
    """True if a request may leave the piece out, or give null."""


class Platform(Struct, frozen=True):
    """The answer of `GET /v1/platform`."""

    name: str
    items: int
    slate_size: int
    session_length: int
    full: dict[str, float]
    """The visible signals, and their values for an item that is consumed in full."""
    shares: bool
    """True if people consume an item in part, too; False for a team's own signals, such as clicked."""
    events: bool
    """True if an item is left later than it was shown (`left` of an event)."""
    by_hour: bool
    """True if the policy sees the hour of the week."""
    people: list[str]
    """Some users of the data."""
    likes: bool
    """True if the profile of a stranger is made from what they like."""
    context: list[ContextField]
    """The pieces of the context that requests give."""
    features: dict[str, str] | None
    """The columns of the items of a team's own place, with their kinds: number, text, list (of numbers) or
    names; null: the items never change."""


class DecisionReport(Struct, frozen=True):
    """The answer of `GET /v1/decisions/{id}`."""

    decision: Recommendation
    time: float
    context: dict[str, PieceValue]
    """The pieces of the context, as the request gave them."""
    seen: Seen
    alternatives: list[Alternative]
    """The ten likeliest items of the first place, with their probability and expected reward."""
    replayed: bool | None
    """True if the same draw gives the same items again; null: an application chose, and nothing was drawn."""
    events: list[KnownEvent]


class Problem(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, code: str, detail: str, retry_after: int | None = None, allow: str = ""
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.retry_after = status, code, detail, retry_after
        self.allow = allow  # the methods of the address, after another one

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Further headers of the answer."""
        if self.status == 401:
            return ((b"www-authenticate", b"Bearer"),)
        if self.allow:
            return ((b"allow", self.allow.encode()),)
        return () if self.retry_after is None else ((b"retry-after", str(self.retry_after).encode()),)

    def body(self) -> bytes:
        """The JSON of the problem."""
        return msgspec.json.encode(
            {"type": f"urn:recsys-rl:{self.code}", "status": self.status, "title": self.code}
            | {"detail": self.detail}
        )


def busy(seconds: float) -> Problem:
    """The server can't answer in time; ``seconds`` is how long the queue takes."""
    return Problem(
        503, "busy", "Too many requests are waiting: try again later.", max(1, round(seconds + 0.5))
    )


def damaged() -> Problem:
    return Problem(
        503,
        "record-damaged",
        "Rows of this session are damaged in the record: run recsys-rl log check.",
        60,
    )


def no_policy() -> Problem:
    """There is nobody who could recommend."""
    return Problem(
        409,
        "no-policy",
        "No policy serves yet: put a version into the folder of --checkpoint, and make it the champion: "
        "recsys-rl release alias FILE.",
    )


def no_room(why: str) -> Problem:
    return Problem(503, "record-full", f"The record can't be written ({why}): try again later.", 10)

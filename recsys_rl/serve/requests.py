"""A request for a recommendation, checked against the platform and the catalogue."""

from __future__ import annotations

from typing import NamedTuple

from recsys_rl.serve.problems import Problem
from recsys_rl.serve.versions import Version
from recsys_rl.serve.wire import RecommendRequest


class Asked(NamedTuple):
    """What a request asks for."""

    places: int
    candidates: tuple[int, ...] | None
    exclude: tuple[int, ...]
    likes: tuple[int, ...]


def checked(request: RecommendRequest, version: Version, steps: int) -> Asked:
    """The rows of a request in a session of ``steps`` steps so far. Raises Problem."""
    interface = version.checkpoint.interface
    slate = interface.slate_size
    places = slate if request.n is None else request.n
    if slate > 1 and places != slate:
        raise Problem(422, "wrong-n", f"n is {places}, but a slate of this platform has {slate} places.")
    if version.two_stages and places > slate:
        raise Problem(422, "wrong-n", "n must be 1: the policy searches candidates for one place at a time.")
    left = interface.session_length - steps
    if places > left * slate:
        raise Problem(422, "wrong-n", f"n is {places}, but only {left} steps of the session are left.")
    if request.context.hour is not None and not version.by_hour:
        raise Problem(422, "no-hour", "context.hour: this policy does not see the hour: leave it out.")
    candidates = None if request.candidates is None else version.items(request.candidates, "candidates")
    return Asked(
        places, candidates, version.items(request.exclude, "exclude"), version.items(request.likes, "likes")
    )

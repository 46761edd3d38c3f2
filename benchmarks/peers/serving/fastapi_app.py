"""FastAPI with pydantic. It has no micro-batch: ours stands here, so that all score batches alike."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

from fastapi import FastAPI
from pydantic import BaseModel, Field

from benchmarks.peers.serving.scoring import COMPANY, MOST, Scoring


class Request(BaseModel):
    user_id: str = Field(min_length=1, max_length=200)
    n: int = Field(1, ge=1, le=100)
    exclude: list[str] = Field(default=[], max_length=10_000)


class Place(BaseModel):
    item_id: str
    title: str
    propensity: float


class Answer(BaseModel):
    decision_id: str
    items: list[Place]
    propensity: float


Waiting = asyncio.Queue[tuple[str, asyncio.Future[tuple[str, str, float]]]]


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.waiting = Waiting()
    app.state.number = 0
    task = asyncio.create_task(batches(app.state.waiting, Scoring()))
    yield
    task.cancel()


async def batches(waiting: Waiting, scoring: Scoring) -> None:
    """Score what waits, at most MOST at once, in another thread."""
    while True:
        asked = [await waiting.get()]
        if not waiting.empty():
            await asyncio.sleep(COMPANY)
        while len(asked) < MOST and not waiting.empty():
            asked.append(waiting.get_nowait())
        scored = await asyncio.to_thread(scoring, [user for user, _ in asked])
        for (_, reply), one in zip(asked, scored, strict=True):
            reply.set_result(one)


app = FastAPI(lifespan=lifespan)


@app.post("/v1/recommend")
async def recommend(request: Request) -> Answer:
    reply = asyncio.get_running_loop().create_future()
    app.state.waiting.put_nowait((request.user_id, reply))
    item, title, chance = await reply
    app.state.number += 1
    shown = Place(item_id=item, title=title, propensity=chance)
    return Answer(decision_id=str(app.state.number), items=[shown], propensity=math.prod([chance]))

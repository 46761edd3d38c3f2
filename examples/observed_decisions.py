"""A made-up application that tells a server what it showed, before there is any policy of ours.

    python examples/observed_decisions.py files
    recsys-rl serve --observe-only --items items.csv --signals clicked --context schema.toml
    python examples/observed_decisions.py http://127.0.0.1:8000          # in another terminal

It is the news site of own_decisions.py, with its old habits and its readers: for each visitor it draws a
section, posts the decision with its probability and its context, and then whether they clicked. From the
record of the server `recsys-rl log export` makes a log, and `recsys-rl train --log` learns from it.
"""

from __future__ import annotations

import http.client
import json
import math
import random
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SECTIONS = ["politics", "sport", "science", "culture", "money", "travel"]
SCHEMA = """[age]
kind = "number"
low = 16
high = 80

[hour]
kind = "number"
low = 0
high = 23

[device]
kind = "text"
values = ["desk", "phone"]
"""


def write_files(folder: Path) -> None:
    """The files with which the server starts."""
    (folder / "items.csv").write_text("item\n" + "\n".join(SECTIONS) + "\n")
    (folder / "schema.toml").write_text(SCHEMA)


def visit(rng: random.Random, number: int) -> tuple[dict[str, Any], bool]:
    """The decision of one visit as the server takes it, and whether the visitor clicks."""
    age, hour, desk = rng.randint(16, 80), rng.randrange(24), rng.random() < 0.4
    night = hour >= 20 or hour < 6
    habit = [1.5 * desk, 2.0 * (hour >= 18), 0, 0, 0.5 * desk, 0]
    weights = [math.exp(x) for x in habit]
    shown = rng.choices(range(6), weights)[0]
    young = (80 - age) / 64
    liking = [1 - young, 0.5, young, 1 - young, 0.8 * (not night), 1.0 * night][shown]
    decision = {
        "user_id": f"reader {number // 2}",
        "items": [SECTIONS[shown]],
        "propensity": weights[shown] / sum(weights),
        "context": {"age": age, "hour": hour, "device": "desk" if desk else "phone"},
        "request_id": f"visit {number}",  # sent again after a lost answer, it is recorded once
    }
    return decision, rng.random() < 0.05 + 0.3 * liking**2


def main(url: str, visits: int = 2_000, seed: int = 0) -> None:
    """Tell the server at ``url`` about these visits. Raises OSError where it answers with another status."""
    rng, connection = random.Random(seed), http.client.HTTPConnection(urlsplit(url).netloc)

    def post(path: str, body: dict[str, Any]) -> Any:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        reply = connection.getresponse()
        answer = json.loads(reply.read())
        if reply.status != 200:
            raise OSError(answer["detail"])
        return answer

    clicks = 0
    for number in range(visits):
        decision, clicked = visit(rng, number)
        id_ = post("/v1/observe", decision)["decision_id"]
        events = [{"decision_id": id_, "signal": "clicked"}] if clicked else []
        post("/v1/feedback", {"events": [*events, {"decision_id": id_, "signal": "leave"}]})
        clicks += clicked
    print(f"{visits:,} visits, {clicks:,} clicks")


if __name__ == "__main__":
    if sys.argv[1:] == ["files"]:
        write_files(Path())
        print("items.csv and schema.toml are written")
    elif len(sys.argv) in (2, 3) and sys.argv[1].startswith("http"):
        main(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        print(__doc__)

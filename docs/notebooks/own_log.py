# %% [markdown]
# # Your own log, from the file to a served policy
#
# A log of decisions has a row for each decision: the user, the item that was shown, the probability with
# which it was chosen, and what came of it. That is enough to learn a policy, to judge it, and to serve it.
# No simulator is needed. The full run takes less than two minutes on one core.

# %%
import atexit
import json
import os
import subprocess
import sys
import tempfile
import urllib.request

import numpy as np
import polars as pl

from recsys_rl import ope
from recsys_rl.cli import main

SMALL = "SMALL" in os.environ  # a few seconds, for the tests
os.chdir(tempfile.mkdtemp())
os.environ["OMP_NUM_THREADS"] = "1"


def recsys_rl(command):
    """The command `recsys-rl ...` in this process."""
    assert main(command.split()) == 0, command


# %% [markdown]
# ## The file
#
# A news site shows one of six sections to each visitor. Old habits choose it, with some chance: sport in the
# evening, politics on a desk. Whether a visitor clicks depends on their age and on the hour; nobody wrote
# that down. With a file of your own, leave this cell out.

# %%
SECTIONS = np.array(["politics", "sport", "science", "culture", "money", "travel"])


def liking(age, hour):
    """(rows, 6): the probability of a click on each section. The log does not have it."""
    young, night = (80 - age) / 64, (hour >= 20) | (hour < 6)
    wish = [1 - young, np.full(len(age), 0.5), young, 1 - young, ~night * 0.8, night * 1.0]
    return 0.05 + 0.3 * np.stack(wish, 1) ** 2


def log_of(rows, rng):
    """A table with a row for each decision."""
    age, hour = rng.uniform(16, 80, rows).round(), rng.integers(0, 24, rows)
    desk = rng.random(rows) < 0.4
    habit = np.outer(hour >= 18, [0, 2, 0, 0, 0, 0]) + np.outer(desk, [1.5, 0, 0, 0, 0.5, 0])
    chance = np.exp(habit) / np.exp(habit).sum(1, keepdims=True)  # (rows, 6)
    shown, at = np.array([rng.choice(6, p=p) for p in chance]), np.arange(rows)
    return pl.DataFrame(
        {
            "user": rng.integers(0, rows // 3, rows),
            "item": SECTIONS[shown],
            "propensity": chance[at, shown],
            "clicked": (rng.random(rows) < liking(age, hour)[at, shown]).astype(int),
            "context.age": age,
            "context.hour": hour,
            "context.device": np.where(desk, "desk", "phone"),
        }
    )


rng = np.random.default_rng(0)
log_of(3_000 if SMALL else 20_000, rng).write_csv("clicks.csv")
log_of(2_000 if SMALL else 5_000, rng).write_csv("newer.csv")
pl.read_csv("clicks.csv").head()

# %% [markdown]
# ## What does the file hold?
#
# `data describe` finds the columns by their names, checks every row, and says what can be learned.

# %%
recsys_rl("data describe clicks.csv")

# %% [markdown]
# ## Learn
#
# `reinforce` weighs each logged decision by what came of it, and by how likely the old policy was to make
# it. A part of the users is held out; the last table judges the new policy on them.

# %%
few = " --total-timesteps 9600 --hidden-dims 32" if SMALL else ""
recsys_rl("train --algo reinforce --log clicks.csv --name first" + few)

# %% [markdown]
# ## Judge on a later week
#
# `ope` (off-policy evaluation) estimates what the policy would have earned for the visitors of a log that it
# has not seen. `dr`, doubly robust, is the recommended row for single decisions.

# %%
fewer = " --no-world" if SMALL else ""
recsys_rl("ope --log newer.csv --checkpoint runs/first/reinforce.pt" + fewer)

# %% [markdown]
# In Python a data frame is a log, too, and the answer is an object. Here the same week, with the visitors at
# a desk alone:

# %%
desk = pl.read_csv("newer.csv").filter(pl.col("context.device") == "desk")
result = ope(log=desk, checkpoint="runs/first/reinforce.pt", world=False)
result.to_frame().select("policy", "estimator", "value", "low", "high", "ess")

# %% [markdown]
# ## Serve
#
# The server answers over HTTP, and records each decision with its probability. Its record is a log again.

# %%
command = "serve --checkpoint runs/first/reinforce.pt --db clicks.sqlite --port 0 --deadline-ms 30000"
server = subprocess.Popen(
    [sys.executable, "-m", "recsys_rl.cli", *command.split()],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
)
atexit.register(server.terminate)  # it ends with this program, whatever happens
address = ""
while not address:  # its first lines name the address
    line = server.stdout.readline()
    assert line, "the server ended"
    address = next((word.rstrip("/.,") for word in line.split() if word.startswith("http://")), "")


def post(path, body):
    """The answer to a request."""
    request = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


# %%
young = {"age": 20.0, "hour": 21.0, "device": "phone"}
old = {"age": 75.0, "hour": 9.0, "device": "desk"}
for user, context in (("u1", young), ("u2", young), ("u3", old), ("u4", old)):
    answer = post("/v1/recommend", {"user_id": user, "n": 1, "context": context})
    item = answer["items"][0]
    print(f"{context}: {item['item_id']} ({item['propensity']:.1%})")

# %% [markdown]
# A click is an event of that decision. The server answers when the event is in its record.

# %%
click = {"decision_id": answer["decision_id"], "signal": "clicked", "value": 1.0}
done = post("/v1/feedback", {"events": [click]})
server.terminate()
server.wait()
assert len(done["results"]) == 1
print(done)

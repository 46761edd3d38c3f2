# %% [markdown]
# # Train and judge
#
# A policy learns to recommend to simulated users, and a table compares it with what a team would ship
# without learning. The users of `satiation` tire of similar items, lose patience with disappointing ones,
# and leave. The full run takes about a minute on one core.

# %%
import os
import sys
import tempfile
from pathlib import Path

import torch

from recsys_rl import evaluate, load, updates
from recsys_rl.evaluation import learning_curve_svg, returns_chart_svg

SMALL = "SMALL" in os.environ  # a few seconds, for the tests
folder = Path(tempfile.mkdtemp())
torch.set_num_threads(1)  # in networks this small, more threads only wait for each other

# %% [markdown]
# ## Train
#
# `updates` is the loop of `recsys-rl train`. Each turn is one update of PPO: 64 users are stepped together,
# and the network learns from what they did. The items are made up, in clusters, so nothing is downloaded.
# Users are held out of training, and `eval_return_mean` is measured on training users with the most probable
# items.

# %%
sizes = {"num_items": 40, "num_users": 80} if SMALL else {"num_items": 200, "num_users": 400}
settings = {**sizes, "embedding_dim": 8, "eval_interval": 1 if SMALL else 8}
steps = 4_096 if SMALL else 150_000
curve = {"step": [], "mean": [], "low": [], "high": []}
for update in updates(
    env="satiation",
    data="clustered",
    total_timesteps=steps,
    folder=folder / "run",
    cache_dir=folder,
    quiet=True,
    **settings,
):
    if "eval_return_mean" in update.metrics:
        curve["step"].append(update.step)
        for name in ("mean", "low", "high"):
            curve[name].append(update.metrics[f"eval_return_{name}"])
        print(f"step {update.step:>7,}: return {curve['mean'][-1]:.2f}")
checkpoint = folder / "run/ppo.pt"

# %% [markdown]
# ## Judge
#
# `evaluate` reads everything from the checkpoint. Each held-out user plays one whole session with each
# policy, with the same noise for all. Rows such as `mf` (matrix factorisation) and `rule` are tuned on
# training users, and `searched` has as many steps of the simulator as PPO had. `myopic`, `informed` and
# `planner` see what no recommender sees.

# %%
table = evaluate(checkpoint, cache_dir=folder, planner=not SMALL, max_users=20 if SMALL else 1000)

# %% [markdown]
# The *yardstick* is the best row that learns no network and sees only what the policy sees. The difference
# is over the same users, and its interval covers 95 %.

# %%
for pair in table["paired"]:
    gain = f"{pair['mean']:+.2f} ({pair['low']:+.2f} to {pair['high']:+.2f})"
    print(f"{pair['policy']} minus {pair['versus']}: {gain}")

# %% [markdown]
# ## A picture
#
# The charts are those of the report (`recsys-rl evaluate --report`). Outside of a notebook they go into
# files.


# %%
def show(name, chart):
    """Show a chart in a notebook, and write it in a script."""
    (folder / f"{name}.svg").write_text(chart, encoding="utf-8")
    if "ipykernel" in sys.modules:
        from IPython.display import SVG, display

        display(SVG(chart))
    else:
        print("written:", folder / f"{name}.svg")


returns = {row["policy"]: row["return_mean"] for row in table["rows"]}
show("curve", learning_curve_svg(curve, {name: returns[name] for name in ("mf", "searched")}))
show("returns", returns_chart_svg(table["rows"], yardstick=table["yardstick"]))

# %% [markdown]
# ## Recommend
#
# The checkpoint holds the items and the settings, too. A new person likes two items, and the policy plays
# on: each item joins the history before the next place is filled.

# %%
policy = load(checkpoint)
for place in policy.recommend(likes=["item 7", "item 12"], k=5):
    print(f"{place.probability:6.1%}  {place.title}")
assert len(policy.recommend(likes=["item 7"], k=3)) == 3

"""The table on standard output, and its values for JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from recsys_rl.evaluation.columns import columns_of, values_of_each
from recsys_rl.evaluation.report.words import (
    NO_DIFFERENCE,
    fewer_users,
    has_lives,
    in_doubt,
    people,
    session,
)
from recsys_rl.evaluation.table import Played
from recsys_rl.types import World
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.terminal import say


def print_table(result: Mapping[str, Any], heading: str, total_users: int) -> None:
    """Print ``heading``, the users, the rows, the differences to the yardstick and the shares.

    ``total_users``: the number of held-out users, of which the table may have played some only; 0 for
    episodes instead of users, and for a table of several seeds.
    """
    say(heading)
    say(_users(result, total_users))
    print()
    width = max(14, *(len(row["policy"]) + 1 for row in result["rows"]))
    columns = columns_of(result["rows"])
    numbers = "".join(f"{column.console_head:>{column.width}}" for column in columns)
    print(f"{'policy':<{width}}{'return':>9}  {'95 % interval':<20}{numbers}")
    most = max(row["users"] for row in result["rows"])
    for row in result["rows"]:
        alone = math.isnan(row["return_low"])  # one session
        bounds = "" if alone else f"[{row['return_low']:.3f}, {row['return_high']:.3f}]"
        fewer = "" if row["users"] == most else f"  ({row['users']:,} of {most:,} users)"
        say(
            f"{row['policy']:<{width}}{row['return_mean']:>9.3f}  {bounds:<20}"
            + "".join(column.text(row) for column in columns)
            + fewer
        )
    print()
    for name, note in result["notes"].items():
        say(f"{name}: {note}")
    if result["yardstick"]:
        best = "the best row that learns no network and sees what the agent sees"
        say(f"yardstick, {best}: {result['yardstick']}")
    over = "same seeds" if result.get("foreign") else "same users"
    if "seeds" in result:
        over = f"mean over {result['seeds']} seeds"
    sessions = result["sessions"]
    everybody = _people(result, sessions)
    gains = {(row["policy"], row["versus"]): row for row in result.get("gains", ())}
    for row in result["paired"]:
        gain, versus = gains.pop((row["policy"], row["versus"]), None), _of_each_seed(row["versus"], result)
        size = f"{row['mean']:+.3f}{_interval(row, '+')}"
        if gain is not None and not math.isnan(gain["gain"]):
            size += f", {_percent(gain)}"
        size += f", {NO_DIFFERENCE}" if in_doubt(row) else ""
        say(f"{row['policy']} minus {versus}, {over}: {size}{fewer_users(row, sessions, everybody)}")
    behind = {(row["policy"], row["versus"]) for row in result["paired"] if row["mean"] < 0}
    for row in result["shares"]:
        if row["share"] < 0 and (row["policy"], row["from"]) in behind and not in_doubt(row):
            continue  # the line above said it
        start = _of_each_seed(row["from"], result)
        share = share_text({**row, "from": start})
        say(f"{row['policy']}: {share}{fewer_users(row, sessions, everybody)}")
    for rival in dict.fromkeys(versus for _, versus in gains):
        each = (gain_text(row) for row in gains.values() if row["versus"] == rival)
        say(f"gain over {rival}, {over}: {', '.join(each)}")
    if result["regret"]:
        each = (f"{row['policy']} {row['mean']:.3f}{_interval(row)}" for row in result["regret"])
        say(f"regret to {result['regret'][0]['versus']}, summed over a session: {', '.join(each)}")


def in_short(result: Mapping[str, Any]) -> str:
    """One sentence: the best learned row beside the best row that learns no network; "" without such rows."""
    means = {row["policy"]: row["return_mean"] for row in result["rows"]}
    pairs = {row["policy"]: row for row in reversed(result["paired"])}  # the first is with the yardstick
    learned = [name for name in result["learned"] if name in means and name in pairs]
    if not learned or not result["yardstick"]:
        return ""
    best = max(learned, key=lambda name: means[name])
    pair = pairs[best]
    versus, foreign = pair["versus"], result.get("foreign", False)
    unit = session(foreign, has_lives(result["rows"]))
    theirs = means.get(versus, means[best] - pair["mean"])  # of a yardstick that differs between seeds
    count = pair["users"]
    of = f"{count:,} {'episodes' if foreign else _people(result, count)}"
    if "seeds" in result:
        of = f"{result['seeds']} seeds"
    gains = [row for row in result["gains"] if (row["policy"], row["versus"]) == (best, versus)]
    size = f"{pair['mean']:+.3f}{_interval(pair, '+')}"
    if gains and not math.isnan(gains[0]["gain"]):
        size = _percent(gains[0])
    found = f"{size} with {of}"
    if any(in_doubt(row) for row in (pair, *gains)):
        more = "" if "seeds" in result or foreign else "; more seeds show more (train --seeds 0-4)"
        found = f"with {of} this difference can't be seen{more}"
    return (
        f"{best} earns {means[best]:.2f} {unit}, and {_of_each_seed(versus, result)}, the best row without a "
        f"network, {theirs:.2f}: {found}"
    )


def gain_text(row: Mapping[str, Any]) -> str:
    """The gain of one policy as text, with its interval, and over seeds the worst of them."""
    if math.isnan(row["gain"]):
        return f"{row['policy']} without a number"
    doubt = f" ({NO_DIFFERENCE})" if in_doubt(row) else ""
    return f"{row['policy']} {_percent(row)}{doubt}"


def _percent(gain: Mapping[str, Any]) -> str:
    bounds = "" if math.isnan(gain["low"]) else f" [{gain['low']:+.1%}, {gain['high']:+.1%}]"
    worst = f", worst seed {gain['worst']:+.1%}" if "worst" in gain else ""
    return f"{gain['gain']:+.1%}{bounds}{worst}"


def _interval(row: Mapping[str, Any], sign: str = "") -> str:
    """The interval of a mean; a single session has none."""
    if math.isnan(row["low"]):
        return " (without an interval)"
    return f" [{row['low']:{sign}.3f}, {row['high']:{sign}.3f}]"


def _people(result: Mapping[str, Any], count: int) -> str:
    return people(result.get("new_users"), "everyone" in result, count)


def _users(result: Mapping[str, Any], total: int) -> str:
    everyone = total in (0, result["sessions"])
    count = result["sessions"] if everyone else total
    lives = has_lives(result["rows"])
    who = f"{_people(result, count)}, one {'life' if lives else 'session'} each"
    who = "episodes on unseen seeds" if result.get("foreign") else who
    if "seeds" in result:
        if "new_users" in result:  # the same people for each seed
            who = f"{'lives' if lives else 'sessions'}, one for each seed and user of "
            who += result["new_users"]["file"]
        return (
            f"means over {result['seeds']} seeds with 95 % intervals over seeds; {result['sessions']:,} {who}"
        )
    some, rest = ("", "") if everyone else (f" of {total:,}", " (--max-users 0 plays all)")
    line = f"{result['sessions']:,}{some} {who}{rest}"
    if any(row["users"] < result["sessions"] for row in result["rows"]):
        line += "; some rows have fewer (--full plays all)"
    return line


def share_text(row: Mapping[str, Any]) -> str:
    """The share of the way of one policy as text, with its interval if it has one."""
    way = f"the way from {row['from']} to {row['to']}"
    if math.isnan(row["share"]):
        return f"no share of {way}, as {row['to']} does not lie above {row['from']}"
    if in_doubt(row):
        return f"{NO_DIFFERENCE} to {row['from']}: {row['share']:.1%} of {way} {_percents(row)}"
    if row["share"] < 0:  # the size says little: it is large where the way is short
        return f"nothing of {way}: it lies below {row['from']}"
    if math.isnan(row["low"]):
        return f"{row['share']:.1%} of {way}, without an interval"
    return f"{row['share']:.1%} of {way} {_percents(row)}"


def _percents(row: Mapping[str, Any]) -> str:
    return f"[{row['low']:.1%}, {row['high']:.1%}]"


def _of_each_seed(name: str, result: Mapping[str, Any]) -> str:
    """The name of a row; of a yardstick that differs between seeds, "a/b", a text about it."""
    if any(row["policy"] == name for row in result["rows"]):
        return name
    return f"the yardstick of each seed ({' or '.join(name.split('/'))})"


def without_nan(value: Any) -> Any:
    """``value`` with None in place of NaN, as JSON has no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    return [without_nan(entry) for entry in value] if isinstance(value, list) else value


def values_of_seed(seed: int, world: World, users: Tensor, played: Mapping[str, Played]) -> dict[str, Any]:
    """The values of the table of one seed, as ``--json`` writes them.

    Each list of a row has a value for each of the ``users`` (U,); null where the policy did not play the
    user, as the planners play some of them only. Rows without users of data have the seed of each episode.
    """
    ids = users.tolist() if world.is_empty else [world.population.id_of(row) for row in users.tolist()]

    def of_all(places: Tensor, values: Tensor | Mapping[str, Tensor]) -> Any:
        if isinstance(values, Mapping):
            return {name: of_all(places, of_name) for name, of_name in values.items()}
        every: list[float | None] = [None] * len(ids)
        for place, value in zip(places.tolist(), values.tolist(), strict=True):
            every[place] = value
        return every

    rows = []
    for name, one in played.items():
        returns = one.sessions.returns
        values = {"return": returns, **values_of_each(one.sessions, world.catalogue)}
        lists = {f"{key}s": of_all(one.places, of_key) for key, of_key in values.items()}
        rows.append({"policy": name, "return_mean": interval(returns).mean, **lists})
    return {"seed": seed, "users": ids, "rows": rows}


def as_csv(seeds: Sequence[Mapping[str, Any]]) -> str:
    """``values_of_seed`` of all seeds as the text of a CSV file: a line for each session that was played."""

    def columns(row: Mapping[str, Any]) -> dict[str, Sequence[float | None]]:
        lists: dict[str, Sequence[float | None]] = {}
        for key, values in row.items():
            if isinstance(values, Mapping):
                lists |= {f"{key[:-1]}.{name}": of_name for name, of_name in values.items()}
            elif isinstance(values, list):
                lists[key[:-1]] = values
        return lists

    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["seed", "policy", "user", *columns(seeds[0]["rows"][0])])
    for seed in seeds:
        for row in seed["rows"]:
            for user, *values in zip(seed["users"], *columns(row).values(), strict=True):
                if values[0] is not None:
                    lines.writerow([seed["seed"], row["policy"], user, *values])
    return text.getvalue()

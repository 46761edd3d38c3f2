"""The numbers of the table, worked by hand: yardstick, differences, shares, means over seeds."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.evaluation import columns
from recsys_rl.evaluation.columns import Column, distinct_items
from recsys_rl.evaluation.printing import (
    as_csv,
    in_short,
    print_table,
    share_text,
    values_of_seed,
    without_nan,
)
from recsys_rl.evaluation.report.page import Page
from recsys_rl.evaluation.report.returns_table import returns_html
from recsys_rl.evaluation.table import (
    Played,
    mean_over_seeds,
    mean_rows,
    share_of_way,
    summarise,
)
from recsys_rl.experience.rollout import Sessions
from recsys_rl.types import World
from tests.tiny_world import tiny_catalogue


def sessions(*returns: float) -> Sessions:
    """Sessions of one step, with these returns."""
    n = len(returns)
    rewards = torch.tensor([returns], dtype=torch.float32)
    return Sessions(torch.zeros(1, n, 1, dtype=torch.int64), rewards, torch.zeros(n, dtype=torch.bool))


def whole(*returns: float) -> Played:
    return Played(sessions(*returns), torch.arange(len(returns)))


def example() -> dict[str, Played]:
    """Four users, of whom the planner has played the second and the fourth."""
    return {
        "ppo": whole(2, 3, 2, 5),
        "ppo-greedy": whole(2, 4, 2, 4),
        "ranker": whole(1, 2, 1, 4),
        "ranker-greedy": whole(1, 2, 1, 4),
        "untrained": whole(9, 9, 9, 9),
        "mine": whole(0, 1, 0, 3),
        "random": whole(0, 1, 0, 1),
        "mf": whole(1, 2, 1, 2),
        "rule": Played(sessions(2, 1, 2, 0), torch.arange(4), note="six weights"),
        "myopic": whole(9, 9, 9, 9),
        "planner": Played(sessions(5, 7), torch.tensor([1, 3])),
    }


def found() -> dict[str, Any]:
    return summarise("satiation", example(), ["ppo", "ranker"], ["mine"], tiny_catalogue())


def test_rows_state_their_users() -> None:
    rows = {row["policy"]: row for row in found()["rows"]}
    assert {name: row["users"] for name, row in rows.items() if row["users"] != 4} == {"planner": 2}
    assert (rows["planner"]["return_mean"], rows["ppo"]["return_mean"]) == (6, 3)
    assert rows["ppo"]["coverage"] == pytest.approx(1 / 3) and rows["ppo"]["distinct_mean"] == 1
    # Student's t of 97.5 % with 3 degrees of freedom is 3.182; the deviation of 2, 3, 2, 5 is sqrt(2).
    assert rows["ppo"]["return_high"] == pytest.approx(3 + 3.1824 * math.sqrt(2) / 2, abs=1e-4)
    assert found()["sessions"] == 4
    assert found()["notes"] == {"rule": "six weights"}


def test_gains_over_searched_rows_by_hand() -> None:
    """ppo earns 2, 3, 2, 5 and the rule 2, 1, 2, 0: 12 / 5 - 1; no row `searched`, so no gain over it."""
    (gain,) = [row for row in found()["gains"] if row["policy"] == "ppo"]
    assert gain["versus"] == "rule" and gain["gain"] == pytest.approx(1.4)
    # 2 - 2.4 x 2, 3 - 2.4, 2 - 2.4 x 2, 5: the deviation over 1.25 and the root of 4, times t.
    rest = torch.tensor([-2.8, 0.6, -2.8, 5.0])
    half = 3.18245 * rest.std().item() / 1.25 / 2
    assert (gain["low"], gain["high"]) == pytest.approx((1.4 - half, 1.4 + half), abs=1e-4)
    rows = example() | {"rule": whole(0, 0, 0, 0), "searched": whole(1, 2, 1, 2.5)}
    known = summarise("satiation", rows, ["ppo"])
    gains = {row["versus"]: row["gain"] for row in known["gains"] if row["policy"] == "ppo"}
    assert known["yardstick"] == "searched"
    assert gains["searched"] == pytest.approx(12 / 6.5 - 1) and math.isnan(gains["rule"])


def test_a_users_own_policy_is_no_yardstick() -> None:
    best = example() | {"mine:POLICY": whole(9, 9, 9, 9)}
    assert summarise("satiation", best, ["ppo"], ["mine:POLICY"])["yardstick"] == "mf"


def test_yardstick_is_the_best_row_that_learns_no_network() -> None:
    """`mf` earns 1.5 and `rule` 1.25; `ranker` (2), `untrained` and `myopic` earn more but don't count."""
    assert found()["yardstick"] == "mf"
    better = example() | {"rule": whole(2, 2, 2, 2)}
    assert summarise("satiation", better, ["ppo"])["yardstick"] == "rule"
    assert (
        summarise("gym:X-v0", {n: better[n] for n in ("ppo", "ppo-greedy", "random")}, ["ppo"])["yardstick"]
        == "random"
    )


def test_differences_to_the_yardstick_and_between_checkpoints() -> None:
    pairs = {(row["policy"], row["versus"]): row["mean"] for row in found()["paired"]}
    assert pairs == {
        ("ppo", "mf"): 1.5,
        ("ppo-greedy", "mf"): 1.5,
        ("ranker", "mf"): 0.5,
        ("ranker-greedy", "mf"): 0.5,
        ("mine", "mf"): -0.5,
        ("ppo", "ranker"): 1.0,
        ("ppo-greedy", "ranker-greedy"): 1.0,
    }


def test_share_uses_the_users_of_the_planner() -> None:
    """Of users 1 and 3: mf 2, 2; planner 5, 7; ppo 3, 5: (1 + 3) / (3 + 5) of the way."""
    shares = {row["policy"]: row for row in found()["shares"]}
    assert list(shares) == ["ppo", "ppo-greedy", "ranker", "ranker-greedy", "mine"]
    assert {(row["from"], row["to"]) for row in shares.values()} == {("mf", "planner")}
    assert shares["ppo"]["share"] == 0.5 and shares["ranker"]["share"] == 0.25
    assert shares["mine"]["share"] == 0.0  # (1 - 2 + 3 - 2) / 8


def test_interval_of_a_share_by_hand() -> None:
    """Gains 1, 3, 2; ways 4, 4, 4: share 1/2, and gain - share * way is -1, 1, 0: deviation 1."""
    start = torch.tensor([1.0, 2.0, 3.0])
    share, low, high = share_of_way(start + torch.tensor([1.0, 3.0, 2.0]), start, start + 4)
    half = 4.30265 * 1 / (math.sqrt(3) * 4)  # Student's t of 97.5 % with 2 degrees of freedom
    assert (share, low, high) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-5)


def test_interval_of_a_share_holds_the_truth_95_times_in_100() -> None:
    """The true share is 0.6; 400 draws of 100 users. Three standard errors of 0.95 are 0.033."""
    rng, hits = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        start = torch.randn(100, generator=rng)
        way = 2 + torch.randn(100, generator=rng)
        gain = 1.2 + 0.5 * (way - 2) + torch.randn(100, generator=rng)
        _, low, high = share_of_way(start + gain, start, start + way)
        hits += low <= 0.6 <= high
    assert abs(hits / 400 - 0.95) < 0.033


def test_share_without_a_gap_to_the_reference() -> None:
    start = torch.tensor([1.0, 2.0, 3.0])
    assert all(math.isnan(x) for x in share_of_way(start + 1, start, start))
    assert all(math.isnan(x) for x in share_of_way(start + 1, start, start - 1))
    assert all(math.isnan(x) for x in share_of_way(start + 1, start, start * (1 + 2e-7)))  # by rounding
    share, low, high = share_of_way(start + 1, start, start + torch.tensor([9.0, -1.0, 1.0]))
    assert share == pytest.approx(1 / 3) and math.isnan(low) and math.isnan(high)  # a way that may be none


def test_distinct_items_by_hand() -> None:
    items = torch.tensor([[3, 0, 5], [3, 1, 5], [2, 0, -1], [3, 2, -1]]).unsqueeze(-1)  # (T, N, 1)
    assert distinct_items(items).tolist() == [2, 3, 1]
    several = Sessions(items, torch.ones(4, 3), torch.zeros(3, dtype=torch.bool))
    assert several.lengths.tolist() == [4, 4, 2]


def seed_tables() -> list[dict[str, Any]]:
    """ppo earns 3 and 5, mf 1 and 2, rule 2 and 1, the planner 6 and 6: each seed has its own yardstick."""
    values = [(3.0, 1.0, 2.0, 6.0), (5.0, 2.0, 1.0, 6.0)]
    names = ("ppo", "mf", "rule", "planner")
    tables = []
    for row in values:
        played = {name: whole(value, value + 0.1) for name, value in zip(names, row, strict=True)}
        played["ppo-greedy"] = played["ppo"]
        tables.append(summarise("satiation", played, ["ppo"]))
    return tables


def test_mean_over_seeds_by_hand() -> None:
    mean = mean_over_seeds(seed_tables())
    ppo = mean["rows"][0]
    assert (mean["seeds"], mean["sessions"], ppo["users"]) == (2, 4, 4)
    assert ppo["return_mean"] == pytest.approx(4.05) and ppo["worst"] == pytest.approx(3.05)
    # Two seeds: Student's t of 97.5 % with 1 degree of freedom is 12.706, times 2 / 2.
    assert ppo["return_high"] - ppo["return_mean"] == pytest.approx(12.7062, abs=1e-3)
    assert mean["yardstick"] in ("mf", "rule")  # 1.5 each
    difference = mean["paired"][0]  # 3 - 2 and 5 - 2, to each seed's own yardstick
    assert difference["mean"] == pytest.approx(2.0) and difference["versus"] == "rule/mf"
    gain = mean["gains"][0]  # 3.05 / 2.05 - 1 and 5.05 / 1.05 - 1
    assert gain["gain"] == pytest.approx((1.0 / 2.05 + 4.0 / 1.05) / 2)
    assert gain["worst"] == pytest.approx(1.0 / 2.05)
    share = mean["shares"][0]  # 1 / 4 and 3 / 4
    assert share["share"] == pytest.approx(0.5) and (share["from"], share["to"]) == ("rule/mf", "planner")


def test_a_yardstick_of_each_seed_is_printed_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(mean_over_seeds(seed_tables()), "satiation, ppo", 0)
    said = capsys.readouterr().out
    assert "ppo minus the yardstick of each seed (rule or mf), mean over 2 seeds: +2.000 [" in said
    # Shares of 1/4 and 3/4 and differences of 1 and 3: two seeds show nothing.
    assert "no difference seen to the yardstick of each seed (rule or mf): 50.0% of the way" in said
    assert said.count("no difference seen") >= 4
    assert "rule/mf" not in said
    print_table(seed_tables()[0], "satiation, ppo", 0)
    assert "ppo minus rule, same users: " in capsys.readouterr().out


def test_a_table_of_one_user_has_no_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    played = {"ppo": whole(2), "ppo-greedy": whole(3), "mf": whole(1), "oracle": whole(4)}
    print_table(summarise("drift", played, ["ppo"]), "drift, ppo", 0)
    said = capsys.readouterr().out
    assert "nan" not in said
    assert "ppo minus mf, same users: +1.000 (without an interval)\n" in said
    assert "regret to oracle, summed over a session: ppo 2.000 (without an interval), " in said


def test_regret_is_the_paired_difference_to_the_oracle(capsys: pytest.CaptureFixture[str]) -> None:
    played = {"ppo": whole(2, 3, 2, 5), "ppo-greedy": whole(2, 4, 2, 4), "mf": whole(1, 2, 1, 2)}
    table = summarise("drift", played | {"oracle": whole(4, 5, 5, 6)}, ["ppo"])
    rows = {row["policy"]: row for row in table["regret"]}
    assert list(rows) == ["ppo", "ppo-greedy", "mf"] and rows["ppo"]["versus"] == "oracle"
    assert rows["ppo"]["mean"] == 2.0  # of 2, 2, 3, 1
    # Student's t of 97.5 % with 3 degrees of freedom is 3.182, times sqrt(2 / 3) / 2.
    assert rows["ppo"]["high"] == pytest.approx(2 + 3.1824 * math.sqrt(2 / 3) / 2, abs=1e-3)
    print_table(table, "drift, ppo", 4)
    line = "regret to oracle, summed over a session: ppo 2.000 [0.701, 3.299], ppo-greedy 2.000 ["
    assert f"\n{line}" in capsys.readouterr().out
    better = {"ppo": whole(4, 5, 5, 4), "mf": whole(1, 2, 1, 2), "oracle": whole(4, 5, 5, 6)}
    better["ppo-greedy"] = better["ppo"]
    mean = mean_over_seeds([table, summarise("drift", better, ["ppo"])])
    regrets = {row["policy"]: row["mean"] for row in mean["regret"]}
    assert regrets == {"ppo": 1.25, "ppo-greedy": 1.25, "mf": 3.5}
    assert found()["regret"] == []  # a planner only searches for the best


def test_mean_rows_exclude_policies_missing_on_a_seed() -> None:
    one = [{"policy": "ppo", "return_mean": 1.0, "length_mean": 4.0}]
    two = [{"policy": "ppo", "return_mean": 3.0, "length_mean": 6.0}, {"policy": "mf", "return_mean": 9.0}]
    (row,) = mean_rows([one, two])
    assert (row["return_mean"], row["worst"], row["length_mean"]) == (2.0, 1.0, 5.0)
    assert [row["policy"] for row in mean_rows([two, one])] == ["ppo"]


def test_mean_rows_have_each_number_of_a_row_and_of_its_groups() -> None:
    first = {"policy": "ppo", "return_mean": 1.0, "users": 5, "new": 1.0, "streams": {"a": 1.0}}
    (row,) = mean_rows([[first], [first | {"new": 4.0, "streams": {"a": 4.0}}]])
    assert (row["users"], row["new"], row["streams"]) == (10, 2.5, {"a": 2.5})


def test_printed_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(found(), "satiation, ppo", 9)
    out = capsys.readouterr().out
    assert out.startswith(
        "satiation, ppo\n4 of 9 held-out users, one session each (--max-users 0 plays all); "
        "some rows have fewer (--full plays all)\n\npolicy "
    )
    assert out.count("2 of 4 users") == 1
    best = "yardstick, the best row that learns no network and sees what the agent sees: mf"
    assert f"\nrule: six weights\n{best}\n" in out
    assert "\nppo minus mf, same users: +1.500 [" in out and "\nppo minus ranker, same users: +1.000 [" in out
    # The difference is over four users, the share over the planner's two.
    way = "ppo: 50.0% of the way from mf to planner, without an interval, over 2 of 4 held-out users"
    assert way in out.splitlines()
    assert "over" not in next(line for line in out.splitlines() if line.startswith("ppo minus mf"))[30:]
    (planner,) = (line for line in out.splitlines() if line.startswith("planner "))
    assert planner.endswith("(2 of 4 users)")
    assert "\ngain over rule, same users: ppo +140.0% [" in out
    print_table(mean_over_seeds(seed_tables()), "satiation, ppo", 0)
    out = capsys.readouterr().out
    assert ", worst seed +48.8% (no difference seen), ppo-greedy " in out
    assert "\nmeans over 2 seeds with 95 % intervals over seeds; 4 held-out users, one session each\n" in out
    assert "\nppo minus the yardstick of each seed (rule or mf), mean over 2 seeds: +2.000 [" in out


def test_json_has_no_nan() -> None:
    table = without_nan({"a": [math.nan, 1.0], "b": {"c": math.inf}})
    assert json.loads(json.dumps(table, allow_nan=False)) == {"a": [None, 1.0], "b": {"c": None}}


def test_share_below_the_yardstick_has_no_number() -> None:
    row = {"from": "rule", "to": "planner", "share": -11.132, "low": -18.2, "high": -4.0}
    assert share_text(row) == "nothing of the way from rule to planner: it lies below rule"
    assert share_text(row | {"share": 0.5, "low": 0.4, "high": 0.6}) == (
        "50.0% of the way from rule to planner [40.0%, 60.0%]"
    )
    for share in (0.01, -0.01):  # no claim about who is ahead
        doubtful = share_text(row | {"share": share, "low": -0.31, "high": 0.33})
        assert doubtful.startswith("no difference seen") and "below" not in doubtful


def test_a_difference_to_the_yardstick_and_its_percent_are_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`searched` is the yardstick: ppo earns 12 and it 6.5, so +1.375 and +84.6 % are the same fact."""
    rows = example() | {"searched": whole(1, 2, 1, 2.5)}
    table = summarise("satiation", rows, ["ppo"], ["mine"])
    print_table(table, "satiation, ppo", 4)
    said = capsys.readouterr().out.splitlines()
    (line,) = [line for line in said if line.startswith("ppo minus searched")]
    assert "+1.375" in line and "+84.6%" in line
    assert not [line for line in said if line.startswith("gain over searched")]
    assert [line for line in said if line.startswith("gain over rule")]
    # mine earns 1, below searched: told by the difference alone.
    (mine,) = [line for line in said if line.startswith("mine") and "searched" in line]
    assert mine.startswith("mine minus searched, same users: -0.625")
    assert {row["users"] for row in table["paired"]} == {row["users"] for row in table["gains"]} == {4}
    assert {row["users"] for row in table["shares"]} == {2}
    assert {row["users"] for row in mean_over_seeds([table, table])["shares"]} == {4}


def test_one_sentence_sums_up_the_table() -> None:
    """The best learned row beside the yardstick: users, and a gain only where it can be seen."""
    found = example() | {"rule": whole(1.6, 2.4, 1.6, 4)}  # four fifths of ppo's return from each user
    said = in_short(summarise("satiation", found, ["ppo"]))
    assert all(text in said for text in ("ppo earns 3.00", " rule,", " 2.40", "+25.0%", "4 held-out users"))
    doubt = in_short(summarise("satiation", example(), ["ppo"]))  # +1.5 [-0.09, 3.09] over mf
    assert (
        " mf," in doubt
        and " 1.50" in doubt
        and "4 held-out users" in doubt
        and "%" not in doubt
        and "+" not in doubt
    )
    worse = in_short(summarise("drift", {"ppo": whole(1, 2), "mf": whole(2, 3)}, ["ppo"]))
    assert "ppo earns 1.50" in worse and " mf," in worse and " 2.50" in worse and "-1.000" in worse
    seeds = in_short(mean_over_seeds(seed_tables()))
    assert "2 seeds" in seeds and "users" not in seeds
    assert in_short(summarise("drift", {"ppo": whole(1, 2)}, ["ppo"])) == ""


def test_a_new_column_is_in_every_table_and_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One entry of COLUMNS: the rows, their mean over seeds, console, page, and values of the sessions."""
    highest = Column(
        "highest", lambda s, _: s.rewards.amax(0), "Highest", "Of {session}.", digits=2, each="top"
    )
    half = Column("half", lambda s, _: 0.5, "Half", "One half.", share=True)
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, highest, half))
    tables = [summarise("satiation", {"ppo": whole(*returns)}, ["ppo"]) for returns in ((1, 2), (3, 6))]
    assert [table["rows"][0]["highest"] for table in tables] == [1.5, 4.5]
    result = mean_over_seeds(tables)
    (row,) = result["rows"]
    assert (row["highest"], row["half"]) == (3.0, 0.5)
    print_table(result, "satiation, ppo", 0)
    head, line = (text.split() for text in capsys.readouterr().out.splitlines()[3:5])
    assert head[-2:] == ["highest", "half"] and line[-2:] == ["3.00", "50.0%"]
    page = returns_html(Page("satiation", "ppo", result["rows"], 1, 2, 0))
    assert "<td>3.00</td><td>50 %</td>" in page and "<dt>Highest</dt><dd>Of a session.</dd>" in page
    world = World(*synthetic_world(6, 5, 4, 0.2, 0))
    values = values_of_seed(0, world, torch.tensor([2, 4]), {"ppo": whole(1, 2)})
    assert as_csv([values]).splitlines()[0].endswith(",length,top") and values["rows"][0]["tops"] == [1, 2]


def test_a_column_that_one_seed_lacks_stays_without_a_number() -> None:
    one, two = ({"policy": "ppo", "return_mean": 1.0, **more} for more in ({}, {"new": 4.0}))
    for rows in ([[one], [two]], [[two], [one]]):
        assert math.isnan(mean_rows(rows)[0]["new"])

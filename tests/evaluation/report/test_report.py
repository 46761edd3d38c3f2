"""The report: exact coordinates, words and numbers, hostile titles, missing numbers, a full disk."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_rl.evaluation.report.drawing import (
    BASELINES,
    PALETTE_CSS,
    decimals,
    kind,
    number,
    scale,
    short,
    short_name,
    spread,
    ticks,
)
from recsys_rl.evaluation.report.html import write_report
from recsys_rl.evaluation.report.learning_curve import learning_curve_svg, passing
from recsys_rl.evaluation.report.page import Page
from recsys_rl.evaluation.report.returns_table import returns_chart_svg
from recsys_rl.records import PRIVILEGED
from recsys_rl.types import UserError

NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script> & \"Sons\" 'of' \x00 \ud800"


def row(policy: str, mean: float, low: float, high: float) -> dict[str, Any]:
    return {
        "policy": policy,
        "return_mean": mean,
        "return_low": low,
        "return_high": high,
        "length_mean": 19.1,
        "distinct_mean": 19.0,
        "coverage": 0.31,
    }


def session(policy: str, title: str, left: bool) -> dict[str, Any]:
    step = {
        "title": title,
        "year": 1996,
        "genres": ["Crime"],
        "reward": 0.93,
        "hidden": {"satisfaction": 0.5},
    }
    return {"policy": policy, "user": 17, "likes": [title], "return": 0.93, "left": left, "steps": [step]}


def example(**changes: Any) -> dict[str, Any]:
    report: dict[str, Any] = {
        "env": "satiation",
        "algo": "ppo",
        "data": "made up",
        "seed": 0,
        "step": 400_000,
        "heldout_users": 131,
        "hardware": "2 cores",
        "date": "2026-11-24",
        "version": "0.1.0",
        "config": {"agent_config": {"lr": 0.0003}},
        "rows": [
            row("random", 2.7, 2.3, 3.1),
            row("ppo-greedy", 16.2, 15.8, 16.6),
            row("planner", 17.7, 17, 18),
        ],
        "paired": [{"policy": "ppo-greedy", "versus": "random", "mean": 13.5, "low": 13.0, "high": 14.0}],
        "curve": {"step": [0, 100, 200], "mean": [5.0, 8.0, 10.0], "low": [4, 7, 9], "high": [6, 9, 11]},
        "sessions": [session("ppo-greedy", "Fargo", False), session("random", "Heat (1996)", True)],
    }
    return report | changes


def page_of(**changes: Any) -> Page:
    """The page of ``example`` with these changes; those of pictures are the values of theirs."""
    values = example(**changes)
    curve = {key: values.pop(key, {}) for key in ("curve", "others", "judged_by")}
    samples = {key: values.pop(key, None) for key in ("sessions", "tick")}
    pictures = {"curve": curve, "samples": samples, "categories": values.pop("categories", {})}
    return Page(**values, pictures=pictures)


def written(folder: Path, **changes: Any) -> str:
    path = folder / "new" / "report.html"
    write_report(path, page_of(**changes))
    return path.read_text(encoding="utf-8")


def parsed(page: str) -> ElementTree.Element:
    """Parse the page as XML: it is well-formed XML as well as HTML, so this finds broken markup."""
    return ElementTree.fromstring(page)


def words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


class Tags(HTMLParser):
    """The tags of a page, their addresses, and the text outside of styles, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_number_formats_of_the_page() -> None:
    assert number(1234.56, 1) == "1,234.6"
    assert number(-0.04, 1) == "0.0"
    assert number(-3, 2) == "−3.00"
    assert [number(missing, 1) for missing in (NAN, float("inf"), None, "x")] == ["–"] * 4
    assert [decimals([v]) for v in (0.5, 9.9, -17.7, 1500.0)] == [3, 2, 1, 0]
    assert [short(v) for v in (0, 500, 20_480, 1_500_000)] == ["0", "500", "20.5k", "1.5M"]


def test_scale_is_the_line_through_two_points() -> None:
    assert scale(0, 20, 300, 40)(0) == 300
    assert scale(0, 20, 300, 40)(5) == 235
    assert scale(-10, 10, 0, 100)(2) == pytest.approx(60)


def test_ticks_are_round_and_enclose_the_range() -> None:
    assert ticks(0, 17.7, 4) == [0, 5, 10, 15, 20]
    assert ticks(-0.31, 0.22, 3) == [-0.4, -0.2, 0, 0.2, 0.4]
    assert ticks(0, 400_000, 4) == [0, 100_000, 200_000, 300_000, 400_000]


def test_touching_labels_are_spread_around_their_centre() -> None:
    assert spread([100, 50, 104], 16) == [94, 50, 110]
    assert spread([50, 50, 60], 10) == pytest.approx([130 / 3, 160 / 3, 190 / 3])


def test_axis_without_two_round_steps_labels_its_ends() -> None:
    curve = {"step": [20_480, 38_912], "mean": [5, 8], "low": [4, 7], "high": [6, 9]}
    root = ElementTree.fromstring(learning_curve_svg(curve, {}, width=358))
    named = [words(t) for t in root.iter(SVG + "text") if t.get("class") == "muted middle"]
    assert named == ["20.5k", "38.9k steps"]


@given(st.lists(st.floats(0, 500), max_size=9), st.floats(1, 20))
def test_spread_labels_never_overlap_and_keep_their_order_and_centre(places: list[float], gap: float) -> None:
    moved = spread(places, gap)
    assert sum(moved) == pytest.approx(sum(places), abs=1e-6)
    order = sorted(range(len(places)), key=places.__getitem__)
    for above, below in pairwise(order):
        assert moved[below] - moved[above] >= gap - 1e-6


def test_curve_coordinates_match_its_numbers() -> None:
    # y: 0 .. 20 over 306 .. 40 pixels, so 13.3 pixels per unit. x: the left edge is 14 + 2 letters of 8.2,
    # the right one 734 - 12 letters ("planner 17.7") of 8.2: 30.4 .. 635.6.
    curve = {"step": [0, 100, 200], "mean": [5, 8, 10], "low": [4, 7, 9], "high": [6, 9, 11]}
    root = ElementTree.fromstring(learning_curve_svg(curve, {"planner": 17.7}, name="ppo", width=760))
    lines = {part.get("class"): part.get("points") for part in root if part.get("points")}
    assert lines["curve"] == "30.4,239.5 333.0,199.6 635.6,173.0"
    assert lines["band"] == "30.4,226.2 333.0,186.3 635.6,159.7 635.6,186.3 333.0,212.9 30.4,252.8"
    reference = next(line for line in root.iter(SVG + "line") if line.get("class") == "reference inside")
    assert (reference.get("y1"), reference.get("y2")) == ("70.6", "70.6")
    assert [words(label) for label in root.iter(SVG + "text")][-2:] == ["ppo 10.0", "planner 17.7"]
    assert root.get("aria-label") == (
        "Learning curve of ppo: mean return 5.0 at step 0, 10.0 at step 200. References: planner 17.7."
    )


def test_curve_is_sorted_by_step_and_skips_non_finite_points() -> None:
    good = {"step": [0, 100], "mean": [5, 8], "low": [4, 7], "high": [6, 9]}
    mixed: dict[str, list[float]] = {
        "step": [50, 100, 0],
        "mean": [NAN, 8, 5],
        "low": [1, 7, 4],
        "high": [9, 9, 6],
    }
    assert learning_curve_svg(mixed, {"oracle": NAN}) == learning_curve_svg(good, {})


@pytest.mark.parametrize("steps", [[], [7], [7, 7]])
def test_curve_of_fewer_than_two_steps_is_refused(steps: list[float]) -> None:
    with pytest.raises(UserError):
        learning_curve_svg(dict.fromkeys(("step", "mean", "low", "high"), steps), {})


@pytest.mark.parametrize("level", [0.0, -5.0, 3.0])
def test_flat_and_negative_curves_stay_inside_the_picture(level: float) -> None:
    flat = [level, level]
    root = ElementTree.fromstring(
        learning_curve_svg({"step": [0, 1], "mean": flat, "low": flat, "high": flat}, {})
    )
    points = next(part.get("points", "") for part in root if part.get("class") == "curve")
    assert all(40 <= float(point.split(",")[1]) <= 306 for point in points.split())


def bars(svg: str) -> list[tuple[float, float]]:
    """(left edge, width) of each bar, without the legend's squares."""
    drawn = [r for r in ElementTree.fromstring(svg).iter(SVG + "rect") if r.get("height") == "14"]
    return [(float(r.get("x", "")), float(r.get("width", ""))) for r in drawn]


def test_bars_start_at_zero_with_the_best_policy_first() -> None:
    # Narrow: zero at 16, the greatest end (20) at 358 - 16 = 342, so 16.3 pixels per unit.
    svg = returns_chart_svg([row("random", 5, 4, 6), row("ppo", 10, 0, 20)], width=358)
    assert bars(svg) == [(16.0, 163.0), (16.0, 81.5)]
    whiskers = re.findall(r'class="whisker" d="M([\d.]+) [\d.]+H([\d.]+)M', svg)
    assert whiskers == [("16.0", "342.0"), ("81.2", "113.8")]
    assert [words(t) for t in ElementTree.fromstring(svg).iter(SVG + "text")] == [
        "ppo", "10.00.0 to 20.0", "random", "5.04.0 to 6.0", "learned", "no reinforcement learning",
    ]  # fmt: skip


def test_negative_returns_grow_leftwards_from_zero() -> None:
    svg = returns_chart_svg([row("ppo", -10, -10, -10), row("random", -20, -20, -20)], width=358)
    assert bars(svg) == [(179.0, 163.0), (16.0, 326.0)]


def test_long_name_is_cut() -> None:
    assert short_name("x" * 22) == "x" * 22 and short_name("x" * 23) == "x" * 21 + "…"
    drawn = bars(returns_chart_svg([row("x" * 90, 5, 4, 6)], width=760))
    assert drawn[0][0] == 208.4  # 28 + 22 letters of 8.2


def test_policy_without_a_number_keeps_its_row() -> None:
    svg = returns_chart_svg([row("oracle", NAN, NAN, NAN), row("random", 5, NAN, 6)])
    assert len(bars(svg)) == 1 and "whisker" not in re.sub("<style>.*?</style>", "", svg, flags=re.DOTALL)
    assert ElementTree.fromstring(svg).get("aria-label") == (
        "Mean return and 95 % interval by policy: random 5.00 (no interval); oracle – (no interval)."
    )
    with pytest.raises(UserError):
        returns_chart_svg([row("ppo", NAN, NAN, NAN)])


def test_colours_have_contrast_in_both_schemes() -> None:
    """WCAG 2: text has a contrast of at least 4.5 to its background, bars at least 3."""

    def luminance(colour: str) -> float:
        digits = colour if len(colour) == 6 else "".join(2 * d for d in colour)
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    schemes = PALETTE_CSS.split("@media (prefers-color-scheme:dark)")
    assert len(schemes) == 2
    for scheme in schemes:
        light = {name: luminance(colour) for name, colour in re.findall(r"--(\w+):#(\w+)", scheme)}
        for ground in ("surface", "page"):
            for name, least in {"ink": 7, "muted": 4.5, "learned": 4.5, "inside": 4.5, "baseline": 3}.items():
                above, below = sorted((light[name], light[ground]), reverse=True)
                assert (above + 0.05) / (below + 0.05) >= least, (name, ground)


def test_headline_names_the_policy_and_its_return(tmp_path: Path) -> None:
    root = parsed(written(tmp_path))
    assert words(next(root.iter("h1"))) == (
        "ppo-greedy, trained for 400,000 steps on satiation, earns 16.2 per session from 131 held-out "
        "users; the best simple baseline, random, earns 2.7, and the planner, which sees inside the "
        "simulator, 17.7."
    )
    assert words(next(root.iter("li"))) == (
        "ppo-greedy against random: +13.50 per session (95 % interval +13.00 to +14.00)."
    )
    table = [[words(cell) for cell in line] for line in next(root.iter("table")).iter("tr")]
    assert table[0] == ["Policy", "Return", "95 % interval", "Length", "Distinct", "Coverage"]
    assert table[2] == ["ppo-greedy", "16.2", "15.8 to 16.6", "19.1", "19.0", "31 %"]


def test_curve_of_a_log_names_its_estimator(tmp_path: Path) -> None:
    curve = {"step": [0, 9], "mean": [1.0, 2.0], "low": [0.5, 1.5], "high": [1.5, 2.5]}
    page = written(tmp_path, curve=curve, others={"log": curve, "world": curve}, judged_by="<world>")
    assert "the estimate of ope, by &lt;world&gt;, for held-out users of a log" in page
    assert "the estimate of ope for held-out users" in written(tmp_path, curve=curve, others={"log": curve})


def test_gymnasium_report_has_episodes_and_no_empty_columns(tmp_path: Path) -> None:
    rows = [row("a2c", -190, -220, -160) | {"distinct_mean": None, "coverage": NAN}]
    paired = [{"policy": "a2c", "versus": "random", "mean": -1.0, "low": -3.0, "high": 1.0}]
    other = {"foreign": True, "sessions": []}
    page = written(tmp_path, env="gym:Pendulum-v1", algo="a2c", rows=rows, paired=paired, **other)
    root = parsed(page)
    headline = words(next(root.iter("h1")))
    assert headline.startswith("a2c, trained for ")
    assert headline.endswith("gym:Pendulum-v1, earns −190.0 per episode on unseen seeds.")
    assert [words(cell) for cell in next(root.iter("tr"))] == ["Policy", "Return", "95 % interval", "Length"]
    assert "<b>−1.00</b> per episode (95 % interval −3.00 to +1.00), no difference seen." in page
    assert "session" not in re.sub("<style>.*?</style>", "", page, flags=re.DOTALL)


def test_sessions_show_return_end_and_a_strip_of_bars(tmp_path: Path) -> None:
    root = parsed(written(tmp_path))
    sessions = [s for s in root.iter("section") if s.get("class") == "session"]
    assert [words(s) for s in sessions] == [
        "ppo-greedyreturn 0.9, stayed to the end",
        "randomreturn 0.9, left after step 1",
    ]
    assert [h.text for h in root.iter("h3")].count("User 17") == 1
    assert "Nearest to the profile of this user: Fargo." in [words(note) for note in root.iter("p")]
    assert [bar.get("style") for bar in sessions[0].iter() if bar.tag in "iu"] == ["height:93%", "bottom:50%"]


def test_user_who_leaves_at_the_last_step_has_stayed_to_it(tmp_path: Path) -> None:
    """Planning spends the last patience at the last step: nothing is lost, so nothing is in bold."""
    ends = [session("ppo", "Fargo", True) | {"limit": 1}, session("rule", "Fargo", True) | {"limit": 2}]
    page = written(tmp_path, sessions=ends)
    sessions = [s for s in parsed(page).iter("section") if s.get("class") == "session"]
    assert [words(s) for s in sessions] == [
        "pporeturn 0.9, all 1 steps, left at the last",
        "rulereturn 0.9, left after step 1",
    ]
    assert [[b.get("class") for b in s.iter("span") if b.get("class")] for s in sessions] == [[], ["left"]]
    assert "A user who leaves at the last step has missed nothing" in page
    assert [words(card) for card in folded(page).iter("li")].count("The user left") == 1
    assert "has missed nothing" not in written(tmp_path)


def test_ticks_have_a_line_at_one_half(tmp_path: Path) -> None:
    root = parsed(written(tmp_path))
    assert [line.get("style") for line in root.iter("hr")] == ["bottom:50%"] * 2
    assert "the dashed line is at one half" in written(tmp_path)
    without = session("ppo", "Fargo", True)
    without["steps"][0]["hidden"] = {}
    assert "<hr" not in written(tmp_path, sessions=[without])
    large = session("ppo", "Fargo", True)
    large["steps"][0]["reward"] = 2.0  # bars and ticks have one scale
    assert next(parsed(written(tmp_path, sessions=[large])).iter("hr")).get("style") == "bottom:25%"


def test_name_of_a_hidden_signal_is_no_markup(tmp_path: Path) -> None:
    odd = session("ppo", "Fargo", True)
    odd["steps"][0]["hidden"] = {"<b>joy</b>": 0.5}
    page = written(tmp_path, sessions=[odd])
    assert "<b>joy</b>" not in page and "&lt;b&gt;joy&lt;/b&gt; 0.50" in page


def folded(page: str) -> ElementTree.Element:
    """The fold with the items of the only user."""
    return next(d for d in parsed(page).iter("details") if d.get("class") == "items")


def test_items_are_folded_with_their_rewards(tmp_path: Path) -> None:
    items = folded(written(tmp_path))
    assert items.get("open") is None
    assert [words(card) for card in items.iter("li")] == [
        "step 1Fargo1996 · Crimereward 0.93satisfaction 0.50",
        "step 1Heat (1996)Crimereward 0.93satisfaction 0.50",
        "The user left",
    ]


def bare(title: str, reward: float, genres: list[str]) -> dict[str, Any]:
    return {"title": title, "year": None, "genres": genres, "reward": reward, "hidden": {}}


def test_repeated_item_is_one_card_with_means(tmp_path: Path) -> None:
    steps = [bare("Fargo", 0.5, []), bare("Fargo", 1.0, []), bare("Heat", 0.2, [])]
    items = folded(written(tmp_path, sessions=[session("ppo", "", False) | {"steps": steps}]))
    assert [words(card) for card in items.iter("li")] == [
        "step 1 to 2Fargoreward 0.75",
        "step 3Heatreward 0.20",
    ]


def test_items_without_titles_show_their_attributes_or_are_counted(tmp_path: Path) -> None:
    attributes = [bare("item 554", 0.5, ["Crime", "Drama"])]
    items = folded(written(tmp_path, sessions=[session("ppo", "item 3", False) | {"steps": attributes}]))
    assert [words(card) for card in items.iter("li")] == ["step 1Crime, Dramaitem 554reward 0.50"]
    plain = [bare("item 554", 0.5, [])] * 20
    page = written(
        tmp_path,
        sessions=[
            session("ppo", "item 3", False) | {"steps": plain},
            session("random", "item 3", False) | {"steps": [*plain, bare("item 7", 0.1, [])]},
        ],
    )
    assert [words(note) for note in folded(page).iter("p")] == [
        "20 steps, the same item each time, without a title.",
        "21 steps, 2 different items, without a title.",
    ]
    assert "item 554" not in page and "Nearest to the profile" not in page


def slate(title: str, place: int | None, **more: Any) -> dict[str, Any]:
    genres = ["Crime"] if title and not title.startswith("item ") else []
    step = bare(title, 0.2, genres) | {
        "place": place,
        "places": 6,
        "goes_on": "",
        "events": [],
        "visible": {},
    }
    return step | more


def test_slates_show_the_chosen_item_and_what_ended(tmp_path: Path) -> None:
    ended = {"title": "Fargo", "visible": {"completion": 0.75, "clicked": 1.0}}
    steps = [
        slate("Fargo", 2, visible={"clicked": 1.0}, hidden={"chance": 0.25, "trust": 0.5}),
        slate("", None, goes_on="Fargo", hidden={"trust": 0.5}),
        slate("", None, events=[ended]),
        slate("", None),
    ]
    tick = {"name": "trust", "meaning": "the trust before the request"}
    page = written(tmp_path, sessions=[session("ppo", "", False) | {"steps": steps}], tick=tick)
    assert [words(card) for card in folded(page).iter("li")] == [
        "step 1Fargoplace 2 of 6 · Crimereward 0.20chance 0.25trust 0.50clicked 1.00",
        "step 2Fargo goes on6 items shownreward 0.20trust 0.50",
        "step 3Nothing chosen6 items shownended: Fargo, completion 0.75, clicked 1.00reward 0.20",
        "step 4Nothing chosen6 items shownreward 0.20",
    ]
    assert "and the tick is the trust before the request, which no recommender sees" in page
    strip = next(s for s in parsed(page).iter("section") if s.get("class") == "session")
    assert [u.get("style") for u in strip.iter("u")] == ["bottom:50%"] * 2


def test_lists_of_numbers_are_no_titles(tmp_path: Path) -> None:
    joined = [bare("item 136, item 158, item -7", 0.5, [])] * 20
    chosen = [slate("item 136", 1), slate("", None), slate("item 158", 3)]
    page = written(
        tmp_path,
        sessions=[
            session("ppo", "item 3", False) | {"steps": joined},
            session("random", "item 3", False) | {"steps": chosen},
        ],
    )
    assert [words(note) for note in folded(page).iter("p")] == [
        "20 steps, the same item each time, without a title.",
        "3 steps, 2 items chosen from slates, without a title.",
    ]
    assert "item 136" not in page


def definitions(page: str) -> dict[str, str]:
    root = parsed(page)
    names, meanings = ([words(e) for e in root.iter(tag)] for tag in ("dt", "dd"))
    return dict(zip(names, meanings, strict=True))


def test_every_row_and_column_is_defined(tmp_path: Path) -> None:
    names = [*PRIVILEGED, *BASELINES, "trade-up-next", "ranker", "ppo", "ppo-greedy", "my_module:Bandit"]
    rows = [row(name, 1, 0, 2) for name in names]
    found = definitions(written(tmp_path, rows=rows, yardstick="rule", notes={"mmr": "Weight 0.3."}))
    assert set(found) == {*names, "yardstick", "Return", "Length", "Distinct", "Coverage"}
    unknown = [name for name, meaning in found.items() if meaning.startswith("Given to")]
    assert unknown == ["my_module:Bandit"]
    assert found["ppo-greedy"] == "The trained policy. Always takes the most probable item."
    several = definitions(written(tmp_path, rows=rows, learned=["ppo", "ranker"]))
    assert several["ranker"].endswith(
        "(gamma 0). Draws each item with the probability that the policy gives it."
    )
    assert several["ppo-greedy"].startswith("Given to")
    assert found["mmr"].endswith("tuned on training users. Weight 0.3.")
    assert found["random"] == "Any allowed item, each with the same probability."
    episodes = [row("random", 1, 0, 2) | {"coverage": math.nan}]
    foreign = definitions(written(tmp_path, env="gym:CartPole-v1", rows=episodes, foreign=True))
    assert foreign["random"] == "Any allowed action, each with the same probability."
    assert foreign["Length"] == "Mean number of steps of an episode."


def test_many_tuned_values_are_folded_and_few_are_not(tmp_path: Path) -> None:
    many = ", ".join(f"weight {number}" for number in range(30))
    rows = [row("mmr", 1, 0, 2), row("searched", 1, 0, 2)]
    page = written(tmp_path, rows=rows, notes={"mmr": "weight 0.3", "searched": many})
    folds = [fold for fold in parsed(page).iter("details") if fold.get("class") == "tuned"]
    assert [words(fold) for fold in folds] == [f"Its numbers{many}"] and folds[0].get("open") is None
    assert definitions(page)["mmr"].endswith(" weight 0.3")


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((20, 20), "Sees the hidden user, simulates to the end of the session, and shows"),
        (
            (10, 200),
            "Sees the hidden user, simulates at most 10 of the 200 steps of a session, extrapolates the",
        ),
        (None, "Sees the hidden user, simulates sessions from here on, and shows"),
    ],
)
def test_planner_is_defined_by_the_steps_that_it_simulates(
    tmp_path: Path, steps: tuple[int, int] | None, said: str
) -> None:
    assert definitions(written(tmp_path, planner_steps=steps))["planner"].startswith(said)


def test_report_of_lives_names_lives_and_first_visits(tmp_path: Path) -> None:
    life = {
        "active_days": 3.0,
        "d1": 0.5,
        "d7": 0.4,
        "d30": 0.3,
        "churn": 0.2,
        "streams": {"skip": 1.0, "like": 2.0},
    }
    lives = written(tmp_path, rows=[row("ppo", 5, 4, 6) | life])
    assert definitions(lives)["skip"] == "Mean sum of this kind of reward over a life, without its weight."
    assert "Of each user's life, the first visit; the table is of whole lives." in words(parsed(lives))
    streams = written(tmp_path, rows=[row("ppo", 5, 4, 6) | {"streams": life["streams"]}])
    assert definitions(streams)["like"].endswith("over a session, without its weight.")
    assert "the first visit" not in words(parsed(streams))


def test_passing_is_the_step_from_which_the_curve_stays_above() -> None:
    curve = {"step": [0, 10, 20, 30], "mean": [1, 5, 3, 6], "low": [0, 4, 2, 5], "high": [2, 6, 4, 7]}
    assert [passing(curve, level) for level in (0.5, 2.5, 3.0, 5.5, 6.0)] == [0, 10, 30, 30, None]
    said = learning_curve_svg(curve, {"searched": 2.5})
    assert "It stays above searched from step 10 on." in said


def test_yardstick_and_shares_are_shown_if_given(tmp_path: Path) -> None:
    share = {"policy": "ppo", "from": "rule", "to": "planner", "share": 0.664, "low": 0.6, "high": 0.72}
    loose = share | {"policy": "ppo-greedy", "low": NAN, "high": NAN}
    none = share | {"policy": "a2c", "share": NAN}
    below = share | {"policy": "early", "share": -11.132, "low": -18.2, "high": -4.0}
    rows = [
        row("planner", 18, 17, 19),
        row("rule", 16, 15, 17),
        row("ppo", 17, 16, 18),
        row("mf", 14, 13, 15),
    ]
    page = written(tmp_path, rows=rows, yardstick="rule", shares=[share, loose, none, below])
    root = parsed(page)
    assert "; the yardstick, rule, earns 16.0, and the planner" in words(next(root.iter("h1")))
    assert [words(li) for li in root.iter("li")][1:5] == [
        "ppo closes 66 % of the way from rule to planner (95 % interval 60 to 72 %).",
        "ppo-greedy closes 66 % of the way from rule to planner (no interval).",
        "a2c: no number for the share of the way from rule to planner.",
        "early lies below rule, and so closes nothing of the way from rule to planner.",
    ]
    assert definitions(page)["yardstick"].startswith("The best of mf, rule: rule. ")
    heads = [words(th) for th in next(root.iter("tbody")).iter("th")]
    assert heads == ["planner", "ppo", "rule yardstick", "mf"]
    # Narrow: 16 is at 16 + 326 * 16 / 19 = 290.5; one dash beside each of the four bars.
    marks = re.findall(r'class="reference" d="(M290[^"]*)"', page)
    assert marks[0] == "M290.5 36v20M290.5 82v20M290.5 128v20M290.5 174v20"
    assert 'class="reference"' not in written(tmp_path, rows=rows)


def test_differences_of_one_user_have_no_interval(tmp_path: Path) -> None:
    paired = [{"policy": "ppo", "versus": "random", "mean": -1.5, "low": NAN, "high": NAN}]
    page = written(tmp_path, paired=paired)
    assert "ppo against random: <b>−1.50</b> per session (no interval)." in page


def test_intervals_of_differences_have_signs(tmp_path: Path) -> None:
    paired = [{"policy": "ppo", "versus": "rule", "mean": -1.8, "low": -2.7, "high": -0.9}]
    page = written(tmp_path, paired=paired)
    assert "ppo against rule: <b>−1.80</b> per session (95 % interval −2.70 to −0.90)." in page
    # An end that rounds to 0 keeps its sign, and an interval that holds 0 claims nothing.
    near = paired[0] | {"mean": -0.26, "low": -0.53, "high": 0.004}
    page = written(tmp_path, paired=[near])
    assert "<b>−0.26</b> per session (95 % interval −0.53 to +0.00), no difference seen." in page


def test_percent_and_difference_are_one_line_and_other_users_are_named(tmp_path: Path) -> None:
    paired = [{"policy": "ppo", "versus": "rule", "mean": 1.8, "low": 0.9, "high": 2.7, "users": 131}]
    gain = {"policy": "ppo", "versus": "rule", "gain": 0.12, "low": 0.05, "high": 0.2, "users": 131}
    other = gain | {"versus": "searched", "gain": -0.012, "low": -0.05, "high": 0.02}
    share = {"policy": "ppo", "from": "rule", "to": "planner", "share": 0.01, "low": -0.31, "high": 0.33}
    page = written(tmp_path, paired=paired, gains=[gain, other], shares=[share | {"users": 64}])
    assert [words(li) for li in parsed(page).iter("li")][:3] == [
        "ppo against rule: +1.80 per session (95 % interval +0.90 to +2.70), +12 %.",
        "ppo closes 1 % of the way from rule to planner (95 % interval −31 to 33 %), no difference seen, "
        "over 64 of 131 held-out users.",
        "ppo against searched: −1.2 % (95 % interval −5 to +2 %), no difference seen.",
    ]


def test_page_names_the_users_behind_its_numbers(tmp_path: Path) -> None:
    rows = [
        row("ppo", 5, 4, 6),
        row("planner", 9, 8, 10) | {"users": 64},
        row("myopic", 7, 6, 8) | {"users": 131},
    ]
    notes = [words(note) for note in parsed(written(tmp_path, rows=rows)).iter("p")]
    assert (
        "Means and intervals are over 131 held-out users, one whole session each, of one training run "
        "(seed 0). planner: 64 of them. The intervals don't cover the choice of the training seed."
    ) in notes
    assert any("over training users, always the same" in note for note in notes)
    # The curve and the table have different users, so no row of the table is drawn into the curve.
    curve = learning_curve_svg(example()["curve"], {}, name="ppo-greedy", width=760)
    assert curve.replace('class="chart"', 'class="chart medium"', 1) in written(tmp_path, rows=rows)


def test_data_are_escaped(tmp_path: Path) -> None:
    hostile = example(
        env=HOSTILE,
        algo=HOSTILE,
        data=HOSTILE,
        config={HOSTILE: {HOSTILE: HOSTILE}},
        rows=[row(HOSTILE, 1, 0, 2), row("random", 1, 0, 2)],
        paired=[{"policy": HOSTILE, "versus": HOSTILE, "mean": 1.0, "low": 0.5, "high": 2.0}],
        sessions=[session(HOSTILE, HOSTILE, True)],
    )
    page = written(tmp_path, **hostile)
    tags = Tags(page)
    assert "script" not in tags.tags and not [name for name, _ in tags.attributes if name.startswith("on")]
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    root = parsed(page)
    assert [title.text for title in root.iter("span") if title.get("class") == "title"] == [shown]
    assert {svg.get("class") for svg in root.iter(SVG + "svg")} == {
        f"chart {n}" for n in ("narrow", "medium", "wide")
    }


def test_page_makes_no_network_request(tmp_path: Path) -> None:
    page = written(tmp_path)
    tags = Tags(page)
    assert not {"script", "link", "img", "iframe"} & set(tags.tags)
    assert not {"src", "href", "xlink:href"} & {name for name, _ in tags.attributes}
    assert "url(" not in page and "@import" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in tags.attributes


@pytest.mark.parametrize("missing", [NAN, None])
def test_missing_numbers_become_sentences_and_dashes(tmp_path: Path, missing: float | None) -> None:
    step: dict[str, Any] = {
        "title": "Fargo",
        "year": missing,
        "genres": [],
        "reward": missing,
        "hidden": {"satisfaction": missing},
    }
    page = written(
        tmp_path,
        rows=[dict.fromkeys(row("", 0, 0, 0), missing) | {"policy": "ppo"}],
        paired=[{"policy": "ppo", "versus": "random", "mean": missing, "low": missing, "high": missing}],
        curve={"step": [0, 1], "mean": [missing, 2], "low": [1, 1], "high": [3, 3]},
        sessions=[session("ppo", "", False) | {"return": missing, "steps": [step]}],
    )
    text = words(next(parsed(page).iter("main")))
    assert "ppo has no finite return" not in text and "satiation, has no finite return." in text
    assert "fewer than two evaluations: evaluate more often to draw it. Not drawn" in text
    assert "Not drawn, without a finite number: 1 of the evaluations." in text
    assert "The returns chart has no finite return" in text
    assert "Fargoreward –" in text and "nan" not in text.lower()


def test_report_without_curve_and_sessions_is_valid(tmp_path: Path) -> None:
    root = parsed(written(tmp_path, curve={}, sessions=[], paired=[], config={}))
    assert [words(heading) for heading in root.iter("h2")] == ["Returns", "Learning curve"]


def test_second_write_replaces_the_report(tmp_path: Path) -> None:
    first = written(tmp_path)
    assert written(tmp_path, seed=7) != first and written(tmp_path) == first
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["report.html"]


def test_policy_names_have_the_right_kind() -> None:
    assert {kind(name) for name in ("ppo", "a2c-greedy", "ranker")} == {"learned"}
    assert {kind(name) for name in ("untrained", "mf", "trade-up-next", "rule")} == {"baseline"}
    assert {kind(name) for name in ("myopic", "planner", "informed")} == {"inside"}

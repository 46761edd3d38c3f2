"""The playground in chromium: each button is a request, on a phone and at a desk.

Skipped where there is no chromium.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks.pictures import browser
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.releases.canary import CanarySettings
from tests.own_logs import clicks, policy
from tests.serving.browser import Page, page
from tests.serving.live import live
from tests.serving.servers import begun, serving
from tests.serving.test_refusals import sha256
from tests.serving.test_releases import act, until
from tests.serving.test_watch import matured, visits

pytestmark = pytest.mark.skipif(browser() is None, reason="there is no chromium here")
READY = "!document.querySelector('#who button').disabled"


def visit(tab: Page, user: str) -> None:
    tab.until(f"document.querySelectorAll('#people option').length > 0 && {READY}")
    tab.run(f"document.querySelector('#user').value = {user!r}")
    tab.run("document.querySelector('#who button').click()")
    tab.until(f"document.querySelectorAll('#likeliest tr').length == 10 && {READY}")


def press(tab: Page, words: str) -> None:
    """Press the first button with these words, and wait for what it adds to the session."""
    before = tab.run("document.querySelectorAll('#visit li').length")
    tab.run(f"[...document.querySelectorAll('button')].find(x => x.textContent == {words!r}).click()")
    tab.until(f"document.querySelectorAll('#visit li').length > {before} && {READY}")


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_a_person_visits_is_answered_and_leaves(
    checkpoint: Callable[[str], Path], tmp_path: Path, width: int, dark: bool
) -> None:
    with live(checkpoint("satiation"), tmp_path / "r.sqlite") as server, page(tmp_path / "profile") as tab:
        tab.open(server.url, width, dark)
        visit(tab, "<b>ann</b>")
        for words in ("Consumed", "Half", "Skipped"):
            press(tab, words)
        assert "the same" in tab.run("document.querySelector('#why').textContent")
        assert "saw 3 items" in tab.run("document.querySelector('#why').textContent")
        assert tab.run("document.querySelector('#record tr').children[1].textContent") == "<b>ann</b>"
        press(tab, "Leave")
        assert tab.run("document.querySelectorAll('#record tr').length") == 4
        cells = "[...document.querySelectorAll('#record td')].map(x => x.getBoundingClientRect())"
        assert tab.run(f"{cells}.every(x => x.width > 0 && x.left >= 0 && x.right <= innerWidth)")
        names = "[...document.querySelectorAll('#record tr:first-child td')].map(x => x.dataset.name)"
        assert tab.run(names) == ["decision", "user", "session", "step", "items", "propensity", "events"]
        tab.picture(tmp_path / "page.png")
        assert tab.run("document.scrollingElement.scrollWidth <= innerWidth")
        assert tab.run("getComputedStyle(document.body).backgroundColor") == (
            "rgb(20, 24, 29)" if dark else "rgb(251, 250, 247)"
        )
        assert tab.said == []


def test_a_reloaded_page_lists_the_whole_session_by_titles(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    titles = "[...document.querySelectorAll('#visit li')].map(x => x.firstChild.textContent)"
    with live(checkpoint("satiation"), tmp_path / "r.sqlite") as server, page(tmp_path / "profile") as tab:
        tab.open(server.url, 390, False)
        visit(tab, "ann")
        press(tab, "Consumed")
        press(tab, "Skipped")
        before = tab.run(titles)
        shown = tab.run("document.querySelector('#items .title').textContent")
        tab.call("Page.reload")
        tab.until("document.querySelectorAll('#visit li').length == 0")
        visit(tab, "ann")
        tab.until("document.querySelectorAll('#visit li').length > 2")
        assert tab.run(titles) == [*before, shown]  # the last one was shown and had no answer
        assert tab.run("document.querySelectorAll('#record td')[4].textContent").startswith("item ")
        assert tab.said == []


def test_a_typed_like_counts_and_an_unclear_one_is_asked_for(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with live(checkpoint("satiation"), tmp_path / "r.sqlite") as server, page(tmp_path / "profile") as tab:
        tab.open(server.url, 390, True)
        tab.until(f"document.querySelectorAll('#people option').length > 0 && {READY}")
        tab.run("document.querySelector('#user').value = 'ann'")
        for text in (
            "no such title",
            "item 1",
        ):  # of item 1, item 10, ... one has the text as its whole title
            tab.run(f"document.querySelector('#likes').value = {text!r}")
            tab.run("document.querySelector('#who button').click()")
            tab.until(f"!document.querySelector('#who button').disabled && ({READY})")
            if text != "item 1":
                assert tab.run("document.querySelector('#problem').textContent") != ""
                assert tab.run("document.querySelectorAll('#items li').length") == 0
        tab.until("document.querySelectorAll('#likeliest tr').length == 10")
        assert tab.run("document.querySelectorAll('#liked button').length") == 1
        assert tab.run("document.querySelector('#likes').value") == ""
        assert tab.run("document.scrollingElement.scrollWidth <= innerWidth") and tab.said == []
    (whole,) = Record(tmp_path / "r.sqlite").sessions()
    assert len(whole[0].likes) == 1


def test_a_video_starts_plays_beside_the_next_slate_and_is_left(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with live(checkpoint("long-video"), tmp_path / "r.sqlite") as server, page(tmp_path / "profile") as tab:
        tab.open(server.url, 1280, False)
        visit(tab, "3")
        press(tab, "Start")
        title = tab.run("document.querySelector('#playing .title').textContent")
        assert tab.run("document.querySelectorAll('#items li').length") == 6
        press(tab, "Seen to its end")
        why = tab.run("document.querySelector('#why').textContent")
        assert "saw 1 items" in why and "the same" in why
        assert title in tab.run("document.querySelector('#visit').textContent") and tab.said == []


def test_the_page_allows_no_other_source(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        for path in ("/", "/page.js", "/release.js", "/page.css"):
            found = client.get(path)
            policy = found.headers["content-security-policy"]
            assert found.status_code == 200 and policy.startswith("default-src 'none'")
            assert "unsafe" not in policy and "http:" not in found.text.replace("http://127", "")
        assert client.get("/v1/items?q=item 1").json()["items"][0]["title"].startswith("item 1")
        assert client.get("/v1/platform").json()["full"] == {"engagement": 1.0}


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_the_arms_of_a_release_have_their_returns_and_a_band(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, dark: bool
) -> None:
    monkeypatch.setattr("recsys_rl.serving.work.watch.CanarySettings", lambda: CanarySettings(learned=10))
    begun(two / "a.pt", tmp_path / "r.sqlite")
    words = "(document.querySelector('#release')?.innerText ?? '')"
    with (
        live(two, tmp_path / "r.sqlite", feedback_window=1e-3) as server,
        page(tmp_path / "profile") as tab,
    ):
        with httpx.Client(base_url=server.url) as client:
            tab.open(server.url, width, dark)
            tab.until(f"{words}.includes('answers everybody') && {READY}")
            act(client, "start", sha256=sha256(two / "b.pt"), share=0.5)
            visits(client, two, 80, 0.2)
            until(lambda: matured(client) >= 80)
        tab.call("Page.reload")
        tab.until("document.querySelector('#band')?.hidden === false")
        assert "Challenger minus champion" in tab.run(words) and "50.0 %" in tab.run(words)
        assert tab.run("document.querySelectorAll('#arms tr').length") == 2
        assert tab.run("document.querySelector('#band polygon').points.length") > 20
        assert tab.run("document.scrollingElement.scrollWidth <= innerWidth") and tab.said == []
        tab.picture(tmp_path / "page.png")


def test_the_context_of_a_log_has_fields_with_plausible_values(tmp_path: Path) -> None:
    path = policy(tmp_path / "p.pt", clicks(tmp_path / "clicks.csv"))
    with live(path, tmp_path / "r.sqlite") as server, page(tmp_path / "profile") as tab:
        tab.open(server.url, 390, False)
        tab.until(f"document.querySelectorAll('#context label').length == 3 && {READY}")
        assert tab.run("document.querySelector('#likes-label').hidden")
        assert "1.5 to 79.8" in tab.run("document.querySelector('#context').innerText")
        tab.run("document.querySelector('[name=device]').value = 'tv'")
        tab.run("document.querySelector('[name=v]').value = '0.5, -1'")
        tab.run("document.querySelector('#who button').click()")
        tab.until(f"document.querySelectorAll('#likeliest tr').length == 4 && {READY}")
        buttons = "[...document.querySelectorAll('#items li:first-child button')].map(x => x.textContent)"
        assert tab.run(buttons) == ["clicked", "Nothing"]  # a click is no share of an item
        press(tab, "clicked")
        assert tab.run("document.querySelectorAll('#record tr').length") == 2
        assert tab.run("document.scrollingElement.scrollWidth <= innerWidth") and tab.said == []
        tab.run("document.querySelector('[name=v]').value = '0.5'")  # one number too few
        tab.run("document.querySelector('#who button').click()")
        tab.until("document.querySelector('#problem').textContent.includes('context.v')")
        lines = "[...document.querySelectorAll('#stock-items li')].map(x => x.textContent.trim())"
        assert tab.run(lines) == [f"i{x} withdrawhow it fared" for x in (3, 2, 1, 0)]
        tab.run("document.querySelector('#stock-items button').click()")
        tab.until(f"document.querySelectorAll('#stock-items button').length == 7 && {READY}")
        assert tab.run(lines)[0] == "i3 withdrawnhow it fared"
        tab.run("document.querySelector('#stock-items button').click()")
        tab.until(f"document.querySelectorAll('#stock-items button').length == 6 && {READY}")
        assert re.match(r"i3 withdrawn came \d{4}-\S+ \S+, went .*; shown \d+ times", tab.run(lines)[0])
    record = Record(tmp_path / "r.sqlite")
    [first, second] = record.sessions()
    record.store.close()
    assert [event.value for event in first.events] == [1.0]
    expected = (36.1, "tv", (0.5, -1.0))  # age, device, v
    assert first.decisions[0].context == second.decisions[0].context == expected

"""The pages of the site that are made of the chapters, the records and the results."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import pytest

from benchmarks.harness.newest import read
from benchmarks.harness.tables import RESULTS
from docs.site import chapters, estimators, gallery, learners, links, measured, settings
from recsys_rl.agents import AGENTS
from recsys_rl.agents.ppo import PPOConfig
from recsys_rl.env import PLATFORMS
from recsys_rl.logs.ope.estimators import ESTIMATORS
from recsys_rl.records import Platform
from recsys_rl.utils.find import find
from recsys_rl.utils.metrics import Interval
from tests.docs.test_docs import ROOT, commands, option_complaint

# Chapters.


def test_each_chapter_stands_once_in_the_menu() -> None:
    listed = [name for names in chapters.menu().values() for name in names]
    assert sorted(listed) == sorted(page.stem for page in (ROOT / "docs").glob("*.md"))


def test_each_notebook_stands_in_the_menu() -> None:
    assert sorted(chapters.NOTEBOOKS) == sorted(file.stem for file in (ROOT / "docs/notebooks").glob("*.py"))


@pytest.mark.parametrize(
    ("target", "folder", "made"),
    [
        ("03_theory_ppo.md#gae", "docs", "[x](03_theory_ppo.md#gae)"),
        ("docs/api.md", "", "[x](api.md)"),
        ("docs/notebooks/own_log.py", "", "[x](notebooks/own_log.ipynb)"),
        ("../README.md", "docs", "[x](index.md)"),
        ("https://example.org", "docs", "[x](https://example.org)"),
        ("#here", "docs", "[x](#here)"),
        ("../recsys_rl/agents/ppo.py", "docs", '<a href="_modules/recsys_rl/agents/ppo.html">x</a>'),
        ("../recsys_rl/logs/ope", "docs", '<a href="api/recsys_rl/logs/ope/index.html">x</a>'),
        ("../examples/own_log.py", "docs", '<a href="source/examples/own_log.py.html">x</a>'),
    ],
)
def test_links_stay_in_the_site(target: str, folder: str, made: str) -> None:
    assert chapters.link("x", target, folder) == made


def test_a_link_to_the_log_is_text() -> None:
    made = chapters.link("x", "log/README.md", "docs")
    assert made == '<span class="in-checkout" title="docs/log/README.md of the repository">x</span>'


def test_a_docstring_links_to_its_chapter() -> None:
    made = chapters.linked("See docs/api.md or `docs/data.md`.")
    assert made == "See :doc:`docs/api.md </api>` or :doc:`docs/data.md </data>`."


def test_code_is_no_prose() -> None:
    text = "a [x](../README.md)\n```python\nb = [x](../README.md)\n```\nc"
    assert (
        chapters.outside_fences(text, str.upper)
        == "A [X](../README.MD)\n```python\nb = [x](../README.md)\n```\nC"
    )
    assert chapters.mathematics("so $`a_t`$ is `$x` and $b$") == "so $a_t$ is `$x` and $b$"


def test_no_page_keeps_a_mark_or_a_link_to_the_log() -> None:
    for path in chapters.paths():
        text = chapters.page(path)
        assert "<!-- table" not in text and "<!-- figure" not in text
        assert "](log/" not in text and "](../" not in chapters.FENCE.sub("", text)


# Platforms.


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_gallery_shows_each_platform(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform: Platform = find(PLATFORMS[name], "PLATFORMS")
    assert platform.question.endswith("?")
    pages = gallery.pages()
    section = pages["platforms.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert f"**{platform.question}**" in section and "`python -m benchmarks." in section
    for picture in (f"images/platform-{name}-narrow.svg", f"images/platform-{name}-wide.svg"):
        assert f'="{picture}"' in section and pages[picture].startswith("<svg ")
    assert any(digit in gallery.shown(name).claim for digit in "123456789")
    monkeypatch.chdir(tmp_path)
    ((program, command, *options),) = commands(gallery.command(name, platform))
    assert (program, command) == ("recsys-rl", "train")
    missing = {"learned": "--user-model", "own-log": "--log"}.get(name)
    if missing is None:
        assert option_complaint(command, options) is None
    else:  # the reader's own file
        assert missing in options


def test_a_claim_has_the_mean_of_the_newest_rows() -> None:
    rows = read(RESULTS, "learning", task="make-train", policy="ppo-greedy")
    mean = statistics.mean(float(row["return_mean"]) for row in rows)
    assert gallery.shown("satiation").claim.startswith(f"PPO earns {mean:.2f} a session")


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Interval(0.02, 0.01, 0.03), "2 % (95 % interval 1 – 3 %) more than"),
        (Interval(-0.04, -0.07, -0.01), "4 % (95 % interval 1 – 7 %) less than"),
        (Interval(0.01, -0.01, 0.03), "not measurably different (-1.0 to +3.0 %) from"),
    ],
)
def test_a_gain_whose_interval_holds_zero_is_none(gain: Interval, words: str) -> None:
    assert gallery.more(gain) == words


# Algorithms and estimators.


def test_each_algorithm_and_estimator_has_a_page() -> None:
    assert {*learners.pages()} == {f"algorithms/{name}.md" for name in ("index", *AGENTS)}
    assert {*estimators.pages()} == {f"estimators/{name}.md" for name in ("index", *ESTIMATORS)}


def test_each_estimator_has_a_formula() -> None:
    assert [name for name, estimator in ESTIMATORS.items() if not estimators.docs(estimator)] == []


def test_the_page_of_an_algorithm_has_its_settings_and_its_rows() -> None:
    page = learners.pages()["algorithms/ppo.md"]
    said = settings.texts(PPOConfig)
    for field in dataclasses.fields(PPOConfig):
        assert f"| `{field.name}` | `{field.default}` |" in page
        assert said[field.name]
    assert "clip_eps" in page and "arXiv:1707.06347" in page
    assert "| **ppo-greedy** | **" in page and "| **a2c-greedy** |" not in page


def test_presets_name_only_settings_of_the_algorithm() -> None:
    records = {name: find(spec, "PLATFORMS") for name, spec in PLATFORMS.items()}
    assert dict(settings.presets(records, "cql", {"alpha"}))["`satiation`"] == "`alpha` 0.1"
    assert settings.presets(records, "bc", set()) == []


def test_empty_cells_at_the_left_have_those_of_the_row_above() -> None:
    rows = [["a", "b", "c"], ["", "", "d"], ["", "e", ""]]
    assert measured.filled(rows) == [["a", "b", "c"], ["a", "b", "d"], ["a", "e", ""]]


def test_rows_of_a_name_do_not_include_longer_names() -> None:
    rows = "\n".join(found.text for found in measured.rows_of("dr")).splitlines()
    values = [row for row in rows if "---" not in row]
    assert values and not any(row.startswith("| `sdr`") for row in values)
    assert measured.measured("nothing-has-this-name").endswith("row of this name.")


# Links.


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text('<a href="a/b.html#there">b</a> <a class="x" href="#top">t</a>')
    (tmp_path / "a/b.html").write_text('<p id="there"></p><img src="../c.png"><a href="https://x.org">x</a>')
    assert links.broken(tmp_path) == ["a/b.html: ../c.png", "index.html: #top"]


def test_the_ways_back_from_sources_lead_to_a_page(tmp_path: Path) -> None:
    (tmp_path / "_modules").mkdir()
    (tmp_path / "api.html").write_text('<p id="here"></p>')
    back = '<a class="viewcode-back" href="../api.html#{}">'
    (tmp_path / "_modules/a.html").write_text(back.format("here") + back.format("gone"))
    (tmp_path / "_modules/index.html").write_text(
        '<ul><li><a href="a.html">a</a></li><li><a href="b.html">b</a></li></ul>'
    )
    links.without_dead_anchors(tmp_path)
    assert links.broken(tmp_path) == []
    assert '"../api.html#here"' in (tmp_path / "_modules/a.html").read_text()
    assert (tmp_path / "_modules/index.html").read_text() == '<ul><li><a href="a.html">a</a></li></ul>'

"""The report of one run: a single HTML page without network, scripts or other files."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.data.bias import share_of
from recsys_rl.data.world_check import about_check
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.evaluation.report import words
from recsys_rl.evaluation.report.categories import CATEGORIES
from recsys_rl.evaluation.report.drawing import PALETTE_CSS, by_return, decimals, finite, kind, number, text
from recsys_rl.evaluation.report.exposure import EXPOSURE
from recsys_rl.evaluation.report.learning_curve import CURVE
from recsys_rl.evaluation.report.page import Evaluated, Page, Row
from recsys_rl.evaluation.report.regret import REGRET
from recsys_rl.evaluation.report.returns_table import returns_html
from recsys_rl.evaluation.report.samples import SAMPLES
from recsys_rl.evaluation.report.streams import STREAMS
from recsys_rl.evaluation.rivals.references import Search
from recsys_rl.evaluation.table import Played
from recsys_rl.make import assumptions
from recsys_rl.protocols import PatientUsers
from recsys_rl.settings.config import to_dict
from recsys_rl.utils.files import write_text
from recsys_rl.version import __version__

PICTURES = (REGRET, CURVE, STREAMS, EXPOSURE, CATEGORIES, SAMPLES)
"""The sections of the page between the returns and the configuration, in their order."""
STRANGERS = "strangers: all profiles are withheld"


def write_report(path: Path, page: Page) -> None:
    """Write the page to ``path``. An old page stays until the new one is complete.

    Raises UserError if the file can't be written.
    """
    pictures = "".join(
        picture.html(page.pictures[picture.name], page)
        for picture in PICTURES
        if picture.name in page.pictures
    )
    body = f"{_header(page)}{returns_html(page)}{pictures}{_config(page.config)}"
    write_text(path, document(f"{page.algo} on {page.world or page.env}: recsys_rl report", body))


def page_of(entry: Entry, users: Tensor, result: Mapping[str, Any], played: Mapping[str, Played]) -> Page:
    """The page of one checkpoint: the table (``result``) and the values of the pictures."""
    checkpoint, config = entry.checkpoint, entry.config
    compared = (f"{entry.name}-greedy", result["yardstick"], "myopic")
    evaluated = Evaluated(checkpoint, users, result, played, [name for name in compared if name in played])
    assumed = assumptions(checkpoint.config, checkpoint.world)
    return Page(
        **{field.name: result[field.name] for field in fields(Page) if field.name in result},
        algo=entry.name,
        data="; ".join(
            filter(None, (checkpoint.catalogue.source, assumed, result.get("strangers") and STRANGERS))
        ),
        data_check=about_check(checkpoint.population.ranking, share_of(checkpoint.catalogue)),
        seed=config.train_config.seed,
        step=checkpoint.step,
        heldout_users=result["sessions"],
        hardware=f"{platform.machine()}; the table was played with --threads {torch.get_num_threads()}",
        date=datetime.now(UTC).date().isoformat(),
        version=__version__,
        config={name: section for name, section in to_dict(config).items() if isinstance(section, dict)},
        planner_steps=_planner_steps(evaluated),
        pictures={picture.name: picture.values(evaluated) for picture in PICTURES},
    )


def _planner_steps(evaluated: Evaluated) -> tuple[int, int] | None:
    """The steps that the planner simulates, and those of a session; None if it can't plan here."""
    length = evaluated.checkpoint.interface.session_length
    if not isinstance(evaluated.user_model, PatientUsers):
        return None
    return Search.of(evaluated.user_model, length).lookahead, length


def document(title: str, body: str) -> str:
    """The whole file of a page. ``title`` is any text, ``body`` HTML."""
    style = PALETTE_CSS + resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        # The page loads nothing; with this line a browser refuses every request.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\"/>"
        f"<title>{text(title)}</title>"
        f"<style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def _header(page: Page) -> str:
    """One sentence: the run, and its place between the yardstick and the planner."""
    ranked = [row for row in by_return(page.rows) if finite(row["return_mean"])]
    rows = {str(row["policy"]): row for row in ranked}
    ours = rows.get(f"{page.algo}-greedy") or rows.get(page.algo)
    yardstick = rows.get(page.yardstick or "")
    simple = yardstick or next((row for name, row in rows.items() if kind(name) == "baseline"), None)
    bound = rows.get("planner") or rows.get("oracle")
    digits = decimals([row["return_mean"] for row in (ours, simple, bound) if row])
    steps, env = number(page.step, 0), text(" and ".join(page.trained_on or [page.env]))
    name = text(page.algo if ours is None else ours["policy"])
    sentence = f"{name}, trained for {steps} steps on <b>{env}</b>, "
    if page.world:
        sentence += f"played in <b>{text(page.world)}</b>, "
    if ours is None:
        sentence += "has no finite return"
    elif page.foreign:
        sentence += f"earns {_big(ours, digits)} per episode on unseen seeds"
    else:
        people = f"{number(page.heldout_users, 0)} {text(words.people_of(page, page.heldout_users))}"
        sentence += f"earns {_big(ours, digits)} per {words.unit(page)} from {people}"
    against = []
    if simple is not None:
        title = "best simple baseline" if yardstick is None else "yardstick"
        against.append(f"the {title}, {text(simple['policy'])}, earns {_big(simple, digits)}")
    if bound is not None:
        against.append(f"the {text(bound['policy'])}, which sees inside the simulator, {_big(bound, digits)}")
    sentence += ("; " + ", and ".join(against) if against else "") + "."
    facts = {
        "Data": page.data,
        "Check of the data": page.data_check,
        "Users": (page.new_users or {}).get("about"),
        "Seed": page.seed,
        "Hardware": page.hardware,
        "Written": page.date,
        "recsys_rl": page.version,
    }
    shown = "".join(f"<span>{name}: {text(v)}</span>" for name, v in facts.items() if v not in (None, ""))
    return f'<header><h1>{sentence}</h1><p class="facts">{shown}</p></header>'


def _big(row: Row, digits: int) -> str:
    return f'<b class="{kind(str(row["policy"]))}">{number(row["return_mean"], digits)}</b>'


def _config(config: Mapping[str, Mapping[str, Any]]) -> str:
    if not config:
        return ""
    sections = "".join(
        f"<section><h3>{text(name)}</h3><table><tbody>"
        + "".join(f'<tr><th scope="row">{text(k)}</th><td>{text(v)}</td></tr>' for k, v in fields.items())
        + "</tbody></table></section>"
        for name, fields in config.items()
    )
    return (
        '<details class="config"><summary>Configuration</summary>'
        f'<div class="sections">{sections}</div></details>'
    )

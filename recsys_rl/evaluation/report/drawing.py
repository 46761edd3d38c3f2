"""Names, numbers, colours and scales of the charts.

Each chart follows the reader's light or dark scheme and has its own background, so that it looks the same
in the report, in a README and on any page. The palette is blue, grey and orange. These colours differ for
every common colour blindness; fill and outline differ as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from html import escape

from recsys_rl.records import PRIVILEGED, TRADE

BASELINES = (
    *("untrained", "random", "popularity", "one-item", "static-list", "mf", "mmr", "linucb", "lints"),
    *("rule", "searched"),
)
LONGEST_LABEL = 22  # letters of a name in a chart, so that there is room for the bars
LETTER = 8.2
"""Width of one bold letter, in pixels: enough for the widest of the common system fonts."""

# `:root` is the page in the report, and the SVG in a separate file: the same text works for both.
PALETTE_CSS = """
:root{--ink:#1b1f24;--muted:#59626c;--line:#dfe3e7;--surface:#fff;--page:#f6f7f8;
--learned:#0a5fb4;--baseline:#87909a;--inside:#a8500a}
@media (prefers-color-scheme:dark){:root{--ink:#e8ebee;--muted:#a0a9b3;--line:#31373e;--surface:#181b1f;
--page:#101214;--learned:#63acff;--baseline:#6b7580;--inside:#f0a35c}}
"""
CHART_CSS = """
.plate{fill:var(--surface)}
.chart text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:var(--ink);
font-variant-numeric:tabular-nums}
.chart .muted{fill:var(--muted)}.chart .strong{font-weight:650}
.chart .end{text-anchor:end}.chart .middle{text-anchor:middle}
.chart .learned{fill:var(--learned)}.chart .inside{fill:var(--inside)}
.chart .clear{paint-order:stroke;stroke:var(--surface);stroke-width:5px;stroke-linejoin:round}
.grid{stroke:var(--line)}.axis{stroke:var(--muted)}
.band{fill:var(--learned);opacity:.18}.curve{fill:none;stroke:var(--learned);stroke-width:2.25;
stroke-linejoin:round}
.other{fill:none;stroke:var(--baseline);stroke-width:1.5;stroke-linejoin:round}.other.inside{stroke:var(--inside)}
.reference{stroke:var(--muted);stroke-width:1.25;stroke-dasharray:5 4}.reference.inside{stroke:var(--inside)}
.leader{fill:none;stroke:var(--line)}
.dot{fill:var(--inside);stroke:var(--surface);stroke-width:1.5}
.bar.learned{fill:var(--learned)}.bar.baseline{fill:var(--baseline)}
.bar.inside{fill:none;stroke:var(--inside);stroke-width:1.5}
.halo{stroke:var(--surface);stroke-width:3.5}.whisker{stroke:var(--ink);stroke-width:1.5}
.area.learned{fill:var(--learned)}.area.baseline{fill:var(--baseline)}.area.inside{fill:var(--inside)}
.hit rect{fill:transparent}.hit circle{fill:var(--learned);opacity:0}.hit:hover circle{opacity:1}
"""


def kind(policy: str) -> str:
    """``inside`` (sees the simulator), ``baseline`` (learns no network) or ``learned`` (the rest)."""
    if policy in PRIVILEGED:
        return "inside"
    return "baseline" if policy in BASELINES or policy.startswith(TRADE) else "learned"


def text(value: object) -> str:
    """Any value as text for HTML and XML: escaped, with U+FFFD for characters that XML forbids."""
    return escape(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(value)))


def short_name(policy: str) -> str:
    """A policy's name, cut to LONGEST_LABEL letters."""
    return policy if len(policy) <= LONGEST_LABEL else policy[: LONGEST_LABEL - 1] + "…"


def finite(value: object) -> bool:
    """True for a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)


def decimals(values: Sequence[float]) -> int:
    """Places after the point that keep about three digits of the greatest of ``values``."""
    greatest = max((abs(v) for v in values), default=0.0)
    return 0 if greatest >= 1000 else 1 if greatest >= 10 else 2 if greatest >= 1 else 3


def number(value: object, places: int) -> str:
    """``1,234.5`` with a real minus sign; a dash if the value is not a finite number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    shown = f"{value:,.{places}f}"
    return (shown[1:] if float(shown.replace(",", "")) == 0 and shown[0] == "-" else shown).replace("-", "−")


def signed(value: float, places: int) -> str:
    """``+1,234.5`` or ``−0.0``: a finite number with its sign, also where it rounds to 0."""
    return f"{value:+,.{places}f}".replace("-", "−")


def short(steps: float) -> str:
    """Steps on an axis: 50k, 1.5M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(steps) >= unit:
            return f"{steps / unit:.3g}{name}"
    return f"{steps:g}"


def scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """The linear map from ``low`` to ``start`` and from ``high`` to ``stop``, in pixels."""
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` multiples of 1, 2 or 5 times a power of ten that enclose ``low`` .. ``high``."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def spread(places: Sequence[float], gap: float) -> list[float]:
    """``places`` moved apart to at least ``gap``, in their order; each crowded group keeps its centre."""
    order = sorted(range(len(places)), key=places.__getitem__)
    crowds: list[list[int]] = []  # runs of labels that touch
    centre = [0.0] * len(places)

    def top(crowd: list[int]) -> float:
        return sum(places[i] for i in crowd) / len(crowd) - gap * (len(crowd) - 1) / 2

    for i in order:
        crowds.append([i])
        while len(crowds) > 1 and top(crowds[-1]) - top(crowds[-2]) < gap * len(crowds[-2]):
            crowds[-2:] = [crowds[-2] + crowds[-1]]
    for crowd in crowds:
        for rank, i in enumerate(crowd):
            centre[i] = top(crowd) + gap * rank
    return centre


def svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """A whole SVG file; a screen reader reads ``label`` in place of the picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="{text(label)}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<style>{PALETTE_CSS}{CHART_CSS}</style>"
        f'<rect class="plate" width="{width}" height="{height}" rx="8"/>{"".join(parts)}</svg>'
    )


def for_two_widths(wide: str, narrow: str) -> str:
    """One SVG file of two charts of about one shape: the ``narrow`` one where it is shown below 500 pixels.

    A picture in a README is as wide as its page, and its text shrinks with it. The style of an SVG that is
    shown as an image sees the width at which it is shown.
    """
    head = re.match(r'<svg .*? viewBox="0 0 (\d+) (\d+)" width="\d+" height="\d+">', wide)
    assert head is not None
    width, height = head[1], head[2]
    whole = f'width="{width}" height="{height}"'
    charts = [
        re.sub(
            r'^(<svg .*?)class="chart"(.*?) width="\d+" height="\d+">',
            rf'\1class="chart {name}"\2 {whole}>',
            drawn,
        )
        for name, drawn in (("wide", wide), ("narrow", narrow))
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {whole}>'
        "<style>.narrow{display:none}@media(max-width:500px){.wide{display:none}.narrow{display:inline}}</style>"
        f"{''.join(charts)}</svg>"
    )


def sizes(draw: Callable[[int], str]) -> str:
    """Three charts, for a phone, a tablet and a desktop, with text of one size. The style sheet shows one."""
    widths = {"narrow": 358, "medium": 760, "wide": 1072}
    return "".join(
        draw(px).replace('class="chart"', f'class="chart {name}"', 1) for name, px in widths.items()
    )

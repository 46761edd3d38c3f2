"""The axes, lines and words of a drawn figure of docs/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from recsys_rl.evaluation.report.drawing import number, scale, spread, text

LINES = {"learned": "var(--learned)", "inside": "var(--inside)", "baseline": "var(--muted)"}


@dataclass(frozen=True)
class Panel:
    """A plot's place in the picture, in pixels, and the ranges of its axes."""

    left: float
    width: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    top: float = 46
    height: float = 210

    @property
    def x(self) -> Callable[[float], float]:
        return scale(*self.x_range, self.left, self.left + self.width)

    @property
    def y(self) -> Callable[[float], float]:
        return scale(*self.y_range, self.top + self.height, self.top)

    def axes(self, title: str, x_name: str, x_marks: Sequence[float], y_marks: Sequence[float]) -> str:
        """Title above, a grid line for each mark of y, the marks of x below, and the name of x."""
        right, floor = self.left + self.width, self.top + self.height
        parts = [f'<text class="strong" x="{self.left:.1f}" y="{self.top - 22}">{text(title)}</text>']
        for value in y_marks:
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{self.left:.1f} {y:.1f}H{right:.1f}"/>')
            parts.append(
                f'<text class="muted end" x="{self.left - 8:.1f}" y="{y + 4:.1f}">{mark(value)}</text>'
            )
        for value in x_marks:
            x = self.x(value)
            parts.append(f'<text class="muted middle" x="{x:.1f}" y="{floor + 19}">{mark(value)}</text>')
        middle = (self.left + right) / 2
        parts.append(f'<text class="muted middle" x="{middle:.1f}" y="{floor + 40}">{text(x_name)}</text>')
        return "".join(parts)

    def line(self, xs: Sequence[float], ys: Sequence[float], style: str, dash: str = "") -> str:
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        dashed = f";stroke-dasharray:{dash}" if dash else ""
        return f'<polyline class="curve" style="stroke:{LINES[style]}{dashed}" points="{points}"/>'

    def word(self, x: float, y: float, said: str, style: str = "muted", rise: float = 4) -> str:
        position = f'x="{self.x(x):.1f}" y="{self.y(y) + rise:.1f}"'
        return f'<text class="{style} clear" {position}>{text(said)}</text>'

    def names(self, x: float, lines: Mapping[str, tuple[float, str]]) -> list[str]:
        """The name of each line at pixel ``x``, beside its end (value, style), with room between them."""
        ends = sorted(lines.items(), key=lambda line: -line[1][0])
        places = spread([self.y(y) for _, (y, _) in ends], 18)
        classes = {"baseline": "muted", "learned": "learned strong", "inside": "inside"}
        return [
            f'<text class="{classes[style]}" x="{x}" y="{height + 4:.1f}">{text(label)}</text>'
            for (label, (_, style)), height in zip(ends, places, strict=True)
        ]


def mark(value: float) -> str:
    return number(value, 0 if value == round(value) else 1)

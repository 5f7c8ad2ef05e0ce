"""Plots as SVG of a few plain forms, drawn by hand: they need no library, no font from afar and no script.

Each function takes labels and numbers and returns the whole picture as text, the same for the same input. Every picture
has a title, a description for those who do not see it, axes with round marks, and colours for light and for dark pages.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDE: Final = 720
HIGH: Final = 300
TOP: Final = 64
BOTTOM: Final = 34
LEFT: Final = 52
RIGHT: Final = 16
ROW: Final = 26
"""Pixels: the picture, its margins, and a row of a horizontal chart."""

MARKS: Final = 6
"""Most marks of an axis, the one at zero not counted."""

STYLE: Final = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px } .faint { fill: #59636e }
.grid { stroke: #d1d9e0 } .axis { stroke: #818b98 } .span { stroke: #818b98; stroke-width: 2 }
.a { fill: #0969da } .b { fill: #bc4c00 } .c { fill: #8250df } .d { fill: #818b98 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .faint { fill: #9198a1 }
  .grid { stroke: #3d444d } .axis { stroke: #656c76 } .span { stroke: #656c76 }
  .a { fill: #4493f8 } .b { fill: #f0883e } .c { fill: #ab7df8 } .d { fill: #656c76 }
}"""
"""Colours of the series are told apart by hue and by lightness; three to one and more against both pages."""

SHADES: Final = ("a", "b", "c", "d")

LABELLED: Final = 'aria-labelledby="title desc"'

Series = Mapping[str, Sequence[float]]
"""Name → one number for each label; at most as many as there are `SHADES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What a picture says of itself.

    ``title`` is above it; ``description`` is read to those who do not see it; ``unit`` names the axis of numbers.
    """

    title: str
    description: str
    unit: str


def columns(caption: Caption, labels: Sequence[str], series: Series, *, stacked: bool = False) -> str:
    """Upright bars over a common line: side by side, or on top of each other."""
    scale = _scale(_highest(series, stacked=stacked), HIGH - TOP - BOTTOM)
    base = HIGH - BOTTOM
    step = (WIDE - LEFT - RIGHT) / len(labels)
    parts = [*_legend(series), *_horizontal_grid(scale, base)]
    for at, label in enumerate(labels):
        left = LEFT + at * step
        values = [each[at] for each in series.values()]
        parts += _group(values, scale, left=left + 0.14 * step, base=base, wide=0.72 * step, stacked=stacked)
        parts.append(_text(left + step / 2, base + 16, label, anchor="middle"))
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDE - RIGHT}" y2="{base}"/>')
    return _picture(caption, HIGH, parts)


def bars(caption: Caption, labels: Sequence[str], series: Series) -> str:
    """Bars that lie, one under the other, their series in a row; the sum is at the end."""
    left = _room(labels)
    scale = _scale(_highest(series, stacked=True), WIDE - left - RIGHT - 30)
    high = TOP + ROW * len(labels) + BOTTOM
    parts = [*_legend(series), *_vertical_grid(scale, left, high)]
    for at, label in enumerate(labels):
        top, x = TOP + at * ROW, float(left)
        parts.append(_text(left - 8, top + 16, label, anchor="end"))
        for shade, values in zip(SHADES, series.values(), strict=False):
            parts.append(_rect(shade, x, top + 4, scale.pixels(values[at]), ROW - 8))
            x += scale.pixels(values[at])
        parts.append(_text(x + 5, top + 16, _number(sum(values[at] for values in series.values()))))
    return _picture(caption, high, parts)


def ranges(caption: Caption, labels: Sequence[str], series: Series) -> str:
    """A row of dots for each label, joined by a line: how far the numbers of its series lie apart."""
    left = _room(labels)
    scale = _scale(_highest(series, stacked=False), WIDE - left - RIGHT - 30)
    high = TOP + ROW * len(labels) + BOTTOM
    parts = [*_legend(series), *_vertical_grid(scale, left, high)]
    for at, label in enumerate(labels):
        y = TOP + at * ROW + ROW // 2
        places = [left + scale.pixels(values[at]) for values in series.values()]
        parts.append(_text(left - 8, y + 4, label, anchor="end"))
        parts.append(f'<line class="span" x1="{_px(min(places))}" y1="{y}" x2="{_px(max(places))}" y2="{y}"/>')
        shades = zip(SHADES, places, strict=False)
        parts += [f'<circle class="{shade}" cx="{_px(x)}" cy="{y}" r="5"/>' for shade, x in shades]
    return _picture(caption, high, parts)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Numbers to pixels; ``marks`` are the round numbers that the axis shows, the last is the whole length."""

    marks: tuple[float, ...]
    length: float

    def pixels(self, value: float) -> float:
        return self.length * value / self.marks[-1]


def _scale(most: float, length: float) -> _Scale:
    """From zero to the round number at or above ``most``."""
    power = 1.0
    while most > power * 10 * MARKS:
        power *= 10
    step = next(power * times for times in (1, 2, 2.5, 5, 10) if most <= power * times * MARKS)
    count = max(1, -int(-most // step))
    return _Scale(tuple(step * number for number in range(count + 1)), length)


def _highest(series: Series, *, stacked: bool) -> float:
    sides = zip(*series.values(), strict=True)
    tops: list[float] = [sum(side) if stacked else max(side) for side in sides]
    return max(tops)


def _group(
    values: Sequence[float], scale: _Scale, *, left: float, base: float, wide: float, stacked: bool
) -> list[str]:
    """The bars of one label, upwards from ``base``."""
    drawn, foot = [], base
    each = wide if stacked else wide / len(values)
    for at, (shade, value) in enumerate(zip(SHADES, values, strict=False)):
        high = scale.pixels(value)
        drawn.append(_rect(shade, left if stacked else left + at * each, foot - high, each, high))
        foot = foot - high if stacked else base
    return drawn


def _horizontal_grid(scale: _Scale, base: float) -> list[str]:
    lines = []
    for mark in scale.marks:
        y = _px(base - scale.pixels(mark))
        lines.append(f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{WIDE - RIGHT}" y2="{y}"/>')
        lines.append(_text(LEFT - 8, float(y) + 4, _number(mark), anchor="end", kind="faint"))
    return lines


def _vertical_grid(scale: _Scale, left: float, high: float) -> list[str]:
    lines = []
    for mark in scale.marks:
        x = _px(left + scale.pixels(mark))
        lines.append(f'<line class="grid" x1="{x}" y1="{TOP}" x2="{x}" y2="{high - BOTTOM}"/>')
        lines.append(_text(float(x), high - BOTTOM + 16, _number(mark), anchor="middle", kind="faint"))
    return lines


def _legend(series: Series) -> list[str]:
    parts, x = [], float(LEFT)
    for shade, name in zip(SHADES, series, strict=False):
        parts += [_rect(shade, x, 34, 11, 11), _text(x + 16, 44, name)]
        x += 16 + _text_width(name) + 18
    return parts


def _picture(caption: Caption, high: int, parts: Iterable[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {high}" role="img" {LABELLED}>',
            f'<title id="title">{escape(caption.title)}</title>',
            f'<desc id="desc">{escape(caption.description)}</desc>',
            f"<style>\n{STYLE}\n</style>",
            _text(LEFT, 20, caption.title, kind="title"),
            _text(WIDE - RIGHT, 44, caption.unit, anchor="end", kind="faint"),
            *parts,
            "</svg>\n",
        ]
    )


def _rect(shade: str, x: float, y: float, wide: float, high: float) -> str:
    return f'<rect class="{shade}" x="{_px(x)}" y="{_px(y)}" width="{_px(wide)}" height="{_px(high)}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "", kind: str = "") -> str:
    attributes = (f' text-anchor="{anchor}"' if anchor else "") + (f' class="{kind}"' if kind else "")
    return f'<text x="{_px(x)}" y="{_px(y)}"{attributes}>{escape(text)}</text>'


def _room(labels: Sequence[str]) -> int:
    """Pixels left of the axis that the longest label needs."""
    return max(LEFT, 16 + max(map(_text_width, labels)))


def _text_width(text: str) -> int:
    """About how many pixels a text takes: a Chinese letter as many as its height."""
    return sum(13 if unicodedata.east_asian_width(letter) in "WF" else 7 for letter in text)


def _px(value: float) -> str:
    return f"{value:.1f}"


def _number(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")

"""Pollution over response as an inline SVG: the nearer to the lower right corner, the better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from spf_lora.evaluate.result import Figure, Result, figure_name

WIDTH, HEIGHT = 480, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 46
MATCHED = 0.8  # the response at which SPS compares
_MARKS = 6  # series that a reader can tell apart; more take the first looks again


@dataclass(frozen=True)
class Point:
    """One strength of one adapter."""

    strength: float
    rho: Figure
    pollution: Figure


def points(result: Result) -> list[Point]:
    """Return the strengths of a sweep that have both numbers, ascending."""
    line = []
    for strength in result.strengths:
        rho, pollution = (
            result.numbers.get(figure_name(measure, strength)) for measure in ("rho", "P")
        )
        if rho is None or pollution is None or rho.value is None or pollution.value is None:
            continue
        line.append(Point(strength, rho, pollution))
    return line


def draw_curve(results: Sequence[Result]) -> str:
    """Return the SVG of all results; strength 0, where no adapter acts, is the shared control.

    Args:
        results: the first is the one the page is about.
    """
    series = [points(result) for result in results]
    tops = [max(p.pollution.value or 0, p.pollution.high or 0) for line in series for p in line]
    scale = _Scale(_ceiling(max(tops, default=1.0)))
    control = next((p for line in series for p in line if p.strength == 0), None)
    lines = [
        _line(line, f"s{number % _MARKS}", result.name, scale)
        for number, (result, line) in enumerate(zip(results, series, strict=True))
    ]
    body = [_frame(scale), *reversed(lines)]  # the page's own adapter lies on top
    if control is not None:
        body.append(_mark(control, "control", "prompt only", scale))
    described = "; ".join(
        f"{result.name}: " + ", ".join(_words(p) for p in line)
        for result, line in zip(results, series, strict=True)
    )
    return (
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="curve-title curve-text"><title id="curve-title">Pollution over response'
        f'</title><desc id="curve-text">{escape(described)}</desc>{"".join(body)}</svg>'
    )


def draw_key(number: int | None) -> str:
    """Return the small SVG that shows how a series is drawn; None is the control."""
    name = "control" if number is None else f"s{number % _MARKS}"
    line = "" if number is None else f'<line class="line {name}" x1="0" x2="28" y1="8" y2="8"/>'
    return (
        f'<svg class="key" viewBox="0 0 28 16" aria-hidden="true">{line}{_shape(name, 14, 8)}</svg>'
    )


@dataclass(frozen=True)
class _Scale:
    top: float

    def x(self, rho: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * min(max(rho, 0.0), 1.0)

    def y(self, pollution: float) -> float:
        share = min(max(pollution / self.top, 0.0), 1.0)
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share


def _ceiling(value: float) -> float:
    """Return the next fifth above a value, at least 0.4."""
    return max(0.4, math.ceil(value * 5 + 0.05) / 5)


def _frame(scale: _Scale) -> str:
    floor, parts = scale.y(0), []
    steps = round(scale.top * 5)
    stride = max(1, math.ceil(steps / 6))
    for step in range(0, steps + 1, stride):
        y = scale.y(step / 5)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" ')
        parts.append(f'y2="{y:.1f}"/><text x="{_LEFT - 8}" y="{y + 4:.1f}" ')
        parts.append(f'text-anchor="end">{step / 5:.1f}</text>')
    for tenth in range(0, 11, 2):
        x = scale.x(tenth / 10)
        parts.append(f'<text x="{x:.1f}" y="{floor + 18:.1f}" text-anchor="middle">')
        parts.append(f"{tenth / 10:.1f}</text>")
    x = scale.x(MATCHED)
    middle = (_TOP + floor) / 2
    parts.append(f'<line class="matched" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor:.1f}"/>')
    parts.append(f'<text x="{x - 5:.1f}" y="{_TOP + 11}" text-anchor="end">SPS is read here</text>')
    parts.append(f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 8}" ')
    parts.append('text-anchor="middle">response: does the attribute appear?</text>')
    parts.append(f'<text transform="translate(14 {middle:.1f}) rotate(-90)" ')
    parts.append('text-anchor="middle">pollution</text>')
    return "".join(parts)


def _line(line: list[Point], name: str, title: str, scale: _Scale) -> str:
    path = " ".join(f"{scale.x(_rho(p)):.1f},{scale.y(_pollution(p)):.1f}" for p in line)
    marks = "".join(_mark(p, name, title, scale) for p in line if p.strength != 0)
    return f'<polyline class="line {name}" points="{path}"/>{marks}'


def _mark(point: Point, name: str, title: str, scale: _Scale) -> str:
    x, y = scale.x(_rho(point)), scale.y(_pollution(point))
    bars = ""
    if point.pollution.low is not None and point.pollution.high is not None:
        low, high = scale.y(point.pollution.low), scale.y(point.pollution.high)
        bars += (
            f'<line class="bar {name}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
        )
    if point.rho.low is not None and point.rho.high is not None:
        low, high = scale.x(point.rho.low), scale.x(point.rho.high)
        bars += (
            f'<line class="bar {name}" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
    return (
        f"<g><title>{escape(title)}, {escape(_words(point))}</title>{bars}{_shape(name, x, y)}</g>"
    )


def _shape(name: str, x: float, y: float) -> str:
    """Draw a series' mark; shapes differ too, for those who see few colours."""
    outline = {
        "s0": None,
        "s1": (4, 45),
        "s2": (3, 0),
        "s3": (4, 0),
        "s4": (3, 180),
        "s5": (5, 0),
        "control": (4, 0),
    }[name]
    if outline is None:
        return f'<circle class="mark {name}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
    corners, turn = outline
    radius = 8 if name == "control" else 6.5
    angles = [math.radians(turn - 90 + 360 * k / corners) for k in range(corners)]
    path = " ".join(
        f"{x + radius * math.cos(a):.1f},{y + radius * math.sin(a):.1f}" for a in angles
    )
    return f'<polygon class="mark {name}" points="{path}"/>'


def _words(point: Point) -> str:
    what = f"strength {point.strength:g}" if point.strength else "control"
    return f"{what}: response {point.rho.text()}, pollution {point.pollution.text()}"


def _rho(point: Point) -> float:
    assert point.rho.value is not None
    return point.rho.value


def _pollution(point: Point) -> float:
    assert point.pollution.value is not None
    return point.pollution.value

"""An incremental measurement as one SVG: how responses and pollution go as adapters are added."""

from collections.abc import Sequence
from html import escape

from spf_lora.evaluate.incremental_result import Incremental, Meeting, Order

_CELL, _LABEL, _HEAD, _GAP = 46, 110, 58, 34
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.t{font-weight:bold}.n{font-size:11px;text-anchor:middle}"
    ".s{fill:#666;font-size:11px}.l{fill:none;stroke-width:2}.g{stroke:#ddd}"
)
Cell = float | None


def draw_plot(found: Incremental) -> str:
    """Return the SVG of the order given: response, pollution, cross-talk, and what goes together.

    Every number is written into its cell, so that no colour has to be told apart.
    """
    order = found.orders[0]
    steps = [f"+ {name}" for name in order.names]
    panels = [
        _heat("response, after each step", _values(order.response), order.names, steps, "#009e73"),
        _heat(
            "pollution, after each step", _values(order.pollution), order.names, steps, "#d55e00"
        ),
        _lines("mean pollution and base leakage", order),
        _heat(
            "cross-talk: more of the row when only the column is asked for",
            found.cross_talk,
            found.adapters,
            found.adapters,
            "#0072b2",
        ),
        _heat("asked for together", _pairs(found), found.adapters, found.adapters, "#009e73"),
    ]
    width = max(panel[1] for panel in panels)
    top, body = _GAP, []
    for content, _, height in panels:
        body.append(f'<g transform="translate(12 {top})">{content}</g>')
        top += height + _GAP
    title = f"{found.name}: {' then '.join(order.names)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 24} {top}" '
        f'width="{width + 24}" height="{top}" role="img"><title>{escape(title)}</title>'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="white"/>'
        f'<text class="t" x="12" y="20">{escape(title)}</text>{"".join(body)}</svg>\n'
    )


def _values(matrix: Sequence[Sequence[object]]) -> list[list[Cell]]:
    return [[getattr(one, "value", None) for one in row] for row in matrix]


def _pairs(found: Incremental) -> list[list[Cell]]:
    """Return [i][j]: the response of i when i and j are asked for; the diagonal is i alone."""
    last = len(found.adapters) - 1
    order = found.orders[0]
    table: list[list[Cell]] = [[None] * len(found.adapters) for _ in found.adapters]
    at = {name: i for i, name in enumerate(found.adapters)}
    for i, name in enumerate(order.names):
        figure = order.response[i][last]
        table[at[name]][at[name]] = figure.value if figure else None
    for meeting in (one for one in found.together if len(one.names) == 2):
        _enter(table, at, meeting)
    return table


def _enter(table: list[list[Cell]], at: dict[str, int], meeting: Meeting) -> None:
    first, second = (at[name] for name in meeting.names)
    table[first][second], table[second][first] = meeting.response


def _heat(
    title: str,
    rows: Sequence[Sequence[Cell]],
    names: Sequence[str],
    columns: Sequence[str],
    colour: str,
) -> tuple[str, int, int]:
    """Return a table whose cells are filled by their value, its width and its height."""
    parts = [f'<text class="t" x="0" y="10">{escape(title)}</text>']
    for n, column in enumerate(columns):
        x = _LABEL + n * _CELL + 14
        parts.append(
            f'<text class="s" transform="translate({x} {_HEAD - 6}) rotate(-25)">'
            f"{escape(column[:16])}</text>"
        )
    for i, row in enumerate(rows):
        y = _HEAD + i * _CELL // 2
        parts.append(f'<text x="0" y="{y + 16}">{escape(names[i][:16])}</text>')
        for n, value in enumerate(row):
            if value is None:
                continue
            x, strength = _LABEL + n * _CELL, min(max(value, 0.0), 1.0)
            parts.append(
                f'<rect x="{x}" y="{y}" width="{_CELL - 2}" height="{_CELL // 2 - 2}" '
                f'fill="{colour}" fill-opacity="{0.04 + 0.5 * strength:.2f}"/>'
                f'<text class="n" x="{x + _CELL // 2 - 1}" y="{y + 15}">{value:.2f}</text>'
            )
    return "".join(parts), _LABEL + len(columns) * _CELL + 40, _HEAD + len(rows) * _CELL // 2


def _lines(title: str, order: Order) -> tuple[str, int, int]:
    """Return the curves of mean pollution and base leakage over the steps."""
    series = {
        "mean pollution": order.mean_pollution(),
        "base leakage": [one.value or 0.0 for one in order.leakage],
    }
    height, left = 150, _LABEL
    top = max(0.4, *(max(values) for values in series.values())) * 1.1
    parts = [f'<text class="t" x="0" y="10">{escape(title)}</text>']

    def place(n: int, value: float) -> tuple[float, float]:
        return left + n * _CELL + _CELL / 2, height - value / top * (height - 30)

    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        if tick <= top:
            y = place(0, tick)[1]
            parts.append(
                f'<line class="g" x1="{left}" x2="{left + order.steps * _CELL}" y1="{y:.1f}" '
                f'y2="{y:.1f}"/><text class="s" x="{left - 26}" y="{y + 4:.1f}">{tick:.1f}</text>'
            )
    for at, (name, values) in enumerate(series.items()):
        spots = [place(n, value) for n, value in enumerate(values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline class="l" stroke="{_COLOURS[at]}" points="{path}"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{_COLOURS[at]}">'
            f"<title>{name} {value:.3f}</title></circle>"
            for (x, y), value in zip(spots, values, strict=True)
        ]
        x, y = spots[-1]
        parts.append(f'<text x="{x + 10:.1f}" y="{y + 4:.1f}">{name} {values[-1]:.2f}</text>')
    return "".join(parts), left + order.steps * _CELL + 150, height

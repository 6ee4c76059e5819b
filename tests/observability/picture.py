"""A panel of a dashboard as a picture: what its own queries say in a real Prometheus, drawn as SVG. Grafana draws better; this needs nothing but the standard library."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from observability.dashboards.__main__ import BOARDS, as_asked
from observability.dashboards.panels import Panel
from tests.support.query_api import asked

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 290, 64, 16, 66, 74
COLOURS = ("#3274d9", "#e0752d", "#56a64b", "#a352cc", "#e02f44", "#8f8f8f", "#1aa6a6", "#b8860b")
GAP_SECONDS = 6.0
UNITS = {"s": " s", "cps": "/s", "reqps": "/s", "bytes": " B", "percentunit": "", "short": ""}
Points = Sequence[tuple[float, float]]


def panel(board: str, title: str) -> Panel:
    (found,) = [each for one in BOARDS if one.title == board for each in one.panels if each.title == title]
    return found


def results(prometheus: str, path: str, **query: object) -> list[dict[str, object]]:
    """Of a query, or the alerts."""
    told = asked(f"{prometheus}/api/v1/{path}", **query)
    return list(told["result"] if "result" in told else told["alerts"])


def instant(prometheus: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """(labels, value) of each series now."""
    return [(each["metric"], float(each["value"][1])) for each in results(prometheus, "query", query=expression)]


def series(prometheus: str, shown: Panel, *, start: float, end: float, step: float = 2.0, interval: str = "20s") -> dict[str, Points]:
    """Legend → points, of every query of a panel."""
    found: dict[str, Points] = {}
    for legend, expression in shown.queries:
        for each in results(prometheus, "query_range", query=as_asked(expression, interval), start=start, end=end, step=step):
            name = legend
            for label, value in each["metric"].items():  # type: ignore[attr-defined]
                name = name.replace("{{" + label + "}}", value)
            points = [(float(at), float(value)) for at, value in each["values"]]  # type: ignore[attr-defined]
            found[name or shown.title] = [(at, value) for at, value in points if value == value]  # noqa: PLR0124  NaN is no point.
    return {name: points for name, points in found.items() if any(value for _, value in points)} or found


def drawn(shown: Panel, lines: Mapping[str, Points], *, start: float, end: float, marks: Mapping[str, float]) -> str:
    """`marks`: what happened, by its time. Time runs in seconds from `start`."""
    tick = _tick(max((value for points in lines.values() for _, value in points), default=0.0) / 4)
    high = tick * 4.3

    def x(at: float) -> float:
        return round(LEFT + (at - start) / (end - start) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - value / high * (HEIGHT - TOP - BOTTOM), 1)

    parts = [f'<text x="{LEFT}" y="20" font-size="15" font-weight="bold">{escape(shown.title)}</text>', f'<text x="{LEFT}" y="38" fill="#666">{escape(shown.question)}</text>']
    parts += [
        f'<path d="M{LEFT} {y(value)}H{WIDTH - RIGHT}" stroke="#ddd"/><text x="{LEFT - 6}" y="{y(value) + 4}" text-anchor="end">{value:g}{UNITS[shown.unit]}</text>'
        for value in (0.0, tick, 2 * tick, 3 * tick, 4 * tick)
    ]
    parts += [f'<text x="{x(start + each)}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{each} s</text>' for each in range(0, int(end - start) + 1, 30)]
    for number, (what, at) in enumerate(marks.items()):
        parts.append(f'<path d="M{x(at)} {TOP - 8}V{HEIGHT - BOTTOM}" stroke="#e02f44" stroke-dasharray="4 3"/>')
        parts.append(f'<text x="{x(at) + 3}" y="{TOP - 10 + 12 * (number % 3)}" fill="#e02f44">{escape(what)}</text>')
    across, down = LEFT, HEIGHT - 34
    for number, (name, points) in enumerate(sorted(lines.items())):
        colour, wide = COLOURS[number % len(COLOURS)], 34 + 7 * len(name)
        if across + wide > WIDTH:
            across, down = LEFT, down + 18
        parts.append(f'<path d="{_path(points, x, y)}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        parts.append(f'<rect x="{across}" y="{down - 6}" width="14" height="4" fill="{colour}"/><text x="{across + 18}" y="{down}">{escape(name)}</text>')
        across += wide
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11" fill="#222">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', *parts, "</svg>"]) + "\n"


def _path(points: Points, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """Broken where nobody told anything: a dead process draws no line."""
    found, last = "", float("-inf")
    for at, value in points:
        found += f"{'M' if at - last > GAP_SECONDS else 'L'}{x(at)} {y(value)}"
        last = at
    return found


def _tick(least: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 0.25
    return next((each * power for each in (1.0, 2.0, 2.5, 5.0) if each * power >= least), 10.0 * power)

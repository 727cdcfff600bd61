"""The report's plots as SVG text: drawn here, so that they need no library and follow the page's light or dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import groupby
from math import log10
from typing import Final

from markupsafe import Markup, escape

from orderwire.pilot.report import Cut, DayLine, Wave

WIDTH, HEIGHT = 720, 250
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 30
_MILLISECONDS: Final = (10, 100, 1000, 10_000, 100_000)

Point = tuple[float, float | None]


def latency_by_day(days: Sequence[DayLine], *, good: float, bad: float) -> Markup:
    """Draw placed-to-painted p95 of each day and cohort, in milliseconds on a logarithmic axis.

    A working day without data is a grey band and breaks the line; `good` and `bad` are the limits in seconds.
    """
    shown = [line for line in days if line.day.weekday() < 5 or line.realtime or line.manual]
    series = {
        "on": [_p95(line.realtime) for line in shown],
        "off": [_p95(line.manual) for line in shown],
    }
    values = [v for points in series.values() for v in points if v] or [good * 1000]
    low, high = _decades([*values, good * 1000, bad * 1000])

    def y(value: float) -> float:
        return _y((log10(value) - log10(low)) / (log10(high) - log10(low)))

    parts = [*_days_axis([line.day for line in shown], [line.missing for line in shown])]
    parts += [_rule(y(tick), _ms(tick)) for tick in _MILLISECONDS if low <= tick <= high]
    parts += [_limit(y(good * 1000), "target", "good"), _limit(y(bad * 1000), "no improvement", "bad")]
    for name, points in series.items():
        placed = [(_x(at, len(shown)), y(v) if v else None) for at, v in enumerate(points)]
        parts.append(_line(placed, name))
    return _svg("Placed to painted, 95th percentile of each day", parts)


def waits(cohorts: Iterable[tuple[str, Cut]], *, good: float) -> Markup:
    """Draw what share of the orders was painted within which time: the whole truth behind a percentile."""
    given = [(name, cut) for name, cut in cohorts if cut.waits]
    values = [max(value, 1) for _, cut in given for value in cut.waits] or [10, 10_000]
    low, high = _decades([*values, good * 1000])

    def x(value: float) -> float:
        share = (log10(max(value, 1)) - log10(low)) / (log10(high) - log10(low))
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    parts = [_rule(_y(share), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 0.95)]
    parts += [_upright(x(tick), _ms(tick)) for tick in _MILLISECONDS if low <= tick <= high]
    parts.append(_upright_limit(x(good * 1000), "target"))
    for name, cut in given:
        parts.append(_line(_cumulated(cut.waits, x), name, dots=False))
    return _svg("Share of orders painted within a time", parts)


def _cumulated(counts: Mapping[int, int], x: object) -> list[Point]:
    total, seen = sum(counts.values()), 0
    points: list[Point] = []
    for value in sorted(counts):
        seen += counts[value]
        points.append((x(value), _y(seen / total)))  # type: ignore[operator]  # a function of a value
    step = max(len(points) // 300, 1)
    return [*points[::step], points[-1]]


def uptime_by_day(days: Sequence[DayLine], *, good: float, bad: float) -> Markup:
    """Draw the real-time cohort's uptime of each day."""
    shown = [line for line in days if line.day.weekday() < 5 or line.realtime or line.manual]
    values = [
        line.realtime.uptime.value if line.realtime and line.realtime.uptime else None for line in shown
    ]
    floor = min([bad - 0.002, *(v for v in values if v is not None)])
    floor = max(floor - 0.002, 0.0)

    def y(value: float) -> float:
        return _y((value - floor) / (1 - floor))

    parts = [*_days_axis([line.day for line in shown], [line.missing for line in shown])]
    parts += [_rule(y(1.0), "100 %"), _rule(y(floor), f"{floor * 100:.1f} %")]
    parts += [_limit(y(good), f"target {good:.1%}", "good"), _limit(y(bad), f"frequent {bad:.0%}", "bad")]
    parts.append(
        _line([(_x(at, len(shown)), None if v is None else y(v)) for at, v in enumerate(values)], "on")
    )
    return _svg("Streams live, share of account-minutes in market hours", parts)


def satisfaction(waves: Sequence[Wave]) -> Markup:
    """Draw the answers to the first question of both waves, as shares."""
    parts = [_rule(_y(share), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    room = (WIDTH - LEFT - RIGHT) / 5
    for number in range(1, 6):
        middle = LEFT + room * (number - 0.5)
        parts.append(
            f'<text class="tick" x="{middle:.1f}" y="{HEIGHT - 9}" text-anchor="middle">{number}</text>'
        )
        for at, (wave, tone) in enumerate(zip(waves, ("off", "on"), strict=False)):
            share = wave.counts.get(number, 0) / wave.answered if wave.answered else 0.0
            top = _y(share)
            parts.append(
                f'<rect class="answers {tone}" x="{middle - 34 + at * 36:.1f}" y="{top:.1f}" width="32" '
                f'height="{_y(0) - top:.1f}" rx="3"><title>{escape(wave.name)}: {share:.0%}</title></rect>'
            )
    return _svg("How satisfied with order updates? (1 not at all, 5 very)", parts)


def _p95(cut: Cut | None) -> float | None:
    return max(cut.latency.value * 1000, 1.0) if cut and cut.latency else None


def _decades(values: Sequence[float]) -> tuple[float, float]:
    low = max((tick for tick in _MILLISECONDS if tick <= min(values)), default=1)
    high = min((tick for tick in _MILLISECONDS if tick >= max(values)), default=1_000_000)
    return float(low), float(high)


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.0f} s"


def _y(share: float) -> float:
    return TOP + (1 - min(max(share, 0.0), 1.0)) * (HEIGHT - TOP - BOTTOM)


def _x(at: int, count: int) -> float:
    return LEFT + (at + 0.5) * (WIDTH - LEFT - RIGHT) / max(count, 1)


def _days_axis(days: Sequence[date], missing: Sequence[bool]) -> Iterable[str]:
    room = (WIDTH - LEFT - RIGHT) / max(len(days), 1)
    for at, (day, gone) in enumerate(zip(days, missing, strict=True)):
        if gone:
            yield (
                f'<rect class="gap" x="{LEFT + at * room:.1f}" y="{TOP}" width="{room:.1f}" '
                f'height="{HEIGHT - TOP - BOTTOM}"><title>{day}: no data</title></rect>'
            )
        if day.weekday() == 0 or at == 0:
            yield (
                f'<text class="tick" x="{_x(at, len(days)):.1f}" y="{HEIGHT - 9}" text-anchor="middle">'
                f"{day:%d %b}</text>"
            )


def _rule(y: float, words: str) -> str:
    return (
        f'<line class="gridline" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{words}</text>'
    )


def _limit(y: float, words: str, tone: str) -> str:
    return (
        f'<line class="limit {tone}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick {tone}" x="{WIDTH - RIGHT}" y="{y - 5:.1f}" text-anchor="end">{words}</text>'
    )


def _upright(x: float, words: str) -> str:
    return (
        f'<line class="gridline" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="tick" x="{min(x, WIDTH - RIGHT - 14):.1f}" y="{HEIGHT - 9}" text-anchor="middle">{words}</text>'
    )


def _upright_limit(x: float, words: str) -> str:
    return (
        f'<line class="limit good" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="tick good" x="{x + 5:.1f}" y="{HEIGHT - BOTTOM - 6}">{words}</text>'
    )


def _line(points: Sequence[Point], tone: str, *, dots: bool = True) -> str:
    """Draw a line that is broken where a value is missing."""
    parts = []
    for there, group in groupby(points, key=lambda point: point[1] is not None):
        if there:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in group)
            parts.append(f'<polyline class="line {tone}" points="{path}"/>')
    if dots:
        parts += [
            f'<circle class="dot {tone}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
            for x, y in points
            if y is not None
        ]
    return "".join(parts)


def _svg(words: str, parts: Iterable[str]) -> Markup:
    return Markup(  # noqa: S704 - every text in it is escaped or a number
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">'
        + "".join(parts)
        + "</svg>"
    )

"""A good and a bad day for each rule: what its metrics read, second by second."""

from __future__ import annotations

from collections.abc import Iterator

from orderwire.core.alerts import (
    MARKET_NEAR,
    MARKET_OPEN,
    Increase,
    Level,
    Quantile,
    Readings,
    Rule,
    Share,
    Watch,
    evaluate,
)

BOUNDS = (0.001, 0.016, 0.125, 1.0, float("inf"))
BAD_FROM, BAD_UNTIL = 40, 100


class Day:
    """`bad` makes the rule's condition true from BAD_FROM to BAD_UNTIL; `open` is whether a market is."""

    def __init__(self, rule: Rule, *, bad: bool, market: bool = True) -> None:
        self.rule = rule
        self.bad = bad
        self.market = market
        self.labels = (("broker", "wired"),) if rule.by else ()
        self.end = int(BAD_UNTIL + getattr(rule.measure, "seconds", 0) + rule.hold + rule.keep + 30)

    def is_bad(self, second: int) -> bool:
        return self.bad and BAD_FROM <= second < BAD_UNTIL

    def gauge(self, second: int) -> float:
        limit, step = self.rule.limit, max(self.rule.limit / 2, 0.05)
        worse = limit - step if self.rule.below else limit + max(step, 1)
        return worse if self.is_bad(second) else limit

    def counters(self, second: int) -> dict[str, float]:
        bad = max(0, min(second, BAD_UNTIL) - BAD_FROM + 1) if self.bad and second >= BAD_FROM else 0
        match self.rule.measure:
            case Increase(metric=metric):
                return {metric: float(min(bad, 1))}
            case Share(part=part, whole=whole):
                return {part: float(bad), whole: 50.0 * second}
        return {}

    def buckets(self, second: int) -> tuple[tuple[float, float], ...]:
        """100 durations a second, all of 10 ms; on a bad day every tenth of 500 ms."""
        slow = 10 * max(0, min(second, BAD_UNTIL) - BAD_FROM) if self.bad else 0
        total = 100 * second
        return ((0.001, 0.0), (0.016, float(total - slow)), (0.125, float(total - slow)), (1.0, float(total)), (float("inf"), float(total)))  # fmt: skip

    def series(self) -> dict[str, list[float]]:
        """Every series, as Prometheus names them, a value for each second."""
        label = 'broker="wired"' if self.rule.by else ""
        found: dict[str, list[float]] = {
            MARKET_OPEN: [float(self.market)] * self.end,
            MARKET_NEAR: [float(self.market)] * self.end,
        }
        seconds = range(self.end)
        match self.rule.measure:
            case Level(metric=metric):
                found[f"{metric}{{{label}}}"] = [self.gauge(second) for second in seconds]
            case Quantile(metric=metric):
                for number, bound in enumerate(BOUNDS):
                    le = "+Inf" if bound == float("inf") else f"{bound:g}"
                    found[f'{metric}_bucket{{le="{le}"}}'] = [
                        self.buckets(second)[number][1] for second in seconds
                    ]
            case _:
                for metric in self.counters(0):
                    found[f"{metric}{{{label}}}"] = [self.counters(second)[metric] for second in seconds]
        return found

    def readings(self) -> Iterator[Readings]:
        for second in range(self.end):
            values = {MARKET_OPEN: {(): float(self.market)}, MARKET_NEAR: {(): float(self.market)}}
            buckets = {}
            match self.rule.measure:
                case Level(metric=metric):
                    values[metric] = {self.labels: self.gauge(second)}
                case Quantile(metric=metric):
                    buckets = {metric: {(): self.buckets(second)}}
                case _:
                    values |= {name: {self.labels: count} for name, count in self.counters(second).items()}
            yield Readings(at=float(second), values=values, buckets=buckets)

    def raised(self) -> list[bool]:
        """Whether our own evaluation holds the alert raised, second by second."""
        watch, found = Watch(), []
        for readings in self.readings():
            watch = evaluate((self.rule,), watch, readings).watch
            found.append(bool(watch.raised))
        return found

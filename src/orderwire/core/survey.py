"""The survey of the pilot: five questions, what an answer may be, and what a wave of answers says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from orderwire.errors import InvalidRequestError

WAVES: Final = ("baseline", "follow-up")
"""Before anybody is on real-time updates, and near the end."""

LOWEST, HIGHEST = 1, 5
LONGEST: Final = 2000
"""Characters of free words that are kept."""


class Question(Struct, frozen=True, kw_only=True):
    """One question; a scale from 1 to 5, or free words."""

    name: str
    words: str
    low: str = ""
    """What 1 means; empty for free words."""
    high: str = ""

    @property
    def scale(self) -> bool:
        """Whether it is answered by a number."""
        return bool(self.low)


QUESTIONS: Final = (
    Question(
        name="satisfaction",
        words="How satisfied with order updates?",
        low="not at all",
        high="very",
    ),
    Question(
        name="speed",
        words="How soon do you learn what became of an order?",
        low="far too late",
        high="at once",
    ),
    Question(
        name="trust",
        words="How much do you rely on what the order page shows?",
        low="I check at the broker",
        high="fully",
    ),
    Question(name="next_broker", words="Which broker should come next?"),
    Question(name="wish", words="What should be better?"),
)


class Answers(Struct, frozen=True, kw_only=True):
    """One filled-in survey: numbers and words by the questions' names; what was left out is not there."""

    scales: Mapping[str, int]
    words: Mapping[str, str]


def read_answers(fields: Mapping[str, str]) -> Answers:
    """Read a form. Raises InvalidRequestError by field; the first question must be answered."""
    problems: dict[str, str] = {}
    scales: dict[str, int] = {}
    words: dict[str, str] = {}
    for question in QUESTIONS:
        given = fields.get(question.name, "").strip()
        if not question.scale:
            if given:
                words[question.name] = given[:LONGEST]
        elif given in _NUMBERS:
            scales[question.name] = int(given)
        elif given:
            problems[question.name] = f"Choose a number from {LOWEST} to {HIGHEST}."
    if "satisfaction" not in scales:
        problems.setdefault("satisfaction", "Answer this one, please; the others are optional.")
    if problems:
        raise InvalidRequestError(problems)
    return Answers(scales=scales, words=words)


def broker_demand(answers: Iterable[Answers]) -> list[tuple[str, int]]:
    """Rank the brokers that were wished for, as they were spelt most often, case and spaces apart."""
    spelt: dict[str, dict[str, int]] = {}
    for answer in answers:
        wish = " ".join(answer.words.get("next_broker", "").split())
        if wish:
            spellings = spelt.setdefault(wish.casefold(), {})
            spellings[wish] = spellings.get(wish, 0) + 1
    ranked = [
        (max(spellings, key=lambda s: (spellings[s], s)), sum(spellings.values()))
        for spellings in spelt.values()
    ]
    return sorted(ranked, key=lambda pair: (-pair[1], pair[0]))


_NUMBERS: Final = frozenset(str(number) for number in range(LOWEST, HIGHEST + 1))


FOLLOW_UP_AFTER: Final = timedelta(weeks=4)
"""After the first users were let in: near the end of a pilot of seven weeks."""


def open_wave(stages: Sequence[tuple[datetime, int]], *, now: datetime) -> str | None:
    """Return the wave that is asked now; None outside a pilot.

    `stages` are the operators' decisions, oldest first: when, and the share of users in force from then on. A pilot
    begins with a decision; until anybody is let in, the baseline is asked.
    """
    if not stages:
        return None
    let_in = _let_in(stages)
    if let_in is None:
        return "baseline"
    return "follow-up" if now - let_in >= FOLLOW_UP_AFTER else None


def opened_waves(stages: Sequence[tuple[datetime, int]], *, now: datetime) -> set[str]:
    """Return the waves that are or were asked, by the rule of `open_wave`: of no other can anybody be silent."""
    let_in = _let_in(stages)
    rules = {
        "baseline": bool(stages) and let_in != stages[0][0],
        "follow-up": let_in is not None and now - let_in >= FOLLOW_UP_AFTER,
    }
    return {wave for wave, opened in rules.items() if opened}


def _let_in(stages: Sequence[tuple[datetime, int]]) -> datetime | None:
    return next((at for at, stage in stages if stage), None)

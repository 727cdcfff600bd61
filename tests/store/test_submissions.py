from __future__ import annotations

import itertools
from datetime import date

import pytest
from sqlalchemy import insert

from orderwire.core.lifecycle import SubmissionState as S
from orderwire.store import schema
from orderwire.store.submissions import AlreadySubmittedError, follows, row, submission_of
from store.making import submission


@pytest.mark.parametrize(("held", "said"), list(itertools.product(list(S), list(S))))
def test_what_was_decided_is_never_undone(held, said):
    allowed = {
        (S.SENDING, S.ACCEPTED),
        (S.SENDING, S.REFUSED),
        (S.SENDING, S.UNKNOWN),
        (S.UNKNOWN, S.ACCEPTED),
        (S.UNKNOWN, S.REFUSED),
    }

    assert follows(submission(state=held), submission(state=said)) is ((held, said) in allowed)


@pytest.mark.parametrize("said", list(S))
def test_the_first_word_always_counts(said):
    assert follows(None, submission(state=said))


@pytest.mark.parametrize(
    ("held", "said", "counts"), [("1", "2", True), ("1", "1", False), ("1", "", False), ("", "1", True)]
)
def test_an_accepted_one_may_be_given_another_order(held, said, counts):
    before, after = (submission(state=S.ACCEPTED, order_id=order) for order in (held, said))

    assert follows(before, after) is counts


def test_a_used_key_names_the_submission_that_has_it():
    error = AlreadySubmittedError(submission())

    assert error.submission == submission()
    assert "nothing was sent again" in str(error)


def test_a_submission_is_found_by_its_id_as_it_is_written_down_now(database):
    database.write(lambda c: c.execute(insert(schema.submissions), row(submission("OW1"), date(2026, 8, 17))))

    assert submission_of(database, "OW1") == submission("OW1")
    assert submission_of(database, "OW2") is None

from __future__ import annotations

from datetime import timedelta

import pytest

from orderwire.store import audit


def test_deeds_are_listed_newest_first_with_their_detail(database, clock):
    for number in range(3):
        database.write(
            lambda connection, number=number: audit.record(
                connection, at_ns=clock.time_ns(), who="asha", what="looked", number=str(number)
            )
        )
        clock.advance(1)

    found = audit.entries(database, most=2)

    assert [entry.detail["number"] for entry in found] == ["2", "1"]
    assert found[0].at == clock.now() - timedelta(seconds=1)


def test_a_deed_that_was_undone_is_not_on_record(database):
    def fails(connection):
        audit.record(connection, at_ns=1, who="asha", what="tried")
        raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        database.write(fails)

    assert audit.entries(database) == []

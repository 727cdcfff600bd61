from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from orderwire.errors import ConfigurationError
from orderwire.store import schema
from orderwire.store.database import Database
from orderwire.store.migrations import run


def test_the_newest_migration_is_the_one_the_start_compares_with():
    assert run.scripts().get_current_head() == schema.REVISION


def test_the_migrations_make_exactly_the_tables_of_the_schema(database):
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, schema.metadata)

    assert differences == []


def test_partial_indexes_are_made(database):
    partial = {
        "ix_orders_live": "orders",
        "ix_submissions_open": "submissions",
        "ix_inbox_unsettled": "inbox",
        "ix_notifications_waiting": "notifications",
        "ix_alerts_open": "alerts",
    }

    with database.read() as connection:
        for name, table in partial.items():
            indexes = {index["name"]: index for index in inspect(connection).get_indexes(table)}
            assert any(key.endswith("_where") for key in indexes[name].get("dialect_options", {}))


def test_migrating_twice_does_nothing_the_second_time(database):
    assert database.revision() == schema.REVISION
    assert database.migrate() is False


def migrated_by_a_newer_release(database, *, oldest):
    def work(connection):
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("DELETE FROM compatibility"))
        connection.execute(text("INSERT INTO compatibility (oldest) VALUES (:oldest)"), {"oldest": oldest})

    database.write(work)


def test_a_database_of_the_next_release_is_used_as_it_is_where_that_release_allows(database):
    migrated_by_a_newer_release(database, oldest=schema.REVISION)

    assert database.migrate() is False
    assert database.revision() == "9999"


def test_migrating_says_from_which_release_on_the_tables_can_be_used(clock, tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'a.db'}", clock=clock)
    try:
        database.migrate()
        with database.read() as connection:
            assert connection.execute(text("SELECT oldest FROM compatibility")).scalars().all() == [
                schema.OLDEST
            ]
    finally:
        database.close()
    assert schema.OLDEST <= schema.REVISION


def test_a_database_of_a_newer_release_is_refused(database):
    migrated_by_a_newer_release(database, oldest="9999")

    with pytest.raises(ConfigurationError, match="newer release"):
        database.migrate()


def test_a_migration_that_fails_half_way_leaves_nothing(clock, tmp_path, monkeypatch):
    database = Database(f"sqlite:///{tmp_path / 'a.db'}", clock=clock)
    upgrade = run.upgrade

    def breaks(connection):
        upgrade(connection)
        raise RuntimeError("power cut")

    monkeypatch.setattr(run, "upgrade", breaks)
    with pytest.raises(RuntimeError, match="power cut"):
        database.migrate()
    monkeypatch.undo()

    with database.read() as connection:
        assert inspect(connection).get_table_names() == []
    assert database.migrate() is True
    database.close()

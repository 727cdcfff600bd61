"""Runs the migrations of this package; imported only when there is something to migrate."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from orderwire.errors import ConfigurationError
from orderwire.store import schema

_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(7266241104)"


def scripts() -> ScriptDirectory:
    """Return the migrations, oldest to newest."""
    return ScriptDirectory(str(Path(__file__).parent))


def upgrade(connection: Connection) -> None:
    """Bring the database of `connection` to the newest form inside the caller's transaction.

    Raises ConfigurationError when the database knows a migration that this release does not.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_ONE_AT_A_TIME)
    directory = scripts()

    def steps(revision: object, _context: object) -> object:
        return directory._upgrade_revs("head", revision)  # type: ignore[arg-type]  # noqa: SLF001 - as alembic.command does

    with EnvironmentContext(Config(), directory, fn=steps) as environment:
        environment.configure(
            connection=connection, target_metadata=schema.metadata, transactional_ddl=True, fn=steps
        )
        try:
            environment.run_migrations()
        except CommandError as error:
            raise ConfigurationError(
                f"The database was made by a newer release of orderwire ({error}); install that one."
            ) from error
    connection.execute(schema.compatibility.delete())
    connection.execute(schema.compatibility.insert(), {"oldest": schema.OLDEST})

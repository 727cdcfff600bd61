"""Adds to each account's change log whose it is, which is still known once the account was removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("ledgers", sa.Column("owner", sa.Text(), nullable=True))
    op.execute(
        "UPDATE ledgers SET owner = (SELECT accounts.owner FROM accounts WHERE accounts.id = ledgers.account)"
    )

"""Numbers the outbox's rows a second time, by shards of accounts, in the order of their commits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "shards",
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("shard", name="pk_shards"),
    )
    op.add_column("outbox", sa.Column("shard", sa.Integer(), nullable=True))
    op.add_column("outbox", sa.Column("position", sa.BigInteger(), nullable=True))
    op.create_index("ix_outbox_shard_position", "outbox", ["shard", "position"], unique=True)

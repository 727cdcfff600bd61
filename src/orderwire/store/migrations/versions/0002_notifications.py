"""Makes the tables of notifications: rules, preferences, targets, and what is on its way."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "notification_rules",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("occasion", sa.Text(), nullable=False),
        sa.Column("loudness", sa.Text(), nullable=False),
        _of_a_user("notification_rules"),
        sa.PrimaryKeyConstraint("owner", "occasion", name="pk_notification_rules"),
    )
    op.create_table(
        "notification_preferences",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        _of_a_user("notification_preferences"),
        sa.PrimaryKeyConstraint("owner", name="pk_notification_preferences"),
    )
    op.create_table(
        "notification_targets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        _of_a_user("notification_targets"),
        sa.PrimaryKeyConstraint("id", name="pk_notification_targets"),
    )
    op.create_index("ix_notification_targets_owner", "notification_targets", ["owner"])
    _make_notifications()


def _make_notifications() -> None:
    op.create_table(
        "notifications",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("silent", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("queued_ns", sa.BigInteger(), nullable=False),
        sa.Column("due_ns", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["target"], ["notification_targets.id"], name="fk_notifications_target", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_notifications"),
        sa.UniqueConstraint("key", "target", name="uq_notifications_key_target"),
    )
    op.create_index("ix_notifications_owner", "notifications", ["owner"])
    op.create_index("ix_notifications_target", "notifications", ["target"])
    waiting = sa.text("state = 'WAITING'")
    op.create_index(
        "ix_notifications_waiting", "notifications", ["id"], sqlite_where=waiting, postgresql_where=waiting
    )


def _of_a_user(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["owner"], ["users.name"], name=f"fk_{table}_owner", ondelete="CASCADE")

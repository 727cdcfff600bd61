"""The tables, the same for SQLite and PostgreSQL.

Conventions: times are whole nanoseconds since the epoch (`_ns`), session days are ISO text, money is inside
JSON as exact decimal text, flags are 0 or 1. Values with a life of their own (a view, a change, a request) are
one JSON column beside the few columns that are searched; the broker's bytes are kept as they came.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

REVISION = "0011"
"""The newest migration; `Database.migrate` skips Alembic when the database is at it."""

OLDEST = "0010"
"""The oldest `REVISION` whose release works with these tables: the one before this, so that workers are upgraded one
by one. A migration only adds (tables, columns that may be empty or have a default); what it makes useless goes a
release later, and then this moves on."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_NUMBER = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself only where the type is spelt INTEGER."""


def _text(name: str, *constraints: Any, **options: Any) -> Column[str]:
    return Column(name, Text, *constraints, nullable=options.pop("nullable", False), **options)


def _ns(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _flag(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, default=0)


# --- who ----------------------------------------------------------------------------------------------

users = Table(
    "users",
    metadata,
    _text("name", primary_key=True),
    _text("password"),
    _text("role"),
    _flag("disabled"),
    _ns("created_ns"),
)

accounts = Table(
    "accounts",
    metadata,
    _text("id", primary_key=True),
    _text("broker"),
    _text("title"),
    _text("owner", ForeignKey("users.name")),
    _text("addresses"),
    _flag("allow_plaintext"),
    _text("app"),
    _text("postback_segment", index=True),
    _text("session_user", nullable=True),
    _text("session_facts", nullable=True),
    _ns("session_expires_ns", nullable=True),
    _ns("created_ns"),
)

sealed = Table(
    "sealed",
    metadata,
    _text("account", ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    _text("field", primary_key=True),
    _text("key_id"),
    Column("secret", LargeBinary, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    _text("id", primary_key=True),
    _text("owner", ForeignKey("users.name", ondelete="CASCADE"), index=True),
    _text("digest", unique=True),
    _text("scope"),
    _text("label"),
    _ns("created_ns"),
    _ns("revoked_ns", nullable=True),
)

web_sessions = Table(
    "web_sessions",
    metadata,
    _text("digest", primary_key=True),
    _text("owner", nullable=True, index=True),
    Column("content", LargeBinary, nullable=False),
    Column("expires_ns", BigInteger, nullable=False, index=True),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _ns("at_ns"),
    _text("who"),
    _text("what"),
    _text("detail"),
)

invitations = Table(
    "invitations",
    metadata,
    _text("digest", primary_key=True),
    _text("purpose"),
    _text("owner"),
    _text("made_by"),
    _ns("expires_ns"),
)
"""Links that work once: for the first administrator (`owner` empty), and to set a password."""

# --- what an order is ---------------------------------------------------------------------------------

ledgers = Table(
    "ledgers",
    metadata,
    _text("account", primary_key=True),
    _text("epoch"),
    Column("sequence", BigInteger, nullable=False),
    Column("floor", BigInteger, nullable=False),
    _text("owner", nullable=True),
)
"""Where each account's change log stands: `sequence` is the last one given, `floor` the last one compacted away.

It outlives the account until its data is erased; `owner` says whose data that is, none while it is being erased."""

orders = Table(
    "orders",
    metadata,
    _text("account", primary_key=True),
    _text("trading_date", primary_key=True),
    _text("order_id", primary_key=True),
    _text("last_day"),
    _flag("live"),
    _text("status"),
    _ns("updated_ns"),
    _text("view"),
    _text("state"),
    Index("ix_orders_account_last_day", "account", "last_day"),
)
"""`last_day` is the last session day that changed the order: an order of yesterday that fills today is on today's page."""

Index(
    "ix_orders_live",
    orders.c.account,
    sqlite_where=orders.c.live == 1,
    postgresql_where=orders.c.live == 1,
)

submissions = Table(
    "submissions",
    metadata,
    _text("id", primary_key=True),
    _text("account"),
    _text("trading_date"),
    _text("state"),
    _text("order_id"),
    _text("idempotency_key", nullable=True),
    _text("body"),
    UniqueConstraint("account", "idempotency_key"),
    Index("ix_submissions_account_trading_date", "account", "trading_date"),
)

Index(
    "ix_submissions_open",
    submissions.c.account,
    sqlite_where=submissions.c.state.in_(("SENDING", "UNKNOWN")),
    postgresql_where=submissions.c.state.in_(("SENDING", "UNKNOWN")),
)

trades = Table(
    "trades",
    metadata,
    _text("account", primary_key=True),
    _text("trading_date", primary_key=True),
    _text("exchange", primary_key=True),
    _text("order_id", primary_key=True),
    _text("trade_id", primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    _text("trade"),
    Column("raw", LargeBinary, nullable=False),
)

positions = Table(
    "positions",
    metadata,
    _text("account", primary_key=True),
    _text("exchange", primary_key=True),
    _text("symbol", primary_key=True),
    _text("product", primary_key=True),
    _text("trading_date"),
    _text("position"),
)

# --- what came in, what goes out -----------------------------------------------------------------------

inbox = Table(
    "inbox",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _text("account"),
    _text("order_id"),
    Column("digest", BigInteger, nullable=False),
    _text("trading_date", index=True),
    _text("channel"),
    _text("verdict"),
    _text("note"),
    _text("claimed_time"),
    _ns("received_ns"),
    _ns("settled_ns", nullable=True),
    _text("observation"),
    Column("raw", LargeBinary, nullable=False),
    UniqueConstraint("account", "order_id", "digest"),
)

Index(
    "ix_inbox_unsettled",
    inbox.c.account,
    sqlite_where=inbox.c.settled_ns.is_(None),
    postgresql_where=inbox.c.settled_ns.is_(None),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _text("account"),
    _text("epoch"),
    Column("sequence", BigInteger, nullable=False),
    _text("trading_date", index=True),
    _text("change"),
    Column("shard", Integer, nullable=True),
    Column("position", BigInteger, nullable=True),
    UniqueConstraint("account", "epoch", "sequence"),
    Index("ix_outbox_shard_position", "shard", "position", unique=True),
)
"""`shard` and `position` say where a change stands among those of many accounts, in the order of their commits; none
where a release without shards wrote it."""

shards = Table(
    "shards",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    _text("generation"),
)
"""How far each shard of the outbox got; a new `generation` begins where positions may be given a second time."""

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _ns("at_ns"),
    _text("account", index=True),
    _text("order_id"),
    _text("kind"),
    _text("reason"),
    _text("observation"),
    Column("raw", LargeBinary, nullable=False),
)

compatibility = Table("compatibility", metadata, _text("oldest", primary_key=True))
"""One row: the newest release's `OLDEST`, for releases that do not know its migrations."""

commits = Table(
    "commits",
    metadata,
    _text("writer", primary_key=True),
    Column("number", BigInteger, nullable=False),
    _ns("at_ns"),
)
"""The last commit of each process on PostgreSQL, written in it: there when a crash took the answer, it went through."""

# --- who does the work, when there are several processes ------------------------------------------------

workers = Table(
    "workers",
    metadata,
    _text("id", primary_key=True),
    _text("role"),
    _text("place"),
    _text("version"),
    _ns("started_ns"),
    _ns("expires_ns"),
    _flag("draining"),
    _text("report"),
)
"""Every process that lives, by its own word and the database's clock; `report` is what it last said of itself."""

leases = Table(
    "leases",
    metadata,
    _text("account", primary_key=True),
    _text("worker", index=True),
    Column("token", BigInteger, nullable=False),
)
"""Who owns an account's feed, for as long as that worker lives by the database's clock. `token` grows with every change of hands and is
never used again; without a worker the account is free."""

feed_states = Table(
    "feed_states",
    metadata,
    _text("account", primary_key=True),
    _text("worker"),
    _text("status"),
    _text("health"),
    _flag("redirects"),
    Column("changed_ns", BigInteger, nullable=False, index=True),
)
"""What each account's owner last said of its feed; for the processes that have no feeds."""

commands = Table(
    "commands",
    metadata,
    _text("id", primary_key=True),
    _text("account"),
    _text("kind"),
    _text("body"),
    _text("state"),
    _text("worker"),
    _text("reply"),
    _ns("asked_ns"),
    _ns("deadline_ns"),
    Index("ix_commands_asked_ns", "asked_ns"),
)
"""What an account's owner is to do for a process without feeds; done at most once, whatever dies."""

Index(
    "ix_commands_open",
    commands.c.account,
    sqlite_where=commands.c.state.in_(("WAITING", "TAKEN")),
    postgresql_where=commands.c.state.in_(("WAITING", "TAKEN")),
)

# --- what can be traded --------------------------------------------------------------------------------

instruments = Table(
    "instruments",
    metadata,
    _text("broker", primary_key=True),
    _text("exchange", primary_key=True),
    _text("symbol", primary_key=True),
    _text("broker_exchange"),
    _text("broker_symbol"),
    Column("token", BigInteger, nullable=False),
    _text("broker_token"),
    _text("name"),
    _text("kind"),
    _text("expiry", nullable=True),
    _text("strike"),
    Column("lot_size", BigInteger, nullable=False),
    _text("tick_size"),
    Column("freeze_quantity", BigInteger, nullable=False),
)

instrument_days = Table(
    "instrument_days",
    metadata,
    _text("broker", primary_key=True),
    _text("day"),
    Column("rows", BigInteger, nullable=False),
    _ns("loaded_ns"),
)

# --- what is told outside the pages --------------------------------------------------------------------

notification_rules = Table(
    "notification_rules",
    metadata,
    _text("owner", ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
    _text("occasion", primary_key=True),
    _text("loudness"),
)

notification_preferences = Table(
    "notification_preferences",
    metadata,
    _text("owner", ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
    _text("body"),
)

notification_targets = Table(
    "notification_targets",
    metadata,
    _text("id", primary_key=True),
    _text("owner", ForeignKey("users.name", ondelete="CASCADE"), index=True),
    _text("kind"),
    _text("label"),
    _text("service"),
    _text("key_id"),
    Column("secret", LargeBinary, nullable=False),
    _ns("created_ns"),
)
"""`secret` is the sealed address, with the key its messages are signed with."""

notifications = Table(
    "notifications",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _text("key"),
    _text("target", ForeignKey("notification_targets.id", ondelete="CASCADE"), index=True),
    _text("owner", index=True),
    _text("state"),
    _flag("silent"),
    Column("attempts", Integer, nullable=False),
    _ns("queued_ns"),
    _ns("due_ns"),
    _text("error"),
    _text("body"),
    UniqueConstraint("key", "target"),
)

Index(
    "ix_notifications_waiting",
    notifications.c.id,
    sqlite_where=notifications.c.state == "WAITING",
    postgresql_where=notifications.c.state == "WAITING",
)

# --- the pilot -----------------------------------------------------------------------------------------

rollout_changes = Table(
    "rollout_changes",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _ns("at_ns"),
    _text("who"),
    _text("what"),
    _text("why"),
    _text("state"),
)
"""One row a decision of the operators (or the guard); the newest is in force."""

pilot_choices = Table(
    "pilot_choices",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _ns("at_ns"),
    _text("owner", index=True),
    _text("choice"),
)
"""One row a choice; a user's newest is in force."""

enrolments = Table(
    "enrolments",
    metadata,
    _text("account", primary_key=True),
    _text("broker"),
    _text("owner"),
    _text("reason"),
    _ns("at_ns"),
)
"""When an account first came onto real-time updates, and why."""

pilot_minutes = Table(
    "pilot_minutes",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    _text("broker", primary_key=True),
    _text("cohort", primary_key=True),
    _text("tally"),
)
"""What each minute told of one broker's accounts, on real-time updates or not."""

# --- what somebody should look at ----------------------------------------------------------------------

alerts = Table(
    "alerts",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _text("rule"),
    _text("severity"),
    _text("broker"),
    _text("account"),
    _text("text"),
    _ns("raised_ns"),
    _ns("cleared_ns", nullable=True),
    _text("told"),
)
"""Alerts that were raised, and notices; `told` says by which channels, or why not."""

Index(
    "ix_alerts_open",
    alerts.c.rule,
    alerts.c.broker,
    sqlite_where=alerts.c.cleared_ns.is_(None),
    postgresql_where=alerts.c.cleared_ns.is_(None),
)

alert_silences = Table(
    "alert_silences",
    metadata,
    _text("rule", primary_key=True),
    _text("broker", primary_key=True),
    _ns("until_ns"),
    _text("who"),
    _text("reason"),
)

# --- what people say of the pilot ----------------------------------------------------------------------

survey_answers = Table(
    "survey_answers",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _text("wave", index=True),
    _text("owner", nullable=True),
    _text("cohort"),
    _text("day"),
    _text("answers"),
)
"""One row an answered survey; without an owner when it was given anonymously, and then only to the day."""

survey_seen = Table(
    "survey_seen",
    metadata,
    _text("owner", primary_key=True),
    _text("wave", primary_key=True),
    _text("outcome"),
)
"""Who answered or dismissed a wave, so that nobody is asked twice; it does not say which answers were whose."""

feedback = Table(
    "feedback",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _ns("at_ns"),
    _text("owner", nullable=True),
    _text("words"),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _text("severity"),
    _text("title"),
    _ns("opened_ns"),
    _ns("closed_ns", nullable=True),
    _text("who"),
)

soft_answers = Table(
    "soft_answers",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    _ns("at_ns"),
    _text("question", index=True),
    _text("value"),
    _text("author"),
)
"""Recorded answers to the criteria no machine measures; the newest of a question counts."""

# --- where it is at home ------------------------------------------------------------------------------

hosts = Table(
    "hosts",
    metadata,
    _text("owner", primary_key=True),
    _text("places"),
    _text("apps"),
    _ns("seen_ns"),
)
"""The host application of a user: how far its log of each account was told, and the marks of its broker apps."""

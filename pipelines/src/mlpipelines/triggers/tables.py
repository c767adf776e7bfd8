"""The trigger's tables, the same on SQLite (one machine) and PostgreSQL (a cluster), made on first use. Times are seconds since 1970.

    trigger_decisions   every answer to every cause; only ever added to
    trigger_runs        a row for each run that was decided on, from `wanted` over `started` to `ended`
    trigger_gpu_time    what the runs that ended held of GPUs
    trigger_rollouts    a row for each run whose version the trigger is to roll out, from `wanted` over `started` to `ended`
    trigger_freezes     who wanted no training of a model, and until when
    trigger_schedules   how far each schedule was looked through
    trigger_notices     what people are told, until it has arrived

Where the database is: `mlserving.database`. Who reads and writes them: `triggers.ledger`, and `triggers.rollouts` those of rollouts.
"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, String, Table

WANTED, STARTED, ENDED = "wanted", "started", "ended"

METADATA = MetaData()
DECISIONS = Table(
    "trigger_decisions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("model", String, nullable=False, index=True),
    Column("signal", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("starts_at", Float, nullable=False),
    Column("key", String, nullable=False, index=True),
    Column("reason", String, nullable=False),
    Column("text", String, nullable=False),
    Column("summary", String, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("again_at", Float),
)
RUNS = Table(
    "trigger_runs",
    METADATA,
    Column("name", String, primary_key=True),
    Column("key", String, nullable=False, unique=True),
    Column("model", String, nullable=False, index=True),
    Column("decided_at", Float, nullable=False),
    Column("state", String, nullable=False),
    Column("cause", JSON, nullable=False),
    Column("outcome", String, nullable=False, default=""),
    Column("trouble", String, nullable=False, default=""),
    Column("tries", Integer, nullable=False, default=0),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("address", String, nullable=False, default=""),
)
GPU_TIME = Table(
    "trigger_gpu_time",
    METADATA,
    Column("name", String, primary_key=True),
    Column("seconds", Float),
)
"""Of runs that ended: GPUs times seconds, null where that could not be seen."""
ROLLOUTS = Table(
    "trigger_rollouts",
    METADATA,
    Column("run", String, primary_key=True),
    Column("model", String, nullable=False, index=True),
    Column("wanted_at", Float, nullable=False),
    Column("state", String, nullable=False),
    Column("cluster_run", String, nullable=False, default=""),
    Column("version", Integer),
    Column("phase", String, nullable=False, default=""),
    Column("text", String, nullable=False, default=""),
    Column("tries", Integer, nullable=False, default=0),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("due", Float, nullable=False, default=0.0),
)
FREEZES = Table(
    "trigger_freezes",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", String, nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("by", String, nullable=False),
    Column("why", String, nullable=False),
    Column("until", Float),
    Column("lifted_at", Float),
    Column("lifted_by", String),
)
SCHEDULES = Table(
    "trigger_schedules",
    METADATA,
    Column("model", String, primary_key=True),
    Column("said", String, nullable=False),
    Column("until", Float, nullable=False),
    Column("waiting", Float),
)
NOTICES = Table(
    "trigger_notices",
    METADATA,
    Column("name", String, primary_key=True),
    Column("way", String, nullable=False),
    Column("notice", JSON, nullable=False),
    Column("written", Float, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("trouble", String, nullable=False, default=""),
    Column("delivered", Float),
    Column("given_up", Boolean, nullable=False, default=False),
)

"""Logs of services: one JSON object a line on standard error. People read commands, machines read services."""

from __future__ import annotations

import logging
import os
import sys

import structlog


def log_json(level: str | None = None) -> None:
    """Have structlog write JSON, from a level on, or from the one that MILLRACE_LOG_LEVEL names."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level or os.environ.get("MILLRACE_LOG_LEVEL", "INFO").upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )

"""Times as people type them: `--since` and `--until`, read alike by the command, before anything starts, and by `ingest` in a pod."""

from __future__ import annotations

from datetime import UTC, datetime

from mlpipelines.errors import ConfigError


def moments(since: str, until: str) -> tuple[datetime | None, datetime | None]:
    """Both ends of a window, None where the text is empty.

    Args:
        since: ISO 8601; UTC where it names no offset.
        until: likewise.

    Raises:
        ConfigError: a text is no time, or the window ends before it begins.
    """
    start, end = _moment("--since", since), _moment("--until", until)
    if start is not None and end is not None and start >= end:
        raise ConfigError(f"--since {since} is not before --until {until}, so no row can lie between them. Correct them and run again.")
    return start, end


def _moment(option: str, text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise ConfigError(f"{option} {text!r} is not a time. Type ISO 8601, for example: {option} 2025-01-31T06:00") from error
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)

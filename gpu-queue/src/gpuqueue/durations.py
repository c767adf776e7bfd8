"""Durations as people write them: `90m`, `6h`, `1h30m15s`.

The grammar is that of the GpuQueue's own schema (`helm/gpu-queue/crds/gpuqueues.yaml`), so that a run limit on a pod, a field of a
queue and an option of the command are all read alike.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_FORM = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
_UNITS = (("h", 3600), ("m", 60), ("s", 1))
_FIRST, _LAST = (datetime(year, 1, 2, tzinfo=UTC).timestamp() for year in (1, 9999))


def seconds_of(text: str) -> float:
    """The seconds of a duration.

    Raises:
        ValueError: it is no duration, or not above zero; the text says what may stand there.
    """
    found = _FORM.fullmatch(text)
    total = sum(int(count or 0) * size for count, (_, size) in zip(found.groups(), _UNITS, strict=True)) if found else 0
    if total <= 0:
        raise ValueError(f"{text!r} is no duration above zero; write hours, minutes and seconds in this order, such as 90m, 6h or 1h30m")
    return float(total)


def words_of(seconds: float) -> str:
    """A duration to read, to the second: `1h30m`, `45s`; what `seconds_of` reads back. Nothing, or less, is `0s`."""
    rest, words = max(0, round(seconds)), ""
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        words += f"{count}{unit}" if count else ""
    return words or "0s"


def moment_of(seconds: float) -> datetime:
    """Seconds since the epoch as a moment in UTC; what lies beyond the calendar, as the limit of a million hours does, is its end."""
    return datetime.fromtimestamp(min(max(seconds, _FIRST), _LAST), UTC)

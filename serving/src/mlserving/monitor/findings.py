"""What a run of the monitor found, as data: the terminal, the page, the JSON and Prometheus all tell these."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from mlserving.monitor.drift import ColumnDrift
from mlserving.monitor.labelling import Labelling
from mlserving.monitor.quality import Quality

WHOLE = ""
"""The slice that is all rows of a version and track."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something worth somebody's attention, in the form that an alert has."""

    name: str
    """Of the alert and of its runbook."""
    labels: Mapping[str, str]
    value: float
    threshold: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """What the golden requests of a version gave when they were asked again."""

    version: int
    requests: int
    failures: int = 0
    """Requests that were not answered, or whose answer differs."""
    worst: float = 0.0
    """Largest difference, as a share of the expected value where that is above 1; 1 for a text that differs."""
    example: str = ""
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rows of one version on one track, or of one slice of them."""

    version: int
    track: str
    slice: str = WHOLE
    """`<column>=<value>`, or all."""
    rows: int
    has_statistics: bool
    """Whether the version carries statistics of its training, without which drift cannot be measured."""
    judged: bool
    """Whether there are rows enough to alarm."""
    columns: tuple[ColumnDrift, ...] = ()
    unlogged: tuple[str, ...] = ()
    """Features that training had and the log does not keep."""
    unknown: tuple[str, ...] = ()
    """Features in the log that training did not describe."""
    quality: Quality = field(default_factory=Quality)
    labelling: Labelling
    floor: float | None = None
    label_delay_limit: float | None = None
    """Seconds."""

    @property
    def labels(self) -> dict[str, str]:
        """As metrics and alarms carry them."""
        return {"version": str(self.version), "track": self.track, "slice": self.slice}


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All of one run for one model."""

    model: str
    start: datetime
    end: datetime
    measured_at: datetime
    groups: tuple[Group, ...] = ()
    parity: tuple[Parity, ...] = ()
    servers_reached: bool | None = None
    """Whether the servers that golden requests were to be asked of answered; None where none was named."""
    alarms: tuple[Alarm, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know: what is missing, and which sample the labels are."""
    comparisons: int = 0
    """Among how many the run's chance of a false alarm was shared out."""
    seconds: float = 0.0
    rows: int = field(default=0)
    """Rows of the log in the window, those that no version answered among them."""

    def as_json(self) -> str:
        """For programs: the same fields, times as ISO 8601, numbers that are none as null."""
        return json.dumps(_plain(asdict(self)), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value

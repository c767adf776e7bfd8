"""How a version wants to be watched: written beside it when it is published, overridden by a file of the same form.

`mlpipelines` fills it from the project's `monitor`, `validation` and `evaluation` sections, so that whoever trains a model says once what
counts as drift, which output is the answer, and how good is good enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mlserving import store
from mlserving.settings_file import SettingsFile, Strict

MOST_SLICES = 20
"""Of one column: the most frequent values."""
Share = Annotated[float, Field(gt=0, le=1)]


class Capacity(Strict):
    """How many cases people look at."""

    cases: Annotated[int, Field(gt=0)]
    per: Literal["day", "week", "set"] = "day"
    """`set`: over the whole window."""


class Outputs(Strict):
    """The outputs of the model that say what it thinks, as the log names them after `output/`."""

    score: str = "score"
    """For detection: higher is more suspicious."""
    value: str = "value"
    """For regression."""


class MonitorSettings(Strict):
    """The file as a whole. Everything has a default: a version without one is watched for drift and answers of classes."""

    task: Literal["classification", "detection", "regression", "other"] = "classification"
    """What labels are compared with: the predicted class, the highest scores, the value, or nothing."""
    positive: str | None = None
    """For detection: the label that counts as a case; without it `1` and `true`."""
    outputs: Outputs = Outputs()
    drift: Share = 0.1
    """The distance to training from which a change matters: L-infinity for text, Jensen-Shannon for numbers. Chance may ask for more."""
    columns: dict[str, Share] = Field(default_factory=dict)
    """A threshold of its own for a feature or an output."""
    ignore: tuple[str, ...] = ()
    """Features that are expected to move (a date, a running number): measured nowhere."""
    missing: Share = 0.1
    """How far the share of missing values may move from training."""
    false_alarms: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    """The chance that one run alarms about drift where only chance was at work, over all columns, tracks, versions and slices together."""
    slices: tuple[str, ...] = ()
    """Columns of the log whose values are looked at by themselves too: a feature, or `track`, `protocol`, `label`."""
    min_rows: Annotated[int, Field(ge=20)] = 100
    """Fewer rows than this are counted and shown, and raise no alarm."""
    floor: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Alarm when accuracy (detection: recall at the capacity) is below this, with the confidence below: the interval's upper end counts."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of all intervals."""
    capacity: Capacity | None = None
    """For detection: the highest scores that people look at."""
    label_delay_hours: Annotated[float, Field(gt=0)] | None = None
    """Alarm when nine in ten labels take longer than this, or none has come for as long."""
    parity_tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """Numbers of golden answers agree within this, relative to the expected value where that is above 1."""


FILE = SettingsFile(MonitorSettings, "docs/monitoring.md", "Name another file with --settings, or publish the version anew.")


def of_version(folder: Path) -> MonitorSettings:
    """The settings that the version in `folder` carries; the defaults where it carries none. Raises as `SettingsFile.read` does."""
    path = folder / store.MONITOR_SETTINGS
    return FILE.read(path) if path.is_file() else MonitorSettings()

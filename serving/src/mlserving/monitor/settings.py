"""How a version wants to be watched: written beside it when it is published, overridden by a file of the same form.

`mlpipelines` fills it from the project's `monitor`, `validation` and `evaluation` sections, so that whoever trains a model says once what
counts as drift, which output is the answer, and how good is good enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlserving import store
from mlserving.errors import ConfigError

MOST_SLICES = 20
"""Of one column: the most frequent values."""
Share = Annotated[float, Field(gt=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Capacity(_Strict):
    """How many cases people look at."""

    cases: Annotated[int, Field(gt=0)]
    per: Literal["day", "week", "set"] = "day"
    """`set`: over the whole window."""


class Outputs(_Strict):
    """The outputs of the model that say what it thinks, as the log names them after `output/`."""

    score: str = "score"
    """For detection: higher is more suspicious."""
    value: str = "value"
    """For regression."""


class MonitorSettings(_Strict):
    """The file as a whole. Everything has a default: a version without one is watched for drift and answers of classes."""

    task: Literal["classification", "detection", "regression", "other"] = "classification"
    """What labels are compared with: the predicted class, the highest scores, the value, or nothing."""
    positive: str | None = None
    """For detection: the label that counts as a case; without it `1` and `true`."""
    outputs: Outputs = Outputs()
    drift: Share = 0.1
    """The distance to training from which a change matters: L-infinity for text, Jensen-Shannon for numbers. Chance may ask for more."""
    columns: dict[str, Share] = {}
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


def parse(text: str, where: str) -> MonitorSettings:
    """The settings that `text` (YAML or JSON) states. `where` is named in errors.

    Raises:
        ConfigError: it is no YAML, or a field is unknown or out of range; the text names the field.
    """
    try:
        return MonitorSettings.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is no YAML: {error}") from error
    except ValidationError as error:
        complaints = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors())
        raise ConfigError(f"{where}: {complaints}. Every field: docs/monitoring.md") from error


def read(path: Path) -> MonitorSettings:
    """The settings in a file. Raises as `parse` does, and ConfigError where the file cannot be read."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Name a file with --settings.") from error


def of_version(folder: Path) -> MonitorSettings:
    """The settings that the version in `folder` carries; the defaults where it carries none."""
    path = folder / store.MONITOR_SETTINGS
    return read(path) if path.is_file() else MonitorSettings()

"""What `POST /v1/labels` may say, checked label by label: one that is wrong is refused with its path, the others are kept."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError

from mlserving.errors import ConfigError
from mlserving.settings_file import complaints

MOST_LABELS = 10_000
"""In one request."""
MOST_BYTES = 8 << 20
"""Of one request."""
_CLOCKS_DIFFER = timedelta(minutes=5)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLE = '{"model": "M", "labels": [{"prediction_id": "…", "label": "…"}]}'


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(_Strict):
    """One label."""

    prediction_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    """What `x-prediction-id` said."""
    row: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Index of the instance in its request."""
    label: Annotated[StrictStr, Field(min_length=1, max_length=1000)] | StrictBool | StrictInt | StrictFloat
    """The truth."""
    labelled_at: AwareDatetime | None = None
    """When somebody knew (RFC 3339). Without it, now; with it, telling the same again changes nothing."""
    reviewer: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class Labels(_Strict):
    """The request."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]
    labels: Annotated[list[Any], Field(min_length=1, max_length=MOST_LABELS)]


def parsed(document: Any, source: str, now: datetime) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    """The labels as `LABEL_FIELDS` with times as microseconds, and the index and reason of each one that is refused.

    Raises:
        ConfigError: the request as a whole is wrong; the text names the path.
    """
    try:
        asked = Labels.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{complaints(error, whole='the request')}. Write {_EXAMPLE}, at most {MOST_LABELS} labels at a time.") from error
    kept, refused = [], []
    for index, each in enumerate(asked.labels):
        try:
            kept.append(_checked(each, asked.model, source, now))
        except ValidationError as error:
            refused.append((index, complaints(error, before=f"labels.{index}.", whole="the request")))
        except ValueError as error:
            refused.append((index, f"labels.{index}.{error}"))
    return kept, refused


def _checked(document: Any, model: str, source: str, now: datetime) -> dict[str, Any]:
    label = Label.model_validate(document)
    labelled_at = label.labelled_at or now
    if not _EARLIEST <= labelled_at <= now + _CLOCKS_DIFFER:
        raise ValueError(f"labelled_at: {labelled_at.isoformat()} is no time at which somebody can have known it")
    return {
        "prediction_id": label.prediction_id, "row": label.row, "model": model, "label": text_of(label.label),
        "labelled_at": _microseconds(labelled_at), "received_at": _microseconds(now), "source": source, "reviewer": label.reviewer,
    }  # fmt: skip


def text_of(label: str | bool | float) -> str:
    """A label as the log's `label` column writes it."""
    if isinstance(label, bool):
        return "true" if label else "false"
    if isinstance(label, float) and not math.isfinite(label):
        raise ValueError("label: it is no number")
    return str(label)


def _microseconds(time: datetime) -> int:
    return (time - _EARLIEST) // timedelta(microseconds=1)

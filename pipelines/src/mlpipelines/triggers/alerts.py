"""From what Alertmanager posts to causes.

A message (version 4) carries a group of alerts; each firing one is a cause of its own. Two labels of an alert make it one of ours: `model`, and
`signal`, which says what it tells of (`decide.Signal`). Our rules set both. An alert without them is told back with its reason and
starts nothing; a message that is no message is refused as a whole. Alertmanager adds fields from version to version, so what is not
known here is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlpipelines.errors import ConfigError
from mlpipelines.triggers.decide import ALERTED, Cause, Signal

MODEL_LABEL, SIGNAL_LABEL = "model", "signal"
_MOST_ALERTS = 10_000
_LONGEST = 500
"""Characters of a summary that are kept."""


class _Sent(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Alert(_Sent):
    """One alert of a message."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: datetime  # noqa: N815  Alertmanager's name
    fingerprint: str = Field(min_length=1, max_length=128)


class Message(_Sent):
    """What Alertmanager's webhook receiver posts."""

    version: Literal["4"]
    alerts: list[Alert] = Field(max_length=_MOST_ALERTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """An alert that is no cause."""

    fingerprint: str
    why: str


def parse(body: bytes) -> Message:
    """The message in a request's body.

    Raises:
        ConfigError: it is no JSON, or not a message of version 4; the text names the field.
    """
    try:
        return Message.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the body"
        raise ConfigError(f"{field}: {first['msg']}. This address takes what Alertmanager's webhook_config posts, version 4.") from error


def causes(message: Message) -> tuple[list[Cause], list[Unread]]:
    """The causes that a message tells of, in its order, and the alerts that are none."""
    found: list[Cause] = []
    unread: list[Unread] = []
    for alert in message.alerts:
        cause = _cause(alert)
        (found if isinstance(cause, Cause) else unread).append(cause)  # type: ignore[arg-type]  # the list that takes it
    return found, unread


def _cause(alert: Alert) -> Cause | Unread:
    model, signal = alert.labels.get(MODEL_LABEL, ""), alert.labels.get(SIGNAL_LABEL, "")
    if not model:
        return Unread(fingerprint=alert.fingerprint, why=f"the alert has no label {MODEL_LABEL!r}")
    if signal not in ALERTED:
        known = ", ".join(sorted(ALERTED))
        return Unread(fingerprint=alert.fingerprint, why=f"the label {SIGNAL_LABEL!r} is {signal!r}, not one of {known}")
    starts = alert.startsAt if alert.startsAt.tzinfo else alert.startsAt.replace(tzinfo=UTC)
    return Cause(
        model=model,
        signal=Signal(signal),
        fingerprint=alert.fingerprint,
        starts_at=starts.timestamp(),
        firing=alert.status == "firing",
        summary=(alert.annotations.get("summary") or alert.labels.get("alertname", ""))[:_LONGEST],
    )

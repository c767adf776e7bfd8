"""What Alertmanager posts, and what becomes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpipelines.errors import ConfigError
from mlpipelines.triggers.alerts import causes, parse
from mlpipelines.triggers.decide import Signal


def an_alert(**changes: Any) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": "ModelDrifts", "model": "scam", "signal": "drift"},
        "annotations": {"summary": "amount drifted"},
        "startsAt": "2026-11-28T05:00:00.123Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "c0ffee",
        **changes,
    }


def a_message(*alerts: dict[str, Any], **changes: Any) -> bytes:
    message = {
        "version": "4",
        "groupKey": "{}",
        "status": "firing",
        "receiver": "retrain",
        "notification_reason": "first",
        "alerts": list(alerts),
    }
    return json.dumps({**message, **changes}).encode()


def test_a_firing_alert_is_a_cause() -> None:
    (cause,), unread = causes(parse(a_message(an_alert())))
    assert (cause.model, cause.signal, cause.fingerprint, cause.firing) == ("scam", Signal.DRIFT, "c0ffee", True)
    assert (cause.starts_at, cause.summary) == (1795842000.123, "amount drifted")
    assert not unread


def test_the_same_instant_in_another_zone_is_the_same_occurrence() -> None:
    both, _ = causes(parse(a_message(an_alert(), an_alert(startsAt="2026-11-28T06:00:00.123+01:00"))))
    assert both[0].key == both[1].key


def test_alerts_that_are_not_ours_are_told_back_and_hold_nothing_up() -> None:
    found, unread = causes(
        parse(a_message(an_alert(labels={"alertname": "DiskFull"}), an_alert(), an_alert(labels={"model": "scam", "signal": "x"})))
    )
    assert len(found) == 1
    assert ["model" in unread[0].why, "drift" in unread[1].why] == [True, True]


@pytest.mark.parametrize("signal", ["by-hand", "calendar"])
def test_an_alert_cannot_pass_for_a_person_or_for_the_calendar(signal: str) -> None:
    found, unread = causes(parse(a_message(an_alert(labels={"model": "scam", "signal": signal}))))
    assert not found
    assert signal in unread[0].why


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "the body"),
        (b"[]", "the body"),
        (b"{}", "version"),
        (a_message(version="3"), "version"),
        (a_message(an_alert(startsAt="yesterday")), "alerts.0.startsAt"),
        (a_message(an_alert(), an_alert(status="pending")), "alerts.1.status"),
        (a_message(an_alert(fingerprint="")), "alerts.0.fingerprint"),
        (b"\xff\xfe", "the body"),
    ],
)
def test_what_is_no_message_is_refused_by_its_field(body: bytes, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(body)
    assert str(raised.value).startswith(field)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
hostile = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("status", "labels", "annotations", "startsAt", "fingerprint", "endsAt", "new"), json_values)
)


@given(st.lists(hostile | st.builds(an_alert, labels=st.dictionaries(st.text(max_size=8), st.text(max_size=8))), max_size=4))
def test_whatever_is_sent_is_read_or_refused(alerts: list[Any]) -> None:
    try:
        message = parse(a_message(*alerts))
    except ConfigError:
        return
    found, unread = causes(message)
    assert len(found) + len(unread) == len(alerts)

"""Who is told of an alert, and with which secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mlplatform.environment import Environment, read_environment
from mlplatform.plan import alerting

ENVIRONMENTS = Path(__file__).resolve().parents[3] / "platform" / "environments"


def environment() -> Environment:
    return read_environment(ENVIRONMENTS / "gke-prod.yaml")


def configuration() -> Any:
    return yaml.safe_load(alerting.configuration(environment()))


def test_every_name_in_the_text_has_a_credential_and_the_other_way_round() -> None:
    text = alerting.configuration(environment())
    names = {part.partition(" }}")[0] for part in text.split("{{ .")[1:]}
    assert names == alerting.sources(environment()).keys()


def test_drift_goes_to_the_trigger_of_the_models_team_and_to_people_too() -> None:
    first, *others = configuration()["route"]["routes"]
    assert first["receiver"] == "trigger-fraud"
    assert first["matchers"] == ['signal=~"drift|quality"', 'model=~"transactions"']
    assert first["continue"]
    assert [route["receiver"] for route in others] == ["on-call", "channel"]


def test_a_trigger_is_told_with_its_own_token_where_it_listens() -> None:
    (trigger,) = [one for one in configuration()["receivers"] if one["name"] == "trigger-fraud"]
    assert trigger["webhook_configs"][0]["url"] == "http://retraining.fraud.svc:9096/alerts"
    assert alerting.sources(environment())["trigger_fraud"] == "retraining-token-fraud"

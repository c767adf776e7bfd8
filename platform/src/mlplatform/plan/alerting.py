"""Alertmanager's configuration from an environment: who is told of which alerts, and which of them a team's trigger decides on.

It is a text in a Secret, for addresses and tokens stand in it; here they are still `{{ .NAME }}` (`credentials`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from mlplatform.environment import Environment
from mlplatform.services import Receiver

SIGNALS = "drift|quality"
"""Of alerts that may start a training (docs/retraining.md)."""
OPERATOR = ("monitoring", "alertmanager-millrace")
GOOGLE = ("gmp-public", "alertmanager")
"""Namespace and name of the Secret that Google's managed Alertmanager reads."""


def configuration(environment: Environment) -> str:
    """As YAML."""
    receivers = environment.monitoring.receivers
    told = {
        "route": {
            "receiver": "nobody",
            "group_by": ["alertname", "namespace", "model"],
            "routes": [*_to_triggers(environment), *(_to_people(name, receiver) for name, receiver in receivers.items())],
        },
        "receivers": [
            {"name": "nobody"},
            *({"name": f"trigger-{team}", "webhook_configs": [_webhook(environment, team)]} for team in _with_triggers(environment)),
            *({"name": name, **_way(name, receiver)} for name, receiver in receivers.items()),
        ],
    }
    return yaml.safe_dump(told, sort_keys=False, width=140)


def sources(environment: Environment) -> Mapping[str, str]:
    """Which credential stands for each NAME in it."""
    people = {_variable(name): f"alert-{name}" for name in environment.monitoring.receivers}
    return people | {_token(team): f"retraining-token-{team}" for team in _with_triggers(environment)}


def _with_triggers(environment: Environment) -> list[str]:
    """Teams whose models are watched and that have a trigger."""
    watched = {model.team for model in environment.models.values() if model.monitor}
    return [team for team in environment.teams if team in watched] if environment.retraining.enabled else []


def _to_triggers(environment: Environment) -> Iterator[dict[str, Any]]:
    for team in _with_triggers(environment):
        models = "|".join(name for name, model in environment.models.items() if model.team == team and model.monitor)
        yield {
            "matchers": [f'signal=~"{SIGNALS}"', f'model=~"{models}"'],
            "receiver": f"trigger-{team}",
            "group_by": ["model"],
            "group_wait": "30s",
            "group_interval": "5m",
            # An alert that came during a cooldown starts its run with a later repeat.
            "repeat_interval": "1h",
            # People hear of it too.
            "continue": True,
        }


def _to_people(name: str, receiver: Receiver) -> dict[str, Any]:
    return {"matchers": [f'severity=~"{"|".join(receiver.severities)}"'], "receiver": name, "continue": True}


def _webhook(environment: Environment, team: str) -> dict[str, Any]:
    return {
        "url": f"http://retraining.{environment.teams[team].namespaces[0]}.svc:9096/alerts",
        "max_alerts": 1000,
        "http_config": {"authorization": {"credentials": f"{{{{ .{_token(team)} }}}}"}},
    }


def _way(name: str, receiver: Receiver) -> dict[str, Any]:
    secret = f"{{{{ .{_variable(name)} }}}}"
    match receiver.kind:
        case "slack":
            return {"slack_configs": [{"api_url": secret, "channel": receiver.to, "send_resolved": True}]}
        case "pagerduty":
            return {"pagerduty_configs": [{"routing_key": secret}]}
        case "webhook":
            return {"webhook_configs": [{"url": secret}]}
        case "email":
            sender = {"from": receiver.sender, "smarthost": receiver.smarthost, "auth_username": receiver.sender, "auth_password": secret}
            return {"email_configs": [{"to": receiver.to, **sender}]}


def _variable(name: str) -> str:
    return f"alert_{name.replace('-', '_')}"


def _token(team: str) -> str:
    return f"trigger_{team.replace('-', '_')}"

"""Which releases a team's trigger may roll out, whom it asks, and who lets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mlplatform.environment import Environment, parse_environment
from mlplatform.plan import values, values_of_teams
from mlplatform.plan.credentials import secret_objects

STAGING = Path(__file__).resolve().parents[3] / "platform" / "environments" / "gke-staging.yaml"


def staging(**changes: Any) -> Environment:
    """With one of its sections replaced."""
    return parse_environment(yaml.safe_dump({**yaml.safe_load(STAGING.read_text()), **changes}), "gke-staging.yaml")


def model(**fields: Any) -> dict[str, Any]:
    return {"team": "fraud", "namespace": "fraud", **fields}


def releases(environment: Environment, team: str) -> Any:
    return values_of_teams.retraining(environment, team).get("rollouts", {}).get("releases", {})


def registry(environment: Environment, team: str) -> Any:
    """As whom its trigger names champions."""
    name = values_of_teams.retraining(environment, team)["registry"]["secretName"]
    return next(each.data["username"] for each in secret_objects(environment) if (each.namespace, each.name) == (team, name))


def admitted(environment: Environment) -> list[Any]:
    """Rules by which triggers reach Prometheus."""
    rules = values.foundation(environment)["namespaces"]["monitoring"]["ingress"]
    return [rule for rule in rules if "retraining" in str(rule)]


def test_a_trigger_rolls_out_its_own_team_s_models_that_ask_for_it_and_no_others() -> None:
    models = {
        "transactions": model(rollout="automatic"),
        "scam": model(),
        "ranking": {"team": "search", "namespace": "search", "rollout": "automatic"},
    }
    environment = staging(models=models)
    assert releases(environment, "fraud") == {"transactions": {"release": "transactions", "namespace": "fraud"}}
    assert releases(environment, "search") == {"ranking": {"release": "ranking", "namespace": "search"}}
    assert registry(environment, "fraud") == "fraud.runs"
    assert registry(environment, "search") == "search.runs"


def test_where_people_roll_out_no_trigger_has_a_release_or_a_way_to_prometheus() -> None:
    by_hand = staging(models={"transactions": model()})
    assert releases(by_hand, "fraud") == {}
    assert admitted(by_hand) == []


def test_triggers_and_nobody_else_of_a_team_reach_prometheus() -> None:
    (rule,) = admitted(staging())
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "retraining"}
    assert peer["namespaceSelector"]
    assert rule["ports"] == [{"port": 9090, "protocol": "TCP"}]


def test_the_operator_s_prometheus_is_asked_unless_another_is_named() -> None:
    def asked(**monitoring: str) -> Any:
        return values_of_teams.retraining(staging(monitoring=monitoring), "fraud")["rollouts"]["prometheus"]

    assert asked(kind="operator") == "http://prometheus-operated.monitoring.svc:9090"
    assert asked(kind="operator", prometheus="https://thanos.example.com") == "https://thanos.example.com"

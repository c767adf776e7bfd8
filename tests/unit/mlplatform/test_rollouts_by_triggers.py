"""Which releases a team's trigger may roll out, whom it asks, and who lets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlplatform.environment import Environment, parse_environment
from mlplatform.errors import ConfigError
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


def let_out_to(prometheus: str) -> Any:
    """The peers that a trigger's policy names in place of the chart's own, the namespace `monitoring`."""
    found = values_of_teams.retraining(staging(monitoring={"kind": "operator", "prometheus": prometheus}), "fraud")
    return found.get("networkPolicy", {}).get("prometheus", "the chart's own")


@pytest.mark.parametrize(
    ("prometheus", "peers"),
    [
        ("", "the chart's own"),
        ("http://thanos-query.monitoring.svc.cluster.local:10902", "the chart's own"),
        ("http://thanos-query.observability.svc:10902", [values.named("observability")]),
        ("http://prometheus-0.prometheus-operated.watched.svc.cluster.local:9090/path", [values.named("watched")]),
        ("http://10.4.0.7:9090", [{"ipBlock": {"cidr": "10.4.0.7/32"}}]),
        ("http://[fd00::7]:9090", [{"ipBlock": {"cidr": "fd00::7/128"}}]),
        ("https://thanos.example.com", []),
        ("https://monitoring.svc.example.com", []),
    ],
)
def test_a_trigger_is_let_out_to_the_prometheus_that_is_named_and_to_no_other(prometheus: str, peers: Any) -> None:
    assert let_out_to(prometheus) == peers


def test_the_namespace_monitoring_lets_triggers_in_only_where_the_prometheus_that_they_ask_is_there() -> None:
    def ports(prometheus: str) -> list[int]:
        rules = admitted(staging(monitoring={"kind": "operator", "prometheus": prometheus}))
        return [port["port"] for rule in rules for port in rule["ports"]]

    assert ports("") == [9090]
    assert ports("http://thanos-query.monitoring.svc:10902") == [9090, 10902]
    assert ports("http://thanos-query.observability.svc:10902") == []
    assert ports("https://thanos.example.com") == []


@pytest.mark.parametrize(
    ("prometheus", "said"),
    [
        ("http://prometheus:9090", r"monitoring\.prometheus: prometheus is a name in one namespace only; write which: http://prometheus\.NAMESPACE\.svc:9090"),
        ("http://thanos.example.com:10902", r"thanos\.example\.com, triggers are let out on port 443 only, and this is 10902; .*NAME\.NAMESPACE\.svc"),
        ("http://frontend.monitoring:9090", r"on port 443 only, and this is 9090"),
        ("http://prometheus.example.com", r"and this is 80"),
        ("http://prometheus.monitoring.svc:metrics", r"monitoring\.prometheus: "),
        ("http://:9090", r"names no host"),
    ],
)  # fmt: skip
def test_a_prometheus_that_no_policy_could_let_a_trigger_out_to_is_refused(prometheus: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        staging(monitoring={"kind": "operator", "prometheus": prometheus})


def test_whom_nobody_asks_may_be_anywhere() -> None:
    staging(monitoring={"kind": "operator", "prometheus": "http://prometheus:9090"}, models={"transactions": model()})

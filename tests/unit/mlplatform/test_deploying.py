"""What a deployment decides without a cluster: who holds the lock, which values stay, which credentials are missing, what things cost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlplatform.cluster.credential_files import CredentialFiles
from mlplatform.cluster.lock import is_free, refusal
from mlplatform.cluster.objects import parsed, written
from mlplatform.cluster.programs import complaint
from mlplatform.cluster.releases import laid_over
from mlplatform.environment import Environment, read_environment
from mlplatform.errors import ConfigError, Conflict, PlatformError, Unavailable
from mlplatform.plan.cost import estimate
from mlplatform.plan.credentials import secret_objects
from mlplatform.plan.order import KEPT, plan
from mlplatform.plan.steps import Credential, SecretObject

ENVIRONMENTS = Path(__file__).resolve().parents[3] / "platform" / "environments"
NOW = datetime(2026, 11, 29, 10, 0, tzinfo=UTC)


def environment(name: str) -> Environment:
    return read_environment(ENVIRONMENTS / f"{name}.yaml")


def lease(renewed: int) -> Any:
    heard = (NOW - timedelta(seconds=renewed)).isoformat()
    return {
        "spec": {
            "holderIdentity": "ana@desk process 7",
            "acquireTime": "2026-11-29T09:58:00Z",
            "renewTime": heard,
            "leaseDurationSeconds": 60,
        }
    }


def test_a_lock_is_held_for_a_minute_after_the_last_word_and_ends_with_its_process() -> None:
    assert not is_free(lease(59), NOW)
    assert is_free(lease(61), NOW)
    assert is_free(lease(1), NOW, alive=lambda _: False)


def test_what_is_written_for_other_programs_is_read_by_them_as_it_was() -> None:
    things = [
        {"metadata": {"labels": {"answer": "y", "off": "no", "number": "0123", "time": "1e3", "text": "a: b\n#c"}}},
        {"spec": {"count": 3}},
    ]
    assert parsed(written(things)) == things
    assert all(json.loads(document) for document in written(things).split("---\n") if document), (
        "JSON, of which YAML 1.1 makes nothing else"
    )


def test_who_finds_the_lock_held_is_told_by_whom_since_when_and_until_when() -> None:
    told = refusal(lease(20), NOW)
    assert told.startswith("ana@desk process 7 deploys to this cluster since 09:58:00 UTC and was heard 20 s ago.")
    assert "the lock ends 40 s from now" in told


def test_an_upgrade_leaves_a_rollout_alone_and_brings_the_rest() -> None:
    planned = {"tracks": {"stable": {"version": 1, "replicas": 3}}, "monitor": {"enabled": True}}
    there = {
        "tracks": {"stable": {"version": 7, "replicas": 2, "weight": 90}, "canary": {"enabled": True, "version": 8, "weight": 10}},
        "rollout": {"document": "{}"},
    }
    assert laid_over(planned, there, KEPT) == {
        "tracks": {"stable": {"version": 7, "replicas": 3, "weight": 90}, "canary": {"enabled": True, "version": 8, "weight": 10}},
        "monitor": {"enabled": True},
        "rollout": {"document": "{}"},
    }


def test_without_any_rollout_the_environment_decides() -> None:
    planned = {"tracks": {"stable": {"version": 2}}}
    assert laid_over(planned, {"tracks": {"stable": {"version": 1}}}, KEPT) == planned


def secret(*credentials: Credential) -> SecretObject:
    return SecretObject(namespace="n", name="s", data={}, sources={credential.name: credential for credential in credentials})


def test_credentials_are_made_once_and_are_nobody_elses(tmp_path: Path) -> None:
    files = CredentialFiles(folder=tmp_path / "secrets", generate=True)
    wanted = [secret(Credential(name="a"), Credential(name="b", length=48))]
    assert not files.complete(wanted)
    first = files.values(wanted)
    assert first == files.values(wanted)
    assert files.complete(wanted)
    assert [len(first["a"]), len(first["b"])] == [32, 48]
    assert first["a"].isalnum()
    assert (tmp_path / "secrets" / "a").stat().st_mode & 0o777 == 0o600


def test_missing_credentials_are_all_named_and_placeholders_refused(tmp_path: Path) -> None:
    files = CredentialFiles(folder=tmp_path, generate=False)
    with pytest.raises(ConfigError, match="a, b"):
        files.values([secret(Credential(name="b"), Credential(name="a"))])
    (tmp_path / "a").write_text("changeme\n")
    with pytest.raises(ConfigError, match="placeholders: a"):
        files.values([secret(Credential(name="a"))])


def test_what_nobody_can_make_up_is_not_made_by_chance(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="review-users"):
        CredentialFiles(folder=tmp_path, generate=True).values([secret(Credential(name="review-users", length=0))])


@pytest.mark.parametrize("name", ["laptop", "gke-staging", "gke-prod"])
def test_every_credential_of_a_secret_is_used_in_it(name: str) -> None:
    for each in secret_objects(environment(name)):
        texts = "".join(each.data.values())
        assert all(f"{{{{ .{variable} }}}}" in texts for variable in each.sources)
        assert texts.count("{{") == texts.count("{{ .")


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("error: You must be logged in to the server (Unauthorized)", ConfigError, "Sign in again"),
        ("The connection to the server localhost:8080 was refused", Unavailable, "The cluster does not answer"),
        ('deployments.apps is forbidden: User "x" cannot patch', ConfigError, "access.admins"),
        ("admission webhook denied request: forbidden: namespace is in queue", Unavailable, "A guard of the cluster refused"),
        (
            'persistentvolumeclaims "x" is forbidden: only dynamically provisioned pvc can be resized',
            Unavailable,
            "A guard of the cluster refused",
        ),
        ('The StatefulSet "x" is invalid: spec: Forbidden: updates to statefulset spec', Unavailable, "The API server refuses it"),
        ("another operation (install/upgrade/rollback) is in progress", Conflict, "Somebody else"),
        ("E1129 03:47:51 memcache.go:265] noise\nsomething new", Unavailable, "failed: something new"),
    ],
)
def test_what_programs_complain_about_is_said_in_our_words(said: str, kind: type[PlatformError], words: str) -> None:
    error = complaint("kubectl", ["apply"], said)
    assert isinstance(error, kind)
    assert words in str(error)
    assert "memcache" not in str(error)


def test_a_month_costs_by_the_environments_prices() -> None:
    cost = estimate(environment("gke-prod"))
    assert cost is not None
    lines = {line.what.partition(":")[0]: line for line in cost.lines}
    reserved, spot = lines["pool l4-reserved"], lines["pool l4-spot"]
    assert reserved.least == reserved.most == pytest.approx(2 * (4.4 * 0.65 * 730 + 10))
    assert (spot.least, spot.most) == (0, pytest.approx(4 * (4.4 * 0.4 * 730 + 10)))
    assert lines["databases, MySQL and PostgreSQL"].least == 4 * 240
    assert cost.least < cost.most


def test_what_has_no_price_is_named_and_never_free() -> None:
    base = environment("gke-staging").model_dump()
    base["prices"]["machine_hour"].pop("g2-standard-8")
    base["prices"]["database_month"] = 0
    cost = estimate(Environment.model_validate(base))
    assert cost is not None
    assert "pool l4-spot: no price for g2-standard-8" in cost.unpriced
    assert "databases, MySQL and PostgreSQL: no price" in cost.unpriced


def test_a_cluster_that_is_there_costs_nothing_that_we_know_of() -> None:
    assert estimate(environment("laptop")) is None


def test_steps_stand_on_those_before_them() -> None:
    for name in ("laptop", "gke-staging", "gke-prod"):
        order = [step.name for step in plan(environment(name))]
        assert order[0] == "foundation"
        assert len(set(order)) == len(order)
        assert order.index("secrets") < order.index("kubeflow-pipelines") < order.index("gpu-queue") < order.index("team-fraud")
        assert order.index("team-fraud") < order.index("serving-transactions")

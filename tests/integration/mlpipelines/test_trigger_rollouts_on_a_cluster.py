"""A version that a run on Kubeflow registered is rolled out in a helm release by itself: real MLflow, real helm, a real API server; requests are made up.

It acts as the account that `helm/retraining` makes, with the rights that this chart gives it, on the file that it writes, and with nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mlpipelines.triggers import roller as rolling
from mlpipelines.triggers.places import releases
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.roller import Roller
from mlpipelines.triggers.rollouts import Rollouts
from mlpipelines.triggers.starts import Ended
from mlserving.audit.database import AuditLog
from mlserving.database import open_database
from mlserving.rollout.aliases import RUN, Registry, client_at
from mlserving.rollout.document import history
from mlserving.rollout.helm import HelmDriver
from rollouts import World, WorldSource
from served_release import NAMESPACE, RELEASE, Helm, cluster, installed

pytestmark = [pytest.mark.control_plane, pytest.mark.slow, pytest.mark.timeout(900)]
NAME = "demo-drift-1"
HOME = "ml"
CHARTS = Path(__file__).resolve().parents[3] / "helm"
SECRETS = f"kubeflow.image=registry.example/steps@sha256:{64 * 'a'},database.secretName=database,token.secretName=token,replicas=1"
CLAIM = {"kind": "claim", "claim": {"name": "predictions"}}
EVERY_KIND = {
    "tracks": {"stable": {"version": 1, "replicas": 1, "autoscaling": {"enabled": True, "cpu": 60}}},
    "gateway": {"replicas": 1, "predictions": CLAIM},
    "review": {"enabled": True, "database": {"claim": {"name": "reviews"}}, "access": {"users": {"name": "reviewers"}}},
}
PROJECT = """
name: demo
team: growth
task: classification
source: {kind: parquet, path: rows}
features: {pages: integer}
label: {column: left}
deployment: {track: canary, rollout: {steps: [10, 100], min_requests: 200, min_seconds: 10, keep_warm_seconds: 30}}
retraining: {rollout: automatic}
"""


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helm]:
    with cluster(tmp_path_factory.mktemp("plane")) as typed:
        yield typed


@pytest.fixture
def driver(helm: Helm, tmp_path: Path) -> Iterator[HelmDriver]:
    """An administrator's, of a release with an object of each kind that this API server knows."""
    with installed(helm, tmp_path, **EVERY_KIND) as found:
        yield found


class Account:
    """The trigger's account in its own namespace, as the chart of the trigger has made it for the release."""

    def __init__(self, driver: HelmDriver, folder: Path) -> None:
        self._driver, self._admin, self.kubeconfig = driver, os.environ["KUBECONFIG"], folder / "trigger.kubeconfig"
        self._typed("kubectl", "create", "namespace", HOME)
        rolls = (
            f"rollouts.prometheus=http://127.0.0.1:9,rollouts.releases.demo.release={RELEASE},rollouts.releases.demo.namespace={NAMESPACE}"
        )
        self._typed("helm", "install", "retraining", str(CHARTS / "retraining"), "--namespace", HOME, "--set", f"{SECRETS},{rolls}")
        cluster = yaml.safe_load(Path(self._admin).read_text())
        cluster["users"] = [
            {"name": "trigger", "user": {"token": self._typed("kubectl", "create", "token", "retraining", f"--namespace={HOME}").strip()}}
        ]
        cluster["contexts"] = [{"name": "trigger", "context": {"cluster": cluster["clusters"][0]["name"], "user": "trigger"}}]
        self.kubeconfig.write_text(yaml.safe_dump({**cluster, "current-context": "trigger"}))

    def file(self) -> str:
        """What the chart tells the trigger."""
        return self._typed(
            "kubectl", "get", "configmap", "retraining-rollouts", f"--namespace={HOME}", r"--output=jsonpath={.data.rollouts\.yaml}"
        )

    def may(self, verb: str, resource: str, namespace: str) -> bool:
        """As the API server says to the account itself; RESOURCE[.GROUP][/NAME], or RESOURCE/SUBRESOURCE without a group."""
        kind, _, name = resource.partition("/")
        plural, _, group = kind.partition(".")
        part = {"name": name} if group else {"subresource": name}
        asked = {"verb": verb, "group": group, "resource": plural, "namespace": namespace, **part}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": asked}}
        command = [self._driver.kubectl, f"--kubeconfig={self.kubeconfig}", "create", "--filename=-", "--output=json", "--validate=false"]
        done = subprocess.run(command, input=json.dumps(review), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return bool(json.loads(done.stdout)["status"]["allowed"])

    def remove(self) -> None:
        self._typed("helm", "uninstall", "retraining", "--namespace", HOME)
        self._typed("kubectl", "delete", "namespace", HOME)

    def _typed(self, program: str, *words: str) -> str:
        command = [getattr(self._driver, program), f"--kubeconfig={self._admin}", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def account(driver: HelmDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """From here on whoever asks the cluster by the environment's kubeconfig is the trigger."""
    found = Account(driver, tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv("KUBECONFIG", str(found.kubeconfig))
        patch.setenv("HELM", driver.helm)
        patch.setenv("KUBECTL", driver.kubectl)
        patch.setenv("HOME", str(tmp_path))
        yield found
    found.remove()


def test_the_account_may_upgrade_releases_where_they_are_served_and_nothing_else(account: Account) -> None:
    for verb, resource in (
        ("roll-out", "models.millrace.dev/demo"),
        ("patch", "deployments.apps"),
        ("create", "secrets"),
        ("watch", "deployments.apps"),
    ):
        assert account.may(verb, resource, NAMESPACE)
        assert not account.may(verb, resource, HOME)
        assert not account.may(verb, resource, "default")
    for verb, resource in (
        ("approve", "models.millrace.dev/demo"),
        ("roll-out", "models.millrace.dev/another"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("create", "jobs.batch"),
        ("create", "serviceaccounts/token"),
        ("patch", "resourcequotas"),
        ("escalate", "roles.rbac.authorization.k8s.io"),
        ("create", "clusterroles.rbac.authorization.k8s.io"),
        ("get", "nodes"),
        ("list", "namespaces"),
    ):
        assert not account.may(verb, resource, NAMESPACE), f"{verb} {resource}"


def test_what_a_run_on_a_cluster_brought_is_found_by_the_run_and_takes_over_in_its_release(
    helm: Helm, account: Account, tmp_path: Path
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "project.yaml").write_text(PROJECT)
    uri, now, world = f"sqlite:///{tmp_path}/mlflow.db", [1_000_000.0], World(1)
    client = client_at(uri)
    client.create_registered_model("demo")
    for number in (1, 2):
        client.create_model_version("demo", source="file:///nowhere", tags={RUN: f"id-of-run-{number}"})
    client.set_registered_model_alias("demo", "champion", "1")
    client.set_registered_model_alias("demo", "challenger", "2")
    audit = AuditLog(f"sqlite:///{tmp_path}/audit.db")
    (tmp_path / "rollouts.yaml").write_text(account.file())
    told = releases(tmp_path, "retraining", tmp_path / "rollouts.yaml")("demo")
    room = replace(told, source=WorldSource(world), registry=Registry(uri), audit=audit, clock=lambda: now[0])
    driver = room.driver
    asked = rolling.World(
        projects=Projects(tmp_path), room=lambda _: room, frozen=lambda _: None, reason_of=lambda _: "drift: pages drifted"
    )
    rollouts = Rollouts(open_database(f"sqlite:///{tmp_path}/serving.db"))
    roller = Roller(rollouts, asked, clock=lambda: now[0])
    for name, run_id in ((NAME, "id-of-run-2"), ("demo-quality-2", "id-of-a-run-that-the-gate-refused")):
        roller.ear().ended(name, "demo", Ended(outcome="succeeded", facts={"run_id": run_id}))
    for _ in range(40):
        rollout = driver.read("demo").rollout
        world.pass_time(20, rollout.weight if rollout else 0.0)
        now[0] += 20
        while (row := rollouts.claim(now[0], now[0] + 10)) is not None:
            roller.step(row)
        if not rollouts.due():
            break
    ended = {row.run: (row.phase, row.version) for row in rollouts.last("demo")}
    assert ended == {NAME: ("done", 2), "demo-quality-2": ("nothing", None)}
    desired = driver.read("demo")
    assert (desired.stable.version, len(desired.tracks)) == (2, 1)
    assert Registry(uri).aliases("demo") == {"champion": 2, "previous": 1}
    (past,) = history(desired)
    assert (past.started_by, past.reason, past.phase) == ("retraining", f"drift: pages drifted ({NAME})", "done")
    assert [entry.fact.action for entry in audit.entries()] == [f"rollout.{word}" for word in ("start", "step", "promote", "settle")]
    values = json.loads(helm("get", "values", RELEASE, "--output", "json").stdout)
    assert values["tracks"]["stable"]["version"] == 2

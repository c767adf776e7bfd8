"""Rollouts whose state lies in a helm release, on a real API server with controllers and nodes that only pretend: real helm, real kubectl, our chart."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlserving.audit.database import AuditLog
from mlserving.errors import Conflict, NotServed, Unavailable
from mlserving.rollout import actions
from mlserving.rollout.actions import Room, Wish
from mlserving.rollout.aliases import Registry
from mlserving.rollout.document import history
from mlserving.rollout.helm import MARK, HelmDriver
from mlserving.rollout.installed_chart import files_of
from mlserving.rollout.plan import Phase
from rollouts import World, WorldSource, plan
from served_release import CHART, NAMESPACE, RELEASE, Helm, cluster, installed

pytestmark = [pytest.mark.control_plane, pytest.mark.slow, pytest.mark.timeout(900)]
BEFORE = Path(__file__).resolve().parents[3] / "charts" / "model-serving-0.1.0.tgz"
AS_JSON = {"Chart.yaml", "values.yaml"}
"""Of a chart, what helm keeps as it has read it, without comments."""
WISH = Wish(model="demo", version=2, plan=plan(), reason="new week", digest="ab" * 32)


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helm]:
    with cluster(tmp_path_factory.mktemp("plane")) as typed:
        yield typed


@pytest.fixture
def driver(helm: Helm, tmp_path: Path) -> Iterator[HelmDriver]:
    """Of a release that serves version 1."""
    with installed(helm, tmp_path) as found:
        yield found


@pytest.fixture
def room(driver: HelmDriver, tmp_path: Path) -> Room:
    return Room(
        driver=driver,
        source=WorldSource(World(1)),
        registry=Registry(f"sqlite:///{tmp_path}/none.db"),
        audit=AuditLog(f"sqlite:///{tmp_path}/audit.db"),
        who="ann",
        load_seconds=120,
    )


def told_to_gateways(driver: HelmDriver) -> Any:
    """What stands in the ConfigMap that the gateways read."""
    command = [driver.kubectl, "get", "configmap", f"{RELEASE}-gateway", "--namespace", NAMESPACE, "--output", "json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {name: track["weight"] for name, track in yaml.safe_load(found["data"]["gateway.yaml"])["models"]["demo"]["tracks"].items()}


def deployments(driver: HelmDriver) -> set[str]:
    command = [driver.kubectl, "get", "deployments", "--namespace", NAMESPACE, "--output", "name"]
    return {line.rpartition("/")[2] for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()}


def test_a_rollout_lives_in_the_release_and_another_machine_goes_on_with_it(room: Room, driver: HelmDriver) -> None:
    now = [1_000_000.0]
    source = room.source
    assert isinstance(source, WorldSource)
    actions.start(replace(room, clock=lambda: now[0]), WISH)
    assert told_to_gateways(driver) == {"stable": 99, "canary": 1}
    phases = []
    for _ in range(40):
        another = replace(room, driver=replace(driver), clock=lambda: now[0], who="bob")
        desired = driver.read("demo")
        assert desired.rollout is not None
        phases.append(desired.rollout.weight)
        if desired.rollout.phase is Phase.PROMOTING:
            break
        source.world.pass_time(60, desired.rollout.weight)
        now[0] += 60
        actions.advance(another, "demo")
    assert list(dict.fromkeys(phases)) == [1, 10, 50, 100]
    assert told_to_gateways(driver) == {"stable": 0, "canary": 100}

    desired = actions.rollback(room, "demo", "customers complain")
    assert told_to_gateways(driver) == {"stable": 100}
    assert "cards-canary" not in deployments(driver)
    assert [past.phase for past in history(desired)] == [Phase.ROLLED_BACK]
    assert driver.read("demo") == desired


def test_the_promoted_version_becomes_stable_and_the_old_one_goes(room: Room, driver: HelmDriver) -> None:
    actions.start(room, WISH)
    actions.promote(room, "demo", "it is urgent")
    desired = actions.finish(room, "demo")
    assert desired.stable.version == 2
    assert desired.stable.digest == "ab" * 32
    assert told_to_gateways(driver) == {"stable": 100}
    assert "cards-canary" not in deployments(driver)


def test_whoever_read_before_somebody_else_wrote_is_told(room: Room, driver: HelmDriver) -> None:
    mine, theirs = driver.read("demo"), driver.read("demo")
    driver.write(theirs)
    with pytest.raises(Conflict, match="changed by somebody else"):
        driver.write(mine)


def test_values_that_people_set_by_helm_stay(room: Room, driver: HelmDriver, helm: Helm) -> None:
    assert helm("upgrade", RELEASE, str(CHART), "--reset-then-reuse-values", "--set", "gateway.settings.deadline=3").returncode == 0
    actions.start(room, WISH)
    values = json.loads(helm("get", "values", RELEASE, "--all", "--output", "json").stdout)
    assert values["gateway"]["settings"]["deadline"] == 3
    assert values["tracks"]["canary"]["version"] == 2


def manifest(helm: Helm) -> str:
    return helm("get", "manifest", RELEASE).stdout


def test_a_write_upgrades_with_the_chart_that_is_installed_to_the_letter(driver: HelmDriver, helm: Helm) -> None:
    before = manifest(helm)
    driver.write(driver.read("demo"))
    assert manifest(helm) == before
    shown = {path.relative_to(CHART).as_posix() for path in CHART.rglob("*") if path.is_file()}
    record = json.loads(kubectl(driver, "get", "secret", f"sh.helm.release.v1.{RELEASE}.v1", "--output=json"))["data"]["release"]
    assert files_of(record).keys() == shown
    assert all(content == (CHART / path).read_bytes() for path, content in files_of(record).items() if path not in AS_JSON)
    assert all(
        yaml.safe_load(content) == yaml.safe_load((CHART / path).read_text())
        for path, content in files_of(record).items()
        if path in AS_JSON
    )


def test_a_release_of_an_older_chart_stays_one(helm: Helm, tmp_path: Path) -> None:
    """A newer one at hand would upgrade it, unasked, in the middle of a rollout."""
    with installed(helm, tmp_path) as driver:
        assert helm("upgrade", RELEASE, str(BEFORE), "--reset-then-reuse-values").returncode == 0
        for _ in range(2):
            driver.write(driver.read("demo"))
        (shown,) = json.loads(helm("list", "--output", "json").stdout)
        assert (shown["chart"], shown["status"]) == ("model-serving-0.1.0", "deployed")


def test_after_a_write_that_failed_the_chart_is_that_of_the_last_one_that_did_not(driver: HelmDriver, helm: Helm) -> None:
    failed = helm("upgrade", RELEASE, str(BEFORE), "--reset-then-reuse-values", "--set", "tracks.stable.replicas=-1")
    assert failed.returncode != 0
    driver.write(driver.read("demo"))
    (shown,) = json.loads(helm("list", "--output", "json").stdout)
    assert shown["chart"] != "model-serving-0.1.0"


def kubectl(driver: HelmDriver, *words: str) -> str:
    return subprocess.run([driver.kubectl, "--namespace", NAMESPACE, *words], capture_output=True, text=True, check=True).stdout


def test_a_release_that_is_not_there_or_serves_another_model_is_named(driver: HelmDriver) -> None:
    with pytest.raises(NotServed, match="no release none"):
        replace(driver, release="none").read("demo")
    with pytest.raises(NotServed, match="serves 'demo'"):
        driver.read("other")


def test_a_canary_whose_pods_never_come_up_is_aborted(room: Room, driver: HelmDriver, helm: Helm) -> None:
    """More memory than any node has."""
    big = "tracks.canary.resources.requests.memory=900Ti,tracks.canary.resources.limits.memory=900Ti"
    assert helm("upgrade", RELEASE, str(CHART), "--reset-then-reuse-values", "--set", big).returncode == 0
    with pytest.raises(Unavailable, match="could not be loaded"):
        actions.start(replace(room, load_seconds=5), WISH)
    assert told_to_gateways(driver) == {"stable": 100}


def killed_while_helm_writes(driver: HelmDriver, number: int, *more: str) -> None:
    """A helm upgrade that has begun as `number` and never ends."""
    never_ready = ("--wait", "--timeout=300s", "--set=tracks.stable.resources.requests.cpu=10000")
    place = ("--namespace", NAMESPACE)
    command = [driver.helm, "upgrade", RELEASE, str(CHART), *place, "--reset-then-reuse-values", *never_ready, *more]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as helm:
        deadline = time.monotonic() + 60
        while status_of(driver, number) != "pending-upgrade":
            assert helm.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        helm.kill()


def status_of(driver: HelmDriver, number: int) -> str:
    """Of helm's record of that number; empty where there is none."""
    record = [f"secret/sh.helm.release.v1.{RELEASE}.v{number}", "--namespace", NAMESPACE, "--ignore-not-found"]
    command = [driver.kubectl, "get", *record, "--output", "jsonpath={.metadata.labels.status}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_driver_that_was_killed_while_helm_wrote_holds_nobody_up_for_ever(room: Room, driver: HelmDriver) -> None:
    actions.start(room, WISH)
    before = driver.read("demo")
    number = before.revision + 1
    killed_while_helm_writes(driver, number, f"--labels={MARK}={number}")
    with pytest.raises(Conflict, match="Somebody else is changing"):
        actions.promote(room, "demo", "it may still be at it")
    assert status_of(driver, number) == "pending-upgrade"
    later = replace(room, driver=replace(driver, patience=0))
    with pytest.raises(Conflict, match="A driver was killed while it wrote cards"):
        actions.promote(later, "demo", "it is urgent")
    assert driver.read("demo") == before
    actions.promote(later, "demo", "it is urgent")
    assert told_to_gateways(driver) == {"stable": 0, "canary": 100}


def test_what_somebody_else_has_begun_is_theirs_however_long_it_takes(room: Room, driver: HelmDriver) -> None:
    actions.start(room, WISH)  # its mark is inherited by what people write after it
    number = driver.read("demo").revision + 1
    killed_while_helm_writes(driver, number)
    with pytest.raises(Conflict, match="Somebody else is changing"):
        actions.promote(replace(room, driver=replace(driver, patience=0)), "demo", "it is urgent")
    assert status_of(driver, number) == "pending-upgrade"

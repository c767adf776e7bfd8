"""Serving as its owner meets it: helm install, a canary, weights, a new version, killed servers, a version that is not what was promised.

On any cluster, with a folder that its nodes see under the same or another path:

MILLRACE_E2E_KUBECONFIG=… MILLRACE_E2E_SERVING_IMAGE=REPOSITORY:TAG MILLRACE_E2E_SERVER_IMAGE=REPOSITORY:TAG \
MILLRACE_E2E_STORE=OUR_PATH=NODES_PATH pytest tests/e2e/test_model_serving_on_a_cluster.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import served_models
import serving_release
from serving_release import NAME, ServingRelease, Steady, installed, stable, store_here
from waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), serving_release.NEEDED]


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Versions 1 and 2, published."""
    folder = tmp_path_factory.mktemp("saved")
    return {version: served_models.publish(store_here(), NAME, version, folder / str(version)) for version in (1, 2)}


def canary(digests: dict[int, str], version: int, weight: int) -> str:
    return (
        f"tracks.canary.enabled=true,tracks.canary.version={version},tracks.canary.digest={digests[version]},tracks.canary.weight={weight}"
    )


@pytest.fixture(scope="module")
def release(digests: dict[int, str]) -> Iterator[ServingRelease]:
    """The chart with version 1; gone afterwards with its namespace."""
    values = (stable(digests, 1), "gateway.settings.log.share=1", "gateway.settings.log.features={amount}")
    with installed(*values) as release:
        yield release


@pytest.fixture
def one(release: ServingRelease, digests: dict[int, str]) -> Iterator[ServingRelease]:
    """The release with version 1 on both of its servers and nothing else, as every test leaves it."""
    yield release
    release.upgrade()


def test_what_is_installed_answers_as_it_was_published(release: ServingRelease) -> None:
    assert len(release.ready_pods("server")) == 2
    assert len(release.ready_pods("gateway")) == 2
    said = release.helm("test", NAME, "--logs", "--timeout", "150s")
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.count("3 golden requests of cards version 1") == 2, said.stdout
    assert said.stdout.count("all are answered as published") == 2


def test_a_weight_takes_effect_within_seconds_and_no_pod_is_started(one: ServingRelease, digests: dict[int, str]) -> None:
    one.upgrade(stable(digests, 1), canary(digests, 2, 0))
    before = {component: one.containers(component) for component in ("server", "gateway")}
    with Steady(one, "weights") as steady:
        one.upgrade(stable(digests, 1, 50), canary(digests, 2, 50))
        changed = time.time()
        time.sleep(12)
        one.upgrade(stable(digests, 1), canary(digests, 2, 0))
        rolled_back = time.time()
        time.sleep(12)
    assert {component: one.containers(component) for component in before} == before
    assert not steady.failures
    assert steady.versions == {"1", "2"}
    assert steady.first(2) - changed < 10
    assert steady.last(2) - rolled_back < 10
    print(
        f"\nversion 2 answered first {steady.first(2) - changed:+.1f} s after helm upgrade, last {steady.last(2) - rolled_back:+.1f} s after the next"
    )


def test_a_new_version_takes_over_without_a_failed_request(one: ServingRelease, digests: dict[int, str]) -> None:
    with Steady(one, "update") as steady:
        one.upgrade(stable(digests, 2))
        eventually("the old pods are gone", lambda: len(one.of_track("stable")) == 2, 90, every=0.2)
        done = time.time()
        time.sleep(3)
    assert not steady.failures
    assert steady.count > 200
    assert steady.versions == {"1", "2"}
    assert steady.last(2) > done
    assert steady.last(1) < done


def test_a_server_that_is_killed_costs_nobody_an_answer(one: ServingRelease) -> None:
    staying = one.ready_pods("server")  # those of the upgrade before may still be leaving
    victim = next(pod for pod in one.of_track("stable") if pod["metadata"]["name"] in staying)
    with Steady(one, "killed") as steady:
        if not one.kill_container(victim):
            pytest.skip("the cluster's node is another machine: nobody here can kill its processes")
        name = victim["metadata"]["name"]
        eventually("it is started again", lambda: one.containers("server")[name][1] == 1, 60, every=0.2)
        eventually("it is ready again", lambda: len(one.ready_pods("server")) == 2, 120, every=0.2)
        time.sleep(3)
    assert not steady.failures
    assert steady.count > 200


def test_pods_that_are_told_to_go_finish_what_they_have_begun(one: ServingRelease) -> None:
    with Steady(one, "drained") as steady:
        for component in ("server", "gateway"):
            leaving = min(one.ready_pods(component))
            assert one.kubectl("--namespace", NAME, "delete", "pod", leaving, "--timeout=90s").returncode == 0
            eventually(f"two of {component} are ready", lambda part=component: len(one.ready_pods(part)) == 2, 120, every=0.2)  # type: ignore[misc] # a default binds
        time.sleep(3)
    assert not steady.failures
    assert steady.count > 200


def test_a_version_that_is_not_what_was_promised_is_never_served(one: ServingRelease) -> None:
    with Steady(one, "promise") as steady:
        wrong = f"tracks.stable.version=2,tracks.stable.digest={'0' * 64}"
        refused = one.helm("upgrade", NAME, str(served_chart()), "--reuse-values", "--set", wrong, "--wait", "--timeout", "25s")
        assert refused.returncode != 0
        logs = one.kubectl("--namespace", NAME, "logs", "--selector", "millrace.dev/version=2", "--container", "fetch", "--tail=5").stdout
        assert "cards version 2 in /store is not what was promised" in logs
    assert not steady.failures
    assert steady.versions == {"1"}


def served_chart() -> Path:
    return Path(__file__).resolve().parents[2] / "helm" / "model-serving"


def test_what_is_asked_is_logged_by_the_recorder_beside_the_gateway(release: ServingRelease) -> None:
    with Steady(release, "logged"):
        time.sleep(2)
    count = "import pathlib; print(sum(1 for _ in pathlib.Path('/predictions').rglob('*.parquet')))"
    gateways = sorted(release.ready_pods("gateway"))

    def files() -> int:
        said = [release.kubectl("--namespace", NAME, "exec", pod, "--", "/usr/bin/python3", "-c", count).stdout for pod in gateways]
        return sum(int(text or 0) for text in said)

    eventually("a file of predictions is written", lambda: files() > 0, 120, every=0.2)


def test_monitor_and_review_page_work_on_what_was_logged(one: ServingRelease, tmp_path: Path) -> None:
    for claim in ("predictions", "review"):
        folder = Path(f"{store_here()}-{claim}")
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)  # the pods are not us
        one.give(claim, f"-{claim}", "ReadWriteMany")
    people = tmp_path / "users.json"
    subprocess.run([sys.executable, "-m", "mlserving", "review", "add-user", "ann", "--users", str(people)], check=True)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "people", "namespace": NAME}}
    one.client.apply(secret | {"stringData": {"users.json": people.read_text()}})
    one.upgrade(
        "gateway.predictions.kind=claim,gateway.predictions.claim.name=predictions,monitor.enabled=true,monitor.every=1m",
        "review.enabled=true,review.database.claim.name=review,review.access.users.name=people",
        ",".join(f"{owner}.resources.requests.cpu=20m" for owner in ("monitor", "review", "review.fill")),
    )
    with Steady(one, "reviewed") as steady:
        time.sleep(3)
    assert not steady.failures
    eventually("the monitor has read them", lambda: one.figure("monitor", 9108, "millrace_monitor_rows") > 0, 120, every=0.2)
    assert one.figure("monitor", 9108, "millrace_monitor_parity_servers_up") == 1
    assert one.figure("review", 8601, "millrace_review_database_up") == 1
    assert one.kubectl("--namespace", NAME, "create", "job", f"--from=cronjob/{NAME}-review-fill", "fill-now").returncode == 0
    filled = one.kubectl("--namespace", NAME, "wait", "--for=condition=complete", "job/fill-now", "--timeout=90s")
    assert filled.returncode == 0, one.kubectl("--namespace", NAME, "logs", "job/fill-now").stdout
    assert (
        "Looked through" in one.kubectl("--namespace", NAME, "logs", "job/fill-now").stdout
    )  # what is younger than two minutes waits for the next

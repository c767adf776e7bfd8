"""`gpuq` as people type it, against a real API server: what it answers, to whom, and how it ends when it cannot."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

import gpu_objects as make
from control_plane import ControlPlane
from gpu_team import Team
from gpuqueue.history import Past, line_of
from replicas import Replicas
from typed_gpuq import answer, gpuq
from waiting import eventually

pytestmark = [pytest.mark.control_plane, pytest.mark.timeout(120)]

HOUR = 3600.0


@pytest.fixture(scope="module")
def replicas(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """One replica of the controller."""
    with Replicas(control_plane, tmp_path_factory.mktemp("replicas")) as running:
        yield running


@pytest.fixture(scope="module")
def team(control_plane: ControlPlane, fresh_name: Callable[[], str], replicas: Replicas) -> Iterator[Team]:
    """Four GPUs: `first` holds three, `second` waits for two, `third` for one, and the pair `zip` for two. `cpu` asks for none."""
    team = Team(control_plane.client, fresh_name())
    team.api.request("POST", "/api/v1/namespaces", make.namespace(team.name))
    team.queue(lanes=[make.lane(quota=4), make.lane("h100", quota=1)], budget={"gpuHours": 500})
    team.submit("first", 3)
    eventually("the first starts", lambda: team.is_open("first"), 30)
    team.submit("second", 2)
    eventually("the second is told", lambda: team.told("second") != "", 30)
    team.submit("third", 1)
    for name in ("zip-a", "zip-b"):
        team.submit(name, 1, notes=make.group("zip", 2))
    team.create(make.pod("cpu"))
    team.submit("huge", 99)
    eventually("everybody is told", lambda: all(team.told(name) for name in ("third", "zip-a", "zip-b", "huge")), 30)
    yield team
    team.leave()


@pytest.fixture
def admin(control_plane: ControlPlane) -> Path:
    return control_plane.kubeconfig


def why(pod: str, team: Team, kubeconfig: Path) -> str:
    return gpuq("why", pod, "-n", team.name, kubeconfig=kubeconfig).stdout


# -- why ---------------------------------------------------------------------------------------------------------------------


def test_who_waits_is_told_place_reason_and_who_is_ahead(team: Team, admin: Path) -> None:
    said = why("third", team, admin)
    assert f"{team.name}/third waiting: Behind: 2nd of 3 in {team.name}/l4. It needs 1 GPU; 1 of 4 are free" in said
    assert "Ahead: second (2 GPUs)." in said
    assert "Has waited" in said


def test_the_pods_of_a_group_are_told_about_the_group(team: Team, admin: Path) -> None:
    for name in ("zip-a", "zip-b"):
        found = answer("why", name, "-n", team.name, kubeconfig=admin)
        assert (found["place"], found["of"], found["gpus"], found["lane"]) == (3, 3, 2, "l4")
        assert [each["name"] for each in found["ahead"]] == ["second", "third"]


def test_who_holds_gpus_is_told_which(team: Team, admin: Path) -> None:
    assert f"first granted: it holds 3 GPUs of lane l4 in queue {team.name} since 20" in why("first", team, admin)


def test_what_can_never_start_is_told_so(team: Team, admin: Path) -> None:
    assert "huge waiting: NeverFits: it needs 99 GPUs" in why("huge", team, admin)


def test_a_pod_without_gpus_is_sent_elsewhere(team: Team, admin: Path) -> None:
    assert "cpu unmanaged: it asks for no GPU" in why("cpu", team, admin)


def test_a_pod_that_nobody_knows_is_said_to_be_none(team: Team, admin: Path) -> None:
    said = gpuq("why", "nobody", "-n", team.name, kubeconfig=admin, code=3).stderr
    assert f"no pod nobody in namespace {team.name}. See: kubectl get pods -n {team.name}" in said


def test_a_pod_that_has_ended_holds_nothing(team: Team, admin: Path, replicas: Replicas, unmanaged: str) -> None:
    team.create(make.pod("brief") | {"metadata": {"name": "brief", "annotations": {"test.millrace/succeeds-after": "10ms"}}})
    eventually("it ends", lambda: team.pod("brief")["status"].get("phase") == "Succeeded", 30)
    assert "brief ended: it has ended and holds no GPUs" in why("brief", team, admin)


def test_a_pod_in_a_namespace_of_no_queue_is_told_so(replicas: Replicas, managed: str, control_plane: ControlPlane, admin: Path) -> None:
    lost = Team(control_plane.client, managed)
    lost.submit("lost")
    eventually("it is told", lambda: lost.told("lost") != "", 30)
    assert "lost waiting: NoQueue: namespace" in why("lost", lost, admin)


@pytest.fixture
def carol(control_plane: ControlPlane, team: Team, fresh_name: Callable[[], str]) -> Path:
    """Somebody who may look into her team's namespace; the queue has another one too."""
    other, user = fresh_name(), "carol"
    team.api.request("POST", "/api/v1/namespaces", make.namespace(other))
    for thing in [*make.may(user, "pods", namespace=team.name), *make.may(user, "gpuqueues", group="gpu-queue.dev")]:
        team.api.apply(thing)
    queue = team.api.request("GET", f"/apis/gpu-queue.dev/v1/gpuqueues/{team.name}")
    spec = {"namespaces": sorted({*queue["spec"]["namespaces"], other})}
    team.api.request("PATCH", f"/apis/gpu-queue.dev/v1/gpuqueues/{team.name}", {"spec": spec})
    return control_plane.kubeconfig_for(user)


def test_who_may_not_see_the_whole_line_gets_what_the_controller_wrote_last(team: Team, carol: Path) -> None:
    said = why("third", team, carol)
    assert team.told("third")[:30] in said
    assert "so this is what the controller wrote last" in said
    assert gpuq("queue", kubeconfig=carol).stdout.count("their lines are not shown") == 1
    assert json.loads(gpuq("queue", "--json", kubeconfig=carol).stdout)


def test_who_may_see_nothing_is_refused_in_a_sentence(control_plane: ControlPlane, team: Team) -> None:
    nobody = control_plane.kubeconfig_for("nobody-in-particular")
    for words in (("why", "third", "-n", team.name), ("queue",), ("doctor",), ("usage",)):
        assert "forbidden" in gpuq(*words, kubeconfig=nobody, code=3).stderr


def test_who_may_get_their_pod_but_no_queue_gets_what_the_controller_wrote_last(control_plane: ControlPlane, team: Team) -> None:
    for thing in make.may("dave", "pods", namespace=team.name):
        team.api.apply(thing)
    assert team.told("second")[:30] in why("second", team, control_plane.kubeconfig_for("dave"))


# -- queue, eta, usage ---------------------------------------------------------------------------------------------------------


def test_all_queues_are_a_table(team: Team, admin: Path) -> None:
    lines = gpuq("queue", kubeconfig=admin).stdout.splitlines()
    mine = next(number for number, line in enumerate(lines) if line.startswith(f"{team.name} "))
    assert lines[0].split()[:2] == ["Queue", "Lane"]
    assert lines[mine].split()[1:7] == ["l4", "3", "4", "1", "3", "5"]
    assert lines[mine + 1].split()[:5] == ["h100", "0", "1", "1", "0"]


def test_one_queue_shows_who_holds_and_who_waits(team: Team, admin: Path) -> None:
    said = gpuq("queue", team.name, kubeconfig=admin).stdout
    assert "Lane l4: 3 of 4 GPUs in use" in said
    places = [line.split()[:2] for line in said.splitlines() if line.split()[:1] in (["1"], ["2"], ["3"])]
    assert places == [["1", "second"], ["2", "third"], ["3", "zip"]]
    assert "Cannot start as they are" in said
    assert "NeverFits" in said


def test_a_queue_as_json_has_names_that_stay(team: Team, admin: Path) -> None:
    found = answer("queue", team.name, kubeconfig=admin)
    lane = found["lanes"][0]
    assert (lane["quota"], lane["granted"], lane["free"]) == (4, 3, 1)
    assert [holder["name"] for holder in lane["holders"]] == ["first"]
    assert [(each["place"], each["name"], each["reason"]) for each in lane["line"]] == [
        (1, "second", "QuotaInUse"),
        (2, "third", "Behind"),
        (3, "zip", "Behind"),
    ]
    assert [each["name"] for each in found["passedBy"]] == ["huge"]
    assert found["budget"]["hours"] == 500


def test_json_stays_json_when_there_is_something_to_mend(team: Team, admin: Path, fresh_name: Callable[[], str]) -> None:
    name = fresh_name()
    window = {"cron": "99 0 * * *", "for": "1h", "quota": 1}
    team.api.apply(make.queue(name, namespaces=[], lanes=[make.lane(windows=[window])]))
    assert "windows[0]" in answer("queue", name, kubeconfig=admin)["complaints"][0]
    assert "To mend: spec.lanes[l4].windows[0]" in gpuq("queue", name, kubeconfig=admin).stdout


def test_a_run_limit_of_a_million_hours_does_not_break_the_picture(team: Team, admin: Path, fresh_name: Callable[[], str]) -> None:
    patient = Team(team.api, fresh_name())
    team.api.request("POST", "/api/v1/namespaces", make.namespace(patient.name))
    patient.queue(lanes=[make.lane(quota=1)])
    patient.submit("patient", notes={"gpu-queue.dev/run-limit": "999999999h"})
    eventually("it starts", lambda: patient.is_open("patient"), 30)
    patient.submit("next", notes={"gpu-queue.dev/run-limit": "999999999h"})
    eventually("the next is told", lambda: patient.told("next") != "", 30)
    assert answer("queue", patient.name, kubeconfig=admin)["lanes"][0]["holders"][0]["runsOut"].startswith("9999-")
    assert "Likely start" in why("next", patient, admin)
    patient.leave()


def test_a_queue_or_lane_that_is_none_names_those_that_are(team: Team, admin: Path) -> None:
    assert team.name in gpuq("queue", "nobody", kubeconfig=admin, code=2).stderr
    for lane in (f"{team.name}/a100", "nobody/l4", "l4"):
        assert f"{team.name}/h100, " in gpuq("eta", lane, kubeconfig=admin, code=2).stderr.replace("\n", " ") + ", "


@pytest.fixture(scope="module")
def history(team: Team) -> float:
    """Forty jobs of an hour each on four GPUs, two at a time, in the day before now; returns when the last ended."""
    end = time.time() - 60
    pasts = [
        Past(
            queue=team.name,
            lane="l4",
            namespace=team.name,
            name=f"job-{number}",
            family=f"{team.name}/job",
            gpus=2,
            since=end - (20 - number // 2) * HOUR - 600,
            at=end - (20 - number // 2) * HOUR,
            ended=end - (19 - number // 2) * HOUR,
            told_p50=end - (20 - number // 2) * HOUR + 60,
            told_p90=end - (20 - number // 2) * HOUR + 600,
        )
        for number in range(40)
    ]
    days: dict[str, list[Past]] = {}
    for past in pasts:
        days.setdefault(f"{datetime.fromtimestamp(past.ended, UTC):%Y-%m-%d}", []).append(past)
    for day, of_day in days.items():
        team.api.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": f"gpu-queue-history-{day}-99",
                    "namespace": make.RELEASE_NAMESPACE,
                    "labels": {"gpu-queue.dev/history": day},
                },
                "data": {"pasts": "".join(line_of(past) + "\n" for past in of_day)},
            }
        )
    return end


def test_who_waits_and_who_would_come_now_are_told_a_likely_start(team: Team, history: float, admin: Path) -> None:
    found = answer("eta", f"{team.name}/l4", kubeconfig=admin)
    assert {each["name"]: each["p50"] for each in found}["huge"] is None, "what never starts has no start"
    found = [each for each in found if each["p50"]]
    assert [each["name"] for each in found] == ["second", "third", "zip"]
    assert all(each["p50"] > time.time() - 5 and each["p90"] >= each["p50"] for each in found)
    (newcomer,) = answer("eta", f"{team.name}/l4", "--gpus", "4", kubeconfig=admin)
    assert newcomer["p50"] >= found[-1]["p50"]
    assert "Of 40 who were told, 100% started by their 9-in-10 time" in gpuq("eta", f"{team.name}/l4", kubeconfig=admin).stdout
    assert gpuq("eta", f"{team.name}/h100", kubeconfig=admin).stdout.endswith("Nobody waits.\n")
    assert "a pod that came now" in gpuq("eta", f"{team.name}/h100", "--gpus", "1", "--run-limit", "2h", kubeconfig=admin).stdout


@pytest.mark.parametrize("words", [("--gpus", "0"), ("--gpus", "1", "--run-limit", "soon")])
def test_a_pod_that_cannot_be_is_refused(team: Team, admin: Path, words: tuple[str, ...]) -> None:
    assert words[-2] in gpuq("eta", f"{team.name}/l4", *words, kubeconfig=admin, code=2).stderr


def test_usage_adds_up_what_has_run_and_what_runs_and_what_it_costs(team: Team, history: float, admin: Path) -> None:
    found = answer("usage", team.name, "--since", "48h", "--price", "l4=0.5", kubeconfig=admin)[team.name]
    assert found["held"] == pytest.approx(80, abs=0.5)
    assert found["cost"] == pytest.approx(40, abs=0.5)
    assert answer("usage", team.name, "--since", "10h", kubeconfig=admin)[team.name]["held"] == pytest.approx(40, abs=0.5)
    said = gpuq("usage", kubeconfig=admin).stdout
    assert "GPU hours held" in said
    assert "gpuq usage --prometheus" in said
    assert "LANE=MONEY" in gpuq("usage", "--price", "dear", kubeconfig=admin, code=2).stderr
    assert "--since" in gpuq("usage", "--since", "long", kubeconfig=admin, code=2).stderr


def test_the_clusters_own_history_is_replayed(team: Team, history: float, admin: Path) -> None:
    found = answer("what-if", "--quota", f"{team.name}/l4=2", kubeconfig=admin)
    assert found["what if"]["waits"][team.name]["mean"] > found["as it was"]["waits"][team.name]["mean"]
    plan = answer("plan", "--lane", f"{team.name}/l4", "--wait-p95", "1h", kubeconfig=admin)
    assert plan["smallest"] == 4
    assert "With 4 GPUs" in gpuq("plan", "--lane", f"{team.name}/l4", "--wait-p95", "1h", kubeconfig=admin).stdout
    assert "no job" in gpuq("plan", "--lane", f"{team.name}/h100", "--wait-p95", "1h", kubeconfig=admin, code=2).stderr


# -- export --------------------------------------------------------------------------------------------------------------------


def test_kueues_objects_are_complete(team: Team, admin: Path, fresh_name: Callable[[], str]) -> None:
    pool, borrower = fresh_name(), fresh_name()
    team.api.apply(make.queue(pool, namespaces=[], lanes=[make.lane(quota=2)]))
    team.api.apply(
        make.queue(borrower, order="easy", defaultRunLimit="6h", pool={"name": pool, "maxBorrow": 2}, lanes=[make.lane(quota=1)])
    )
    said = gpuq("export", "--kueue", kubeconfig=admin).stdout
    objects: list[Any] = list(yaml.safe_load_all(said))
    found = {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each["spec"] for each in objects}
    assert len(found) == len(objects), "no object twice"
    assert found["ResourceFlavor", "", "nvidia-l4"] == {"nodeLabels": {"cloud.google.com/gke-accelerator": "nvidia-l4"}}
    assert found["LocalQueue", team.name, "default"] == {"clusterQueue": team.name}
    lent, lending = found["ClusterQueue", "", borrower], found["ClusterQueue", "", pool]
    assert lent["cohort"] == lending["cohort"] == pool
    assert lent["queueingStrategy"] == "BestEffortFIFO"
    (group,) = lent["resourceGroups"]
    assert group["flavors"] == [{"name": "nvidia-l4", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": 1, "borrowingLimit": 2}]}]
    assert "namespaceSelector" not in lending, "an operator In without values is refused by Kubernetes"
    assert lent["namespaceSelector"]["matchExpressions"][0]["values"] == [borrower]
    remarks = [line for line in said.splitlines() if line.startswith("# ")]
    assert any(f"Queue {borrower}: left out EASY order" in line and "run limits" in line for line in remarks)
    assert any(f"Queue {team.name}: left out the budget" in line for line in remarks)


def test_an_export_into_nothing_says_what_to_type(admin: Path, team: Team) -> None:
    assert "gpuq export --kueue" in gpuq("export", kubeconfig=admin, code=2).stderr


# -- when there is nobody to answer -------------------------------------------------------------------------------------------


def test_without_a_kubeconfig_it_says_which_it_looked_for(tmp_path: Path) -> None:
    assert f"no kubeconfig at {tmp_path}/none. Name one" in gpuq("queue", kubeconfig=tmp_path / "none", code=2).stderr


def test_an_api_server_that_is_not_there_is_a_sentence(tmp_path: Path, admin: Path) -> None:
    config = yaml.safe_load(admin.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    gone = tmp_path / "kubeconfig"
    gone.write_text(yaml.safe_dump(config))
    for words in (("why", "x"), ("queue",), ("eta", "a/b"), ("usage",), ("doctor",), ("export", "--kueue"), ("what-if",)):
        said = gpuq(*words, kubeconfig=gone, code=4).stderr
        assert "https://127.0.0.1:9 did not answer GET" in said
        assert len(said.splitlines()) == 1


def test_a_cluster_without_the_queue_says_what_to_install(tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "bare") as bare:
        said = gpuq("queue", kubeconfig=bare.kubeconfig, code=3).stderr
        assert "this cluster has no kind GpuQueue. Install the chart: helm install gpu-queue" in said
        assert "helm install gpu-queue" in gpuq("doctor", kubeconfig=bare.kubeconfig, code=3).stderr

"""An environment file is read whole or refused with every wrong field and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlplatform.contradictions import unready
from mlplatform.environment import Environment, parse_environment, read_environment
from mlplatform.errors import ConfigError
from mlplatform.plan.values import foundation
from mlplatform.reference import PAGES

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "platform" / "environments").glob("*.yaml"))

Change = Callable[[Any], None]


def changed(name: str, change: Change) -> str:
    """A committed environment with one thing changed."""
    values = yaml.safe_load((ROOT / "platform" / "environments" / f"{name}.yaml").read_text())
    change(values)
    return yaml.safe_dump(values)


def complaint(name: str, change: Change) -> str:
    with pytest.raises(ConfigError) as refusal:
        parse_environment(changed(name, change), f"{name}.yaml")
    text = str(refusal.value)
    assert text.startswith(f"{name}.yaml cannot be used:\n")
    assert "docs/reference/environment.md" in text
    return text


def put(path: str, value: object) -> Change:
    *parents, last = path.split("/")

    def change(values: Any) -> None:
        for parent in parents:
            values = values[parent]
        values[last] = value

    return change


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_committed_environment_can_be_used(file: Path) -> None:
    assert read_environment(file).name == file.stem


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_reference_is_what_the_code_says(name: str) -> None:
    assert PAGES[name]() == (ROOT / "docs" / "reference" / name).read_text(), "run `make generate`"


IMPOSSIBLE: dict[str, tuple[str, Change, str]] = {
    "ranges that overlap": ("gke-prod", put("cloud/network/pods", "10.40.0.0/14"), "cloud.network.pods: 10.40.0.0/14 overlaps nodes, 10.40.0.0/20"),
    "a range with host bits": ("gke-prod", put("cloud/network/pods", "10.48.0.1/14"), "cloud.network.pods: "),
    "a public range": ("gke-prod", put("cloud/network/pods", "8.8.0.0/16"), "not a private range"),
    "a control plane that is no /28": ("gke-prod", put("cloud/network/control_plane", "172.16.2.0/24"), "not a /28"),
    "everybody may reach the control plane": ("gke-prod", put("cloud/network/authorized", {"office": "0.0.0.0/0"}), "authorized.office: 0.0.0.0/0 is everybody"),
    "an office at a control plane without a public address": ("gke-prod", put("cloud/network/authorized", {"office": "8.8.8.0/24"}), "authorized.office: 8.8.8.0/24 is public"),
    "a control plane that nobody reaches": ("gke-prod", put("cloud/network/dns_endpoint", False), "cloud.network.dns_endpoint: without it, and with nobody in authorized"),
    "too little time for upgrades": ("gke-prod", put("cloud/maintenance", {"hours": 4, "days": ["SA", "SU"]}), "cloud.maintenance: 32 hours in four weeks"),
    "groups of two domains": ("gke-prod", put("teams/search/members", {"runner": ["group:ml@other.example"]}), "teams: groups of example.com, other.example"),
    "a zone of another region": ("gke-prod", put("cloud/zones", ["europe-west1-b"]), "cloud.zones: europe-west1-b is not in europe-west4"),
    "a pool in a zone that the cluster lacks": ("gke-prod", put("node_pools/work/zones", ["us-east1-b"]), "node_pools.work.zones: us-east1-b"),
    "a pool whose least is above its most": ("gke-prod", put("node_pools/system/min", 9), "node_pools.system.min: 9 is above max, 6"),
    "GPUs that idle all day": ("gke-prod", put("node_pools/l4/min", 1), "node_pools.l4.min: 1 GPU nodes would run all day"),
    "spot and a reservation": ("gke-prod", put("node_pools/l4-spot/reservation", "ml-l4"), "node_pools.l4-spot.reservation: capacity spot has none"),
    "a reservation without its name": ("gke-prod", put("node_pools/l4-reserved/reservation", None), "capacity reservation needs its name"),
    "a run limit on nodes that stay": ("gke-prod", put("node_pools/l4/run_limit_hours", 3), "is for capacity flex-start"),
    "a GPU that no machine of that type has": ("gke-prod", put("node_pools/l4/machine", "a2-highgpu-1g"), "a2-highgpu-1g carries 1 × nvidia-tesla-a100, not 4 × nvidia-l4"),
    "a GPU that Google does not have": ("gke-prod", put("node_pools/l4/gpu/type", "nvidia-l5"), "Google has no GPU type 'nvidia-l5'; it has nvidia-a100-80gb"),
    "a GPU machine that says nothing of its GPUs": ("gke-prod", put("node_pools/work/machine", "g2-standard-8"), "node_pools.work.gpu: g2-standard-8 comes with GPUs"),
    "a rollout that no trigger drives": ("gke-staging", put("retraining", {"enabled": False}), "models.transactions.rollout: automatic is what a trigger does"),
    "a canary that nobody judges": ("gke-staging", put("monitoring/prometheus", ""), "name the query front end of Google's in monitoring.prometheus"),
    "a canary where nobody scrapes": ("laptop", put("models/transactions/rollout", "automatic"), "name the one that scrapes the gateways in monitoring.prometheus"),
    "only GPU pools": ("laptop", lambda values: values["node_pools"].pop("machine"), "node_pools: none is without GPUs"),
    "a class with a pool that is not there": ("gke-prod", put("compute_classes/l4/pools", ["l4", "l5"]), "compute_classes.l4.pools: no such pool: l5"),
    "a class of two GPU types": ("gke-prod", put("compute_classes/l4/pools", ["l4", "a100-flex"]), "mixes nvidia-l4, nvidia-tesla-a100"),
    "a pool in two classes": ("gke-prod", put("compute_classes/steady", {"pools": ["l4"]}), "compute_classes.steady.pools: l4 is in class l4 too"),
    "a lane for GPUs that no pool has": ("gke-prod", put("teams/search/lanes/h100", {"type": "nvidia-h100-80gb", "quota": 1}), "teams.search.lanes.h100.type: no node pool has nvidia-h100-80gb"),
    "a quota above what the pools have": ("gke-prod", put("teams/search/lanes/l4/quota", 40), "teams.search.lanes.l4.quota: 40 GPUs, and the pools of nvidia-l4 have 32"),
    "quotas that are more together": ("gke-prod", put("teams/search/lanes/l4/quota", 16), "together they are promised 36 × nvidia-l4, and the pools have 32"),
    "two lanes for one type": ("laptop", put("teams/search/lanes/more", {"type": "nvidia-l4", "quota": 1}), "teams.search.lanes: nvidia-l4 in two lanes"),
    "a namespace of two teams": ("gke-prod", put("teams/search/namespaces", ["fraud"]), "teams.search.namespaces: fraud is fraud's too"),
    "a namespace of the platform": ("gke-prod", put("teams/search/namespaces", ["kubeflow"]), "kubeflow is the platform's"),
    "an unknown role": ("gke-prod", put("teams/search/members", {"boss": ["user:a@b.example"]}), "no such role: boss. There are: viewer, runner, approver, releaser"),
    "a member without a kind": ("gke-prod", put("teams/search/members", {"runner": ["ana@example.com"]}), "teams.search.members.runner.0: "),
    "a model of nobody": ("gke-prod", put("models/transactions/team", "cards"), "models.transactions.team: no such team: cards. There are: fraud, search"),
    "a model in another team's namespace": ("gke-prod", put("models/transactions/namespace", "search"), "models.transactions.namespace: search is not fraud's"),
    "a model with GPUs of no type": ("gke-prod", put("models/transactions/gpus", 1), "models.transactions.gpu_type: name the type"),
    "secrets in files, and people rely on it": ("gke-staging", put("secrets", {"kind": "files", "folder": "x"}), "secrets.kind: files on somebody's machine"),
    "secrets made by chance, elsewhere": ("gke-prod", put("secrets", {"kind": "secret-manager", "generate": True}), "secrets: 'folder' and 'generate' are for kind 'files'"),
    "nodes with public addresses": ("gke-prod", put("cloud/network/private_nodes", False), "cloud.network.private_nodes: nodes with public addresses"),
    "production that anybody can delete": ("gke-prod", put("cloud/deletion_protection", False), "cloud.deletion_protection: production keeps it"),
    "a placeholder": ("gke-staging", put("cloud/project", "your-project-id"), "cloud.project: 'your-project-id' looks like a placeholder"),
    "Google's services without Google": ("laptop", put("database", {"kind": "cloud-sql"}), "database.kind: that is Google's, and this environment has no 'cloud'"),
    "a domain that nobody guards": ("gke-prod", put("access/sign_in", "none"), "access: a domain needs a 'sign_in'"),
    "buckets that are not named": ("gke-prod", put("storage/buckets", None), "storage: 'gcs' names its buckets"),
    "a password": ("gke-prod", put("database/password", "hunter2"), "database.password: Extra inputs are not permitted"),
    "an alert that reaches nobody": ("gke-prod", put("monitoring/receivers/channel/to", ""), "monitoring.receivers.channel: slack needs 'to'"),
    "an older Kubeflow": ("gke-prod", put("versions", {"kubeflow_pipelines": "2.5.0"}), "versions.kubeflow_pipelines: Input should be '2.17.0'"),
}  # fmt: skip


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_cannot_be_is_refused_with_its_field(case: str) -> None:
    name, change, words = IMPOSSIBLE[case]
    assert words in complaint(name, change)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    def change(values: Any) -> None:
        values["node_pools"]["system"]["min"] = 9
        values["teams"]["search"]["namespaces"] = ["fraud"]

    text = complaint("gke-prod", change)
    assert "node_pools.system.min" in text
    assert "teams.search.namespaces" in text


@pytest.mark.parametrize(("text", "words"), [("a: [", "is no YAML"), ("- 1", "must hold a mapping"), ("", "must hold a mapping")])
def test_what_is_no_environment_is_said_to_be_none(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_environment(text, "x.yaml")


def test_a_file_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match="gke-prod, gke-staging, laptop"):
        read_environment(ROOT / "platform" / "environments" / "nowhere.yaml")


def test_a_file_is_called_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text((ROOT / "platform" / "environments" / "laptop.yaml").read_text())
    with pytest.raises(ConfigError, match="name: is 'laptop', and the file is called 'other'"):
        read_environment(tmp_path / "other.yaml")


def test_what_is_still_missing_is_told_and_does_not_keep_anybody_from_planning() -> None:
    prod, laptop = (read_environment(ROOT / "platform" / "environments" / f"{name}.yaml") for name in ("gke-prod", "laptop"))
    missing = list(unready(prod))
    assert any(text.startswith("images.digests.serving: ") for text in missing)
    assert any(text.startswith("cloud.billing_account: ") for text in missing)
    assert any(text.startswith("teams.fraud.members.runner: ") for text in missing)
    assert list(unready(laptop)) == []


def test_gpus_are_counted_over_all_pools_of_a_type() -> None:
    prod = read_environment(ROOT / "platform" / "environments" / "gke-prod.yaml")
    assert prod.gpus() == {"nvidia-l4": 8 + 8 + 16, "nvidia-tesla-a100": 8}


def test_an_environment_does_not_change() -> None:
    laptop: Any = read_environment(FILES[-1])
    with pytest.raises(ValueError, match="frozen"):
        laptop.name = "other"
    assert isinstance(laptop, Environment)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_pods_that_have_ended_take_nothing_from_a_team(file: Path) -> None:
    environment = read_environment(file)
    for team in environment.teams.values():
        for namespace in team.namespaces:
            quota = foundation(environment)["namespaces"][namespace]["quota"]
            assert not [resource for resource in quota if resource.startswith("count/")], "Kubernetes counts those until they are deleted"
            assert quota["pods"] == str(team.compute.pods)

"""The step `registry-rights` as people type it: a real API server that keeps the passwords, a real MLflow that is brought to them, harmed and mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane import ControlPlane
from mlplatform.cluster.programs import Programs
from mlplatform.environment import read_environment
from mlplatform.errors import Unavailable
from mlplatform.plan.order import plan
from mlplatform.registry.reach import forwarded
from previous_release import VERSION
from raw_answers import ask, status
from registry_servers import Served, in_folder, mlflow_server, password_of, rendered
from typed_platform import surroundings, typed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NEEDED = {"foundation", "secrets", "registry-rights"}
ADMIN = f"admin:{password_of('mlflow-admin')}"


@pytest.fixture(scope="module")
def secrets(laptop: Path) -> Path:
    """The folder of the environment's credentials, in which the administrator's is that of the server."""
    folder = laptop.parent / ".secrets-laptop"
    folder.mkdir()
    (folder / "mlflow-admin").write_text(password_of("mlflow-admin"))
    return folder


@pytest.fixture(scope="module")
def served(bare_plane: ControlPlane, laptop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """MLflow, as the chart starts it."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(read_environment(laptop), folder, in_folder(folder)) as running:
        yield running


def reaches(address: str, user: str, word: str) -> bool:
    return status(f"{address}/api/2.0/mlflow/users/current", user=f"{user}:{word}") == 200


def test_a_platform_brings_its_registry_to_what_the_file_says_and_tells_where_it_cannot(
    bare_plane: ControlPlane, laptop: Path, secrets: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        brought_to_what_the_file_says(bare_plane, laptop, secrets, served, patch)
    left_alone_by_an_upgrade_and_caught_up_with(bare_plane, laptop, served)
    told_where_it_does_not_answer(bare_plane, laptop)


def brought_to_what_the_file_says(
    bare_plane: ControlPlane, laptop: Path, secrets: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [f"--without={step.name}" for step in plan(read_environment(laptop)) if step.name not in NEEDED]
    here = [str(laptop), "--registry", served.address, *others]

    # Before anything is there, all of it is new. The way is kubectl's, and says so where it leads nowhere.
    planned = typed(bare_plane, "plan", str(laptop), *others)
    assert planned.returncode == 0, planned.stderr
    assert "14 new" in planned.stdout
    for name, value in surroundings(bare_plane.kubeconfig).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unavailable, match="mlflow"), forwarded(Programs(kubeconfig=str(bare_plane.kubeconfig)), "mlflow", "mlflow", 5000):
        pass

    first = typed(bare_plane, "deploy", *here)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "+ Account fraud.runs" in first.stdout
    kept = {file.name: file.read_text() for file in secrets.iterdir()}
    assert all(word not in first.stdout + first.stderr for word in kept.values())
    assert reaches(served.address, "fraud.runs", kept["mlflow-fraud-runs"])
    again = typed(bare_plane, "deploy", *here)
    assert again.stdout.count("as it should be") == len(NEEDED), again.stdout
    looked = typed(bare_plane, "status", *here)
    assert (looked.returncode, looked.stdout.count(" healthy")) == (0, len(NEEDED))

    # A password is changed as the handbook says.
    (secrets / "mlflow-fraud-runs").write_text("another0word0for0the0pods")
    assert typed(bare_plane, "deploy", *here).returncode == 0
    assert reaches(served.address, "fraud.runs", "another0word0for0the0pods")
    assert not reaches(served.address, "fraud.runs", kept["mlflow-fraud-runs"])

    # Somebody does harm: each grant that is missing is named, and so is an account that is nobody's.
    roles = json.loads(ask(f"{served.address}/api/3.0/mlflow/roles/list", user=ADMIN))["roles"]
    champions = next(role["id"] for role in roles if (role["workspace"], role["name"]) == ("fraud", "millrace-champions"))
    for method, path, body in (
        ("DELETE", "3.0/mlflow/roles/unassign", {"username": "fraud.approver", "role_id": champions}),
        ("POST", "2.0/mlflow/users/create", {"username": "bob", "password": "a word of his own"}),
    ):
        ask(f"{served.address}/api/{path}", json.dumps(body).encode(), user=ADMIN, method=method)
    looked = typed(bare_plane, "status", *here)
    assert looked.returncode == 4
    assert "registry: give the role to fraud.approver: fraud/millrace-champions" in looked.stdout
    assert "the registry knows bob, whom the environment does not name" in looked.stdout
    assert "1 changed" in typed(bare_plane, "plan", *here).stdout
    assert typed(bare_plane, "deploy", *here).returncode == 0
    assert typed(bare_plane, "status", *here).returncode == 0

    # Who leaves the file is let in no more.
    laptop.write_text(laptop.read_text().replace("      approver: [user:ben@example.com]\n", ""))
    gone = typed(bare_plane, "deploy", *here)
    assert "- Account fraud.approver" in gone.stdout, gone.stdout + gone.stderr
    assert not reaches(served.address, "fraud.approver", kept["mlflow-fraud-approver"])


def left_alone_by_an_upgrade_and_caught_up_with(bare_plane: ControlPlane, laptop: Path, served: Served) -> None:
    others = [f"--without={step.name}" for step in plan(read_environment(laptop)) if step.name not in NEEDED]
    here = [str(laptop), *others, f"--registry={served.address}"]

    def upgrade(*arguments: str) -> str:
        was = {"metadata": {"annotations": {"millrace.dev/release": VERSION, "millrace.dev/release-left": None}}}
        bare_plane.client.request("PATCH", "/api/v1/namespaces/millrace-system", was)
        done = typed(bare_plane, "deploy", *arguments)
        assert f"upgrade from {VERSION}" in done.stdout, done.stdout + done.stderr
        assert done.returncode == 0, done.stdout + done.stderr
        return typed(bare_plane, "status", *here).stdout

    assert typed(bare_plane, "deploy", *here).returncode == 0
    assert "but for registry-rights" in upgrade(*here, "--without=registry-rights")
    assert typed(bare_plane, "deploy", *here).returncode == 0
    assert "but for" not in typed(bare_plane, "status", *here).stdout
    # Of a registry that cannot be asked, it is noted where there is one at all.
    nowhere = [str(laptop), *others, "--registry=http://127.0.0.1:9", "--without=registry-rights"]
    assert "but for" not in upgrade(*nowhere)
    bare_plane.client.apply(rendered(read_environment(laptop), "mlflow", "Deployment"))
    assert "but for registry-rights" in upgrade(*nowhere)


def told_where_it_does_not_answer(bare_plane: ControlPlane, laptop: Path) -> None:
    others = [f"--without={step.name}" for step in plan(read_environment(laptop)) if step.name not in NEEDED]
    nowhere = [str(laptop), "--registry", "http://127.0.0.1:9", *others]
    planned = typed(bare_plane, "plan", *nowhere)
    assert planned.returncode == 0, planned.stderr
    assert "not compared" in planned.stdout
    looked = typed(bare_plane, "status", *nowhere)
    assert looked.returncode == 4
    assert "kubectl --namespace mlflow get pods" in looked.stdout

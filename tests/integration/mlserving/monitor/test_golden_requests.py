"""Golden requests asked again of a real server, over both protocols: as published, with other weights, and with nobody there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlserving import store
from mlserving.client.ask import connect
from mlserving.errors import ConfigError
from mlserving.monitor import parity
from mlserving.monitor.command import main

pytestmark = pytest.mark.slow

GOLDEN = [
    {
        "inputs": {"amount": amount, "merchant": merchant},
        "outputs": {"label": label, "scores": scores, "version": 1},
    }
    for amount, merchant, label, scores in (
        (0.0, "tools", "tools", [0.875, 0.125, 0.125]),
        (0.0, "travel", "travel", [0.125, 0.875, 0.125]),
        (float("nan"), "", "tools", [float("nan")] * 3),
    )
]


def carry(folder: Path, golden: list[dict[str, Any]]) -> None:
    (folder / store.EXTRA).mkdir(exist_ok=True)
    (folder / store.GOLDEN_REQUESTS).write_text("".join(json.dumps(line) + "\n" for line in golden))


@pytest.fixture(scope="module")
def served(saved: Path, start_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Serves demo: 1 as it was published, and 2 with the weights of another version."""
    folder = tmp_path_factory.mktemp("parity")
    models = folder / "models"
    store.publish_version(models, "demo", 1, saved / "demo" / "1", lambda copied: carry(copied, GOLDEN[:2]))
    store.publish_version(models, "demo", 2, saved / "demo" / "2", lambda copied: carry(copied, GOLDEN))
    config = folder / "models.config"
    config.write_text(
        f"model_config_list {{ config {{ name: 'demo' base_path: '{models}/demo' model_platform: 'tensorflow' model_version_policy {{ all {{}} }} }} }}"
    )
    with start_server(folder, "--model-config", config) as running:
        yield running, models


@pytest.mark.parametrize("grpc", [True, False])
def test_a_version_that_answers_as_published_has_no_failure(served: Any, grpc: bool) -> None:
    running, models = served
    with connect(running.grpc if grpc else running.rest, grpc=grpc) as client:
        found = parity.check(client, "demo", 1, models / "demo" / "1", 1e-4)
    assert found is not None
    assert (found.requests, found.failures, found.example) == (2, 0, "")
    assert found.worst < 1e-6


@pytest.mark.parametrize("grpc", [True, False])
def test_other_weights_differ_in_every_request_and_the_first_is_shown(served: Any, grpc: bool) -> None:
    running, models = served
    with connect(running.grpc if grpc else running.rest, grpc=grpc) as client:
        found = parity.check(client, "demo", 2, models / "demo" / "2", 1e-4)
    assert found is not None
    assert (found.requests, found.failures) == (3, 3)
    assert found.example.startswith("request 1, version: expected 1, got 2")


def test_the_command_asks_every_version_that_is_served_and_exits_3(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    running, models = served
    code = main(["demo", "--store", str(models), "--workspace", str(models.parent), "--address", running.rest, "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert code == 3
    assert [(each["version"], each["failures"]) for each in findings["parity"]] == [(1, 0), (2, 3)]
    assert [(alarm["name"], alarm["labels"]["version"]) for alarm in findings["alarms"]] == [("ModelParityBroken", "2")]
    assert findings["servers_reached"] is True


def test_a_server_that_is_not_there_is_told_and_the_rest_is_still_measured(
    served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, models = served
    file = tmp_path / "metrics.prom"
    options = ["--store", str(models), "--workspace", str(tmp_path), "--address", "127.0.0.1:1", "--metrics-file", str(file)]
    assert main(["demo", *options]) == 0
    assert "Golden requests were not asked at 127.0.0.1:1" in capsys.readouterr().out
    assert 'millrace_monitor_parity_servers_up{model="demo"} 0.0' in file.read_text()


def test_a_damaged_file_of_golden_requests_is_named(served: Any, tmp_path: Path) -> None:
    running, models = served
    folder = tmp_path / "1"
    shutil.copytree(models / "demo" / "1", folder)
    (folder / store.GOLDEN_REQUESTS).write_text('{"inputs": {}}\n')
    with (
        connect(running.rest, grpc=False) as client,
        pytest.raises(ConfigError, match=r"golden_requests.jsonl does not hold golden requests"),
    ):
        parity.check(client, "demo", 1, folder, 1e-4)
    (folder / store.GOLDEN_REQUESTS).unlink()
    with connect(running.rest, grpc=False) as client:
        assert parity.check(client, "demo", 1, folder, 1e-4) is None

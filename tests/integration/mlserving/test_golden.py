"""Golden requests, asked of a real server over both protocols."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlserving import store

Golden = Callable[..., subprocess.CompletedProcess[str]]
ROW = {"inputs": {"amount": 0.0, "merchant": "tools"}, "outputs": {"label": "tools", "scores": [0.875, 0.125, 0.125], "version": 1}}


def line(**outputs: Any) -> dict[str, Any]:
    return {**ROW, "outputs": {**ROW["outputs"], **outputs}}


@pytest.fixture
def ask(server: Any, tmp_path: Path) -> Golden:
    """`python -m mlserving golden` about demo 1, with these lines."""

    def golden(protocol: str, rows: Sequence[Any], *more: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "golden.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = [sys.executable, "-m", "mlserving", "golden", "demo", "1", "--file", str(file), "--address", getattr(server, protocol)]
        return subprocess.run([*command, *(["--grpc"] if protocol == "grpc" else []), *more], capture_output=True, text=True, check=False)

    return golden


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_version_that_answers_as_it_did_passes(ask: Golden, protocol: str) -> None:
    done = ask(protocol, [ROW, line(scores=[0.87505, 0.125, 0.125])])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 golden requests of demo version 1" in done.stdout
    assert "all are answered as published" in done.stdout


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_another_answer_is_shown_and_is_no_success(ask: Golden, protocol: str) -> None:
    done = ask(protocol, [ROW, line(scores=[0.5, 0.25, 0.25], label="travel")])
    assert done.returncode == 3
    assert "line 2: label: expected travel, got b'tools'" in done.stdout
    assert "line 2: scores: expected [0.5, 0.25, 0.25]" in done.stdout
    assert "1 are answered differently" in done.stdout


def test_a_tolerance_can_be_asked_for_and_only_the_first_requests_too(ask: Golden) -> None:
    rows = [line(scores=[0.87, 0.13, 0.125]), line(label="travel")]
    assert ask("rest", rows, "--tolerance", "0.01", "--most", "1").returncode == 0


def test_what_is_no_request_is_named_by_its_line(ask: Golden) -> None:
    done = ask("rest", [ROW, {"instances": [1]}])
    assert done.returncode == 2
    assert "line 2" in done.stderr


def test_nobody_to_ask_is_a_reason_to_try_again(ask: Golden) -> None:
    assert ask("rest", [ROW], "--address", "127.0.0.1:9", "--wait", "0.1").returncode == 4


def status(address: str, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_version_s_metadata_is_there_when_the_version_is_and_not_before(server: Any) -> None:
    """The chart's probes stand on this; TensorFlow Serving does the same."""
    assert status(server.rest, "/v1/models/demo/versions/1/metadata") == 200
    assert status(server.rest, "/v1/models/demo/versions/9/metadata") == 404
    assert status(server.rest, "/v1/models/absent/versions/1/metadata") == 404


def test_the_configuration_that_the_chart_writes_serves_the_one_version_that_was_fetched(
    saved: Path, start_server: Any, tmp_path: Path
) -> None:
    for version in (1, 2):
        store.publish_version(tmp_path / "store", "demo", version, saved / "demo" / str(version))
    fetched = [
        sys.executable,
        "-m",
        "mlserving",
        "fetch",
        "demo",
        "2",
        "--store",
        str(tmp_path / "store"),
        "--to",
        str(tmp_path / "models"),
    ]
    subprocess.run(fetched, check=True, capture_output=True)
    shutil.rmtree(tmp_path / "store")
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "demo" base_path: "{tmp_path}/models/demo" model_platform: "tensorflow"'
        ' model_version_policy { specific { versions: 2 } } version_labels { key: "stable" value: 2 } } }'
    )
    with start_server(tmp_path, "--model-config", config) as running:
        assert status(running.rest, "/v1/models/demo/versions/2/metadata") == 200
        assert status(running.rest, "/v1/models/demo/labels/stable/metadata") == 200
        assert status(running.rest, "/v1/models/demo/versions/1/metadata") == 404

"""`millrace predict` and `millrace serve` as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlserving import store


def millrace(*arguments: str | Path, stdin: str = "", path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("MILLRACE_")} | {"COLUMNS": "160"} | environment
    if path:
        variables["PATH"] = f"{path}{os.pathsep}{variables['PATH']}"
    command = [sys.executable, "-m", "mlplatform", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, env=variables, timeout=120, check=False)


def ask(server: Any, *arguments: str, protocol: str = "rest", stdin: str = "") -> subprocess.CompletedProcess[str]:
    return millrace("predict", *arguments, f"--{protocol}", "--address", getattr(server, protocol), stdin=stdin)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
class TestPredict:
    def test_values_typed_by_hand_are_answered_with_a_table(self, server: Any, protocol: str) -> None:
        run = ask(server, "demo", "merchant=travel", "amount=0", protocol=protocol)
        assert run.returncode == 0, run.stderr
        assert "label" in run.stdout
        assert "travel" in run.stdout
        assert "0.125 0.875 0.125" in run.stdout

    def test_what_is_left_out_counts_as_missing(self, server: Any, protocol: str) -> None:
        run = ask(server, "demo", "--json", "--label", "stable", protocol=protocol)
        assert run.stdout == '{"label": "tools", "scores": [NaN, NaN, NaN], "version": 1}\n'

    def test_a_file_of_rows_gives_a_line_for_each(self, server: Any, protocol: str) -> None:
        rows = "".join(json.dumps({"merchant": name, "amount": 0}) + "\n" for name in ["tools", "travel", "else"] * 100)
        run = ask(server, "demo", "--json", "--file", "-", protocol=protocol, stdin=rows)
        assert [json.loads(line)["label"] for line in run.stdout.splitlines()] == ["tools", "travel", "other"] * 100

    def test_the_inputs_can_be_shown(self, server: Any, protocol: str) -> None:
        run = ask(server, "demo", "--inputs", protocol=protocol)
        assert run.stdout.startswith("Takes\n  amount: float [batch]\n  merchant: string [batch]\nGives\n")

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["demx"], "Models served here: demo, types."),
            (["demo", "--version", "9"], "Served versions of demo: 1, 2."),
            (["demo", "--label", "nope"], "Labels of demo: canary, stable."),
            (["demo", "amont=1"], "Did you mean 'amount'? Expected inputs: amount: float [batch]; merchant: string [batch]."),
            (["demo", "amount=cheap"], "Input amount: float [batch] cannot be 'cheap'"),
            (["demo", "--signature", "x"], "It has: classify, regress, serving_default."),
            (["demo", "--explain"], "Add `explanations: {}` to `deployment` in its project.yaml"),
            (["demo", "--file", "absent.jsonl"], "absent.jsonl cannot be read"),
        ],
    )
    def test_a_mistake_is_told_with_what_would_be_right(self, server: Any, protocol: str, arguments: list[str], text: str) -> None:
        run = ask(server, *arguments, protocol=protocol)
        assert run.returncode == 2
        assert text in run.stderr
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize("protocol", ["--rest", "--grpc"])
def test_without_a_server_the_command_to_start_one_is_told(protocol: str) -> None:
    run = millrace("predict", "demo", protocol, "--address", "127.0.0.1:1")
    assert run.returncode == 4
    assert run.stderr.rstrip().endswith("Start one: millrace serve demo")


@pytest.mark.parametrize("protocol", ["--rest", "--grpc"])
def test_asking_imports_no_tensorflow(protocol: str) -> None:
    code = (
        "import sys; from mlplatform.cli import main\n"
        f"main(['predict', 'demo', '{protocol}', '--address', '127.0.0.1:1']); print('tensorflow' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def fake_model(folder: Path, name: str) -> None:
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source" / "saved_model.pb").write_bytes(b"this is no protocol buffer")
    store.publish_version(folder / "models", name, 1, folder / "source")


def test_an_empty_store_is_told_before_tensorflow_is_loaded(tmp_path: Path) -> None:
    run = millrace("serve", "--workspace", tmp_path)
    assert run.returncode == 2
    assert "There is no model in" in run.stderr
    assert run.stderr.rstrip().endswith("millrace run PROJECT_DIR")


def test_a_model_that_is_not_in_the_store_is_told_with_those_that_are(tmp_path: Path) -> None:
    fake_model(tmp_path, "cards")
    run = millrace("serve", "crads", MILLRACE_WORKSPACE=str(tmp_path))
    assert run.returncode == 2
    assert "It has: cards" in run.stderr


def test_a_port_that_is_taken_is_told_before_tensorflow_is_loaded(tmp_path: Path) -> None:
    import socket

    fake_model(tmp_path, "cards")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for option, other in (("--rest-port", "--grpc-port"), ("--grpc-port", "--rest-port")):
            run = millrace("serve", "--store", tmp_path / "models", option, port, other, "0")
            assert run.returncode == 2
            assert f"127.0.0.1:{port} cannot be bound" in run.stderr
            assert option in run.stderr


@pytest.mark.slow
def test_a_named_model_that_does_not_load_ends_the_command_with_the_reason(tmp_path: Path) -> None:
    fake_model(tmp_path, "cards")
    run = millrace("serve", "cards", "--workspace", tmp_path, "--grpc-port", "0", "--rest-port", "0", "--ready-file", tmp_path / "ready")
    assert run.returncode == 4
    assert "Unavailable: cards cannot be served. cards version 1: " in run.stderr
    assert not (tmp_path / "ready").exists()


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "",
        "model_config_list { config { name: 'a' } }",
        "model_config_list { config { name: 'a' base_path: '/m' model_platform: 'onnx' } }",
    ],
)
def test_a_wrong_model_configuration_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "models.config").write_text(text)
    run = millrace("serve", "--model-config", tmp_path / "models.config")
    assert run.returncode == 2
    assert "models.config" in run.stderr


@pytest.fixture
def tensorflow_model_server(tmp_path: Path) -> Path:
    """The one stand-in here: Google's program is not installed. It writes down how it was called, and serves /v1/models/cards."""
    program = tmp_path / "bin" / "tensorflow_model_server"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import http.server, json, os, re, sys\n"
        f"json.dump([os.getpid(), *sys.argv[1:]], open({str(tmp_path / 'called.json')!r}, 'w'))\n"
        "class Answer(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        found = self.path == '/v1/models/cards'\n"
        "        fine = {'error_code': 'OK', 'error_message': ''}\n"
        "        answer = {'model_version_status': [{'version': '1', 'state': 'AVAILABLE', 'status': fine}]}\n"
        "        body = json.dumps(answer if found else {'error': 'no'}).encode()\n"
        "        self.send_response(200 if found else 404); self.send_header('Content-Length', str(len(body))); self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "port = next(int(a.split('=')[1]) for a in sys.argv if a.startswith('--rest_api_port='))\n"
        "http.server.HTTPServer(('127.0.0.1', port), Answer).serve_forever()\n"
    )
    program.chmod(0o755)
    return program.parent


def test_tensorflow_model_server_is_run_where_it_is_on_the_path(tmp_path: Path, tensorflow_model_server: Path) -> None:
    fake_model(tmp_path, "cards")
    ready = tmp_path / "ready.json"
    environment = os.environ | {"PATH": f"{tensorflow_model_server}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "mlplatform", "serve", "--store", str(tmp_path / "models"), "--rest-port", "0", "--grpc-port", "8123"]
    with subprocess.Popen(
        [*command, "--ready-file", str(ready)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not ready.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            told = json.loads(ready.read_text())
        finally:
            process.kill()
    pid, *arguments = json.loads((tmp_path / "called.json").read_text())
    assert pid == process.pid == told["pid"], "it takes the process over, so signals reach it"
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    assert flags["port"] == "8123"
    assert told == {"grpc": "127.0.0.1:8123", "rest": f"127.0.0.1:{flags['rest_api_port']}", "pid": pid}
    assert flags["allow_version_labels_for_unavailable_models"] == "true"
    config = Path(flags["model_config_file"])
    assert f'name: "cards"\n    base_path: "{tmp_path}/models/cards"' in config.read_text()
    config.unlink()


def test_the_implementation_can_be_forced(tmp_path: Path, tensorflow_model_server: Path) -> None:
    fake_model(tmp_path, "cards")
    python = millrace("serve", "--implementation", "python", "other", "--store", tmp_path / "models", path=tensorflow_model_server)
    assert python.returncode == 2
    assert not (tmp_path / "called.json").exists()
    absent = millrace("serve", "--implementation", "tensorflow", "--store", tmp_path / "models", PATH=os.defpath)
    assert absent.returncode == 2
    assert "tensorflow_model_server is not on PATH" in absent.stderr


@pytest.mark.parametrize("command", ["serve", "predict"])
def test_help_explains_with_examples_and_exit_codes(command: str) -> None:
    run = millrace(command, "--help")
    assert run.returncode == 0
    assert "examples:\n  millrace" in run.stdout
    assert "exit codes: 0" in run.stdout


@pytest.mark.slow
def test_a_signal_while_it_is_still_loading_stops_it_at_once_and_quietly(tmp_path: Path) -> None:
    import signal

    fake_model(tmp_path, "cards")
    command = [sys.executable, "-m", "mlplatform", "serve", "--implementation", "python", "--store", str(tmp_path / "models")]
    with subprocess.Popen(
        [*command, "--grpc-port", "0", "--rest-port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Loading TensorFlow")
        time.sleep(1)  # into the import; the signal may come at any point of it
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == ""

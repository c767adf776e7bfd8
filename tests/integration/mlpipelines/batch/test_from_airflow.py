"""What docs/batch.md tells somebody with an Airflow to type: the real kfp client against a server that records what it is sent."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import yaml

from mlpipelines.commands.batch import _parser

ROOT = Path(__file__).resolve().parents[4]
PAGE = (ROOT / "docs" / "batch.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


class Recorder(BaseHTTPRequestHandler):
    """Answers as Kubeflow Pipelines' API does where an experiment is new, and keeps what it was asked."""

    asked: ClassVar[list[tuple[str, str, Any]]] = []

    def do_GET(self) -> None:  # http.server's name
        self.asked.append(("GET", self.path, None))
        self._say({"multi_user": False} if "healthz" in self.path else {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(("POST", self.path, body))
        self._say(
            {"experiment_id": "e1", "display_name": "batch"} if "experiments" in self.path else {"run_id": "r1", "experiment_id": "e1"}
        )

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _say(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def recording() -> Iterator[str]:
    Recorder.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_call_over_kubeflows_api_sends_the_request_that_the_page_shows() -> None:
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    package = ROOT / "pipelines" / "projects" / "transactions" / "batch.yaml"
    with recording() as host:
        assert names["start_batch"](host, str(package), "2025-03-01") == "r1"
    (body,) = [body for verb, path, body in Recorder.asked if verb == "POST" and path.split("?")[0] == "/apis/v2beta1/runs"]
    shown = json.loads(blocks("json")[0])
    assert body["display_name"] == shown["display_name"]
    assert body["experiment_id"] == "e1"
    assert body["runtime_config"]["parameters"] == shown["runtime_config"]["parameters"]
    spec = body["pipeline_spec"].get("pipeline_spec", body["pipeline_spec"])
    known = spec["root"]["inputDefinitions"]["parameters"]
    assert set(shown["runtime_config"]["parameters"]) <= set(known), "every argument is a parameter of the pipeline"
    assert spec["pipelineInfo"]["name"] == "transactions-batch-inference"
    (executor,) = spec["deploymentSpec"]["executors"].values()
    assert "mlpipelines.steps.batch" in executor["container"]["command"][-1]


def test_the_pod_of_the_page_types_a_command_that_exists() -> None:
    tree = ast.parse(blocks("python")[1])
    (call,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    assert isinstance(call, ast.Call)
    said = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg in ("cmds", "arguments")}
    assert said["cmds"] == ["python", "-m", "mlpipelines"]
    assert said["arguments"][0] == "batch"
    parsed = _parser().parse_args(said["arguments"][1:])
    assert (parsed.rank_by, parsed.top, parsed.per, parsed.once_per) == ("score", 50, "day", "user_id")
    answered = subprocess.run(
        [sys.executable, "-m", "mlpipelines", *said["arguments"]], capture_output=True, text=True, check=False, env={"PATH": ""}
    )
    assert (answered.returncode, "Traceback" in answered.stderr) == (2, False)
    assert "/projects/scam-users/project.yaml does not exist" in answered.stderr


def test_a_caller_may_say_whatever_the_command_may() -> None:
    document = next(yaml.safe_load_all((ROOT / "pipelines" / "projects" / "transactions" / "batch.yaml").read_text()))
    parameters = set(document["root"]["inputDefinitions"]["parameters"])
    options = {action.dest for action in _parser()._actions} - {"help", "json", "overlays", "settings"}
    assert {name.replace("log_feature", "log_features") if name == "log_feature" else name for name in options} == parameters

"""Kubeflow Pipelines' API server, as far as it is asked anything here: its v2beta1 REST over a real socket.

The real one needs a cluster with MySQL and Argo. This one keeps runs and experiments in memory and answers the calls that `mlpipelines.kubeflow` makes,
with the field names and states of `backend/api/v2beta1`. A name may be given to any number of runs, as there. `troubles` are what happens
to the next requests that make a run.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]


class KubeflowApi:
    """What it holds and what shall go wrong."""

    def __init__(self) -> None:
        self.experiments: list[Object] = []
        self.runs: list[Object] = []
        self.troubles: list[str] = []
        """`503`; `refused`: for what it is; `never`: the connection breaks and nothing was done; `silent`: it was done, and the answer is lost; `late`: it is done once
        `latecomers` may go on, long after the client has given up."""
        self.latecomers = threading.Event()
        self.down = False
        self.over_before_asked = False
        """Whether a run that is to be ended has just ended by itself."""
        self.authorizations: list[str] = []
        """What each request showed."""
        self.port = 0
        self.lock = threading.Lock()

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def end(self, state: str, run: int = 0, failed: str = "") -> None:
        """A run has come to an end. One that failed has no `error`: its tasks tell, of which Argo makes several for a step (`failed`) and for what is around it.
        One that somebody ended fails in the end, and its history tells.
        """
        names = {"FAILED": ["root", "exit-handler-1", failed, f"{failed}(0)", "executor"], "SUCCEEDED": []}.get(state, ["root"])
        tasks = [{"display_name": name, "state": "FAILED"} for name in names if name]
        others = [
            {"display_name": "ingest", "state": "SUCCEEDED"},
            {"display_name": "report", "state": "SUCCEEDED"},
            {"display_name": "publish"},
        ]
        history = ["PENDING", "RUNNING", *(["CANCELING"] if state == "CANCELED" else [])]
        last = "FAILED" if state == "CANCELED" else state
        self.runs[run].update(
            state=last, state_history=[{"state": each} for each in [*history, last]], run_details={"task_details": tasks + others}
        )

    def ending(self, seconds: float, run: int = 0) -> None:
        """Somebody has been ending a run for so long."""
        since = datetime.now(UTC) - timedelta(seconds=seconds)
        told = {"update_time": f"{since:%Y-%m-%dT%H:%M:%SZ}", "state": "CANCELING"}
        self.runs[run].update(state="CANCELING", state_history=[{"state": "RUNNING"}, told])

    def open_runs(self) -> list[Object]:
        """Those that go on."""
        return [run for run in self.runs if run.get("state", "PENDING") in ("PENDING", "RUNNING")]

    def make_run(self, asked: Object) -> Object:
        with self.lock:
            created = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=len(self.runs))
            run = {
                **asked,
                "run_id": str(uuid.uuid4()),
                "created_at": f"{created:%Y-%m-%dT%H:%M:%SZ}",
                "finished_at": "1970-01-01T00:00:00Z",
            }
            self.runs.append(run)
            return run

    def make_experiment(self, asked: Object) -> Object:
        with self.lock:
            self.experiments.append({**asked, "experiment_id": str(uuid.uuid4())})
            return self.experiments[-1]


@contextmanager
def kubeflow_api() -> Iterator[KubeflowApi]:
    """A server on a free port."""
    api = KubeflowApi()

    class Handler(_Handler):
        world = api

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    world: KubeflowApi

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self.world.authorizations.append(self.headers.get("Authorization", ""))
        where, asked = urlsplit(self.path), parse_qs(urlsplit(self.path).query)
        if self.world.down:
            self._say(503, {"error": "upstream connect error"})
        elif where.path == "/apis/v2beta1/healthz":
            self._say(200, {"multi_user": True, "pipeline_store": "database"})
        elif where.path == "/apis/v2beta1/experiments":
            self._list("experiments", _chosen(self.world.experiments, asked))
        elif where.path == "/apis/v2beta1/runs":
            (place,) = asked["experiment_id"]
            of_it = [run for run in self.world.runs if run["experiment_id"] == place]
            self._list("runs", _chosen(sorted(of_it, key=lambda run: str(run["created_at"]), reverse=True), asked))
        else:
            self._say(404, {"code": 5, "message": "Not Found", "details": []})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        if self.world.down:
            self._say(503, {"error": "upstream connect error"})
        elif self.path == "/apis/v2beta1/experiments":
            self._say(200, self.world.make_experiment(asked))
        elif self.path == "/apis/v2beta1/runs":
            self._run(asked)
        elif self.path.endswith(":terminate"):
            self._terminate(self.path.rpartition("/")[2].removesuffix(":terminate"))
        else:
            self._say(404, {"code": 5, "message": "Not Found", "details": []})

    def _terminate(self, run_id: str) -> None:
        at = next(at for at, run in enumerate(self.world.runs) if run["run_id"] == run_id)
        if self.world.over_before_asked:
            self.world.end("SUCCEEDED", at)
        if self.world.runs[at].get("state", "PENDING") in ("PENDING", "RUNNING"):
            self.world.end("CANCELED", at)
            self._say(200, {})
        else:
            self._say(400, {"code": 3, "message": f"Invalid input error: Failed to terminate a run {run_id}. Row not found", "details": []})

    def _run(self, asked: Object) -> None:
        trouble = self.world.troubles.pop(0) if self.world.troubles else ""
        if trouble in ("503", "refused"):
            self._trouble(trouble)
        elif trouble == "never":
            self.connection.close()
        elif trouble == "silent":
            self.world.make_run(asked)
            time.sleep(2)
            self.connection.close()
        elif trouble == "late":
            self.world.latecomers.wait(60)
            self.world.make_run(asked)
        else:
            self._say(200, self.world.make_run(asked))

    def _trouble(self, trouble: str) -> None:
        """A pipeline that it cannot read is an error of its own, by the code that it answers."""
        if trouble == "503":  # of what stands before it
            self._say(503, {"error": "no healthy upstream"})
            return
        inner = {"@type": "type.googleapis.com/google.rpc.Status", "code": 13, "message": "Internal Server Error"}
        text = "InternalServerError: Failed to create a run due to error fetching manifest: InvalidInputError: pipeline spec is invalid"
        self._say(500, {"code": 13, "message": f"Failed to create a new run: {text}", "details": [inner]})

    def _list(self, name: str, objects: list[Object]) -> None:
        """An empty list is left out of the answer."""
        self._say(200, {name: objects, "total_size": len(objects)} if objects else {})

    def _say(self, status: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _chosen(objects: list[Object], asked: dict[str, list[str]]) -> list[Object]:
    predicates = json.loads(asked["filter"][0])["predicates"] if "filter" in asked else []
    assert all(each["operation"] == "EQUALS" and each["key"] == "display_name" for each in predicates), predicates
    wanted = [each["stringValue"] for each in predicates]
    return [each for each in objects if not wanted or each["display_name"] in wanted][: int(asked.get("page_size", ["20"])[0])]

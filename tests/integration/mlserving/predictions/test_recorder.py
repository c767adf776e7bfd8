"""The recorder as a process: killed at any moment, on a full disk, beside a model server. Each exchange is in the log exactly once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from disks import small_disk
from exchanges import NOON, an_exchange
from fork_server import new_fork_server
from mlserving import wire
from mlserving.client.grpc_client import tensor_to_wire
from mlserving.client.signature import Tensor
from mlserving.predictions import files
from mlserving.predictions.exchange import Exchange
from mlserving.predictions.labels import LabelStore
from mlserving.predictions.reading import joined, log
from mlserving.predictions.record_command import record
from mlserving.predictions.spool import SpoolWriter, segments
from recording import gateway_yaml, recording, rows_in
from waiting import eventually

MIB = 1 << 20
FEATURES = ["merchant", "amount"]


def by_grpc(number: int = 0, model: str = "cards", **changes: Any) -> Exchange:
    """An exchange that can be read without a model server: gRPC says its types itself."""
    asked, answered = wire.PredictRequest(), wire.PredictResponse()
    for messages, values in (
        (
            asked.inputs,
            {"merchant": ("DT_STRING", [f"shop {number}"]), "amount": ("DT_FLOAT", [number]), "owner": ("DT_STRING", ["Jane Roe"])},
        ),
        (answered.outputs, {"label": ("DT_STRING", ["food"]), "confidence": ("DT_FLOAT", [0.75])}),
    ):
        for name, (dtype, value) in values.items():
            messages[name].CopyFrom(tensor_to_wire(Tensor.of(dtype, value)))
    fields = {"protocol": "grpc", "method": "Predict", "request": asked.SerializeToString(), "response": answered.SerializeToString()}
    return an_exchange(number, **{"model": model, "version": 0} | fields | changes)  # version 0: nobody is asked for signatures


def ids(predictions: Path, model: str = "cards") -> Counter[str]:
    return Counter(log(predictions, model).table(["prediction_id"])["prediction_id"].to_pylist())


def figures(folder: Path) -> dict[str, float]:
    lines = [line for line in (folder / "recorder.prom").read_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def spooled(folder: Path, exchanges: list[Exchange]) -> None:
    writer = SpoolWriter(folder / "spool", 64 * MIB)
    assert all(writer.append(exchange) for exchange in exchanges)
    writer.close()


def test_what_is_spooled_is_in_the_log_and_the_spool_is_free(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {"features": FEATURES}})
    with recording(tmp_path, config) as process:
        spooled(tmp_path, [by_grpc(number) for number in range(100)])
        eventually("all rows are written", lambda: rows_in(tmp_path / "predictions", "cards") == 100, 180)
        eventually("the spool is empty", lambda: not segments(tmp_path / "spool"), 180)
        eventually(
            "all rows are counted",
            lambda: figures(tmp_path).get('millrace_predictions_logged_total{model="cards",track="stable",version="0"}') == 100,
            180,
        )
        assert process.poll() is None
    row = log(tmp_path / "predictions", "cards").table().slice(7, 1).to_pylist()[0]
    assert row["prediction_id"] == "id-7"
    assert (row["feature/merchant"], row["feature/amount"], row["output/confidence"]) == ("shop 7", 7.0, 0.75)
    assert (row["label"], row["confidence"], row["latency_ms"], row["protocol"]) == ("food", 0.75, 1.5, "grpc")
    assert row["time"] == datetime.fromtimestamp(NOON / 1e6 + 7, UTC)


def test_what_is_not_named_is_in_no_file_and_no_figure(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {"features": FEATURES}})
    spooled(tmp_path, [by_grpc(number) for number in range(20)])
    with recording(tmp_path, config):
        eventually("all rows are written", lambda: rows_in(tmp_path / "predictions", "cards") == 20, 180)
        eventually("there are figures", (tmp_path / "recorder.prom").exists, 180)
    written = [path for folder in ("predictions", "spool") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    written += [tmp_path / "recorder.prom", tmp_path / "recorder.log"]
    assert any(path.suffix == ".parquet" for path in written)
    assert not [path for path in written if b"Roe" in path.read_bytes() or b"owner" in path.read_bytes()]
    assert "owner" not in log(tmp_path / "predictions", "cards").schema.to_string()


_GATEWAY = """
import os, sys, time
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from mlserving.predictions.spool import SpoolWriter, segments
from test_recorder import by_grpc
writer = SpoolWriter(Path(sys.argv[1]), 1 << 30, segment_bytes=4000, segment_seconds=0.05)
os.set_blocking(0, False)
number = 0
print("ready", flush=True)
while sys.stdin.buffer.raw.read(1) is None:  # until it is closed
    for _ in range(10):
        assert writer.append(by_grpc(number))
        number += 1
    assert writer.drain(30)
    while len(segments(Path(sys.argv[1]))) > 50:
        time.sleep(0.01)
writer.close()
print(number, flush=True)
"""


@pytest.mark.slow
def test_a_recorder_that_is_killed_at_any_moment_leaves_each_exchange_in_the_log_exactly_once(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {"features": FEATURES}})
    paths = [str(Path(__file__).parent), str(Path(sys.modules["exchanges"].__file__ or "").parent)]
    chance, deaths = random.Random(7), 0
    ready = new_fork_server(
        "mlserving.predictions.record_command"
    )  # processes that have imported what they need: they die while they write
    arguments = ["--spool", str(tmp_path / "spool"), "--predictions", str(tmp_path / "predictions"), "--config", str(config)]
    arguments += ["--most-seconds", "0.02"]
    command = [sys.executable, "-c", _GATEWAY, str(tmp_path / "spool"), *paths]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as gateway:
        assert gateway.stdin is not None
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == b"ready\n"
        for _ in range(20):
            process = ready.Process(target=record, args=(arguments,))
            process.start()
            before = set((tmp_path / "predictions" / "log").rglob("[!.]*.parquet"))
            eventually(
                "a file is written",
                lambda before=before: set((tmp_path / "predictions" / "log").rglob("[!.]*.parquet")) - before,
                180,
                every=0.02,
            )
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
            process.join(10)
            deaths += process.exitcode == -signal.SIGKILL
        with recording(tmp_path, config):  # from here on, since a gateway that is this far ahead waits for its recorder
            gateway.stdin.close()
            count = int(gateway.stdout.readline())
            eventually("the spool is empty", lambda: not segments(tmp_path / "spool"), 180)
    assert deaths == 20
    assert ids(tmp_path / "predictions") == Counter(f"id-{number}" for number in range(count))
    assert not list((tmp_path / "predictions" / ".staging").rglob("*.parquet"))


def test_a_recorder_that_is_told_to_go_writes_what_is_there_first(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {}})
    spooled(tmp_path, [by_grpc(number) for number in range(50)])
    with recording(tmp_path, config, "--most-seconds", "3600"):
        eventually("there are figures", (tmp_path / "recorder.prom").exists, 180)
    assert sum(ids(tmp_path / "predictions").values()) == 50
    assert segments(tmp_path / "spool") == []


def test_a_second_recorder_waits_until_the_first_is_gone(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {}})
    with recording(tmp_path, config) as first:
        eventually("there are figures", (tmp_path / "recorder.prom").exists, 180)
        with recording(tmp_path, config):
            spooled(tmp_path, [by_grpc(number) for number in range(50)])
            eventually("all rows are written", lambda: sum(ids(tmp_path / "predictions").values()) == 50, 180)
            first.send_signal(signal.SIGKILL)
            first.wait(10)
            spooled(tmp_path, [by_grpc(number) for number in range(50, 60)])
            eventually("the later rows are written", lambda: sum(ids(tmp_path / "predictions").values()) == 60, 180)
    assert set(ids(tmp_path / "predictions").values()) == {1}


_STARTS_A_RECORDER_AND_DIES = """
import os, subprocess, sys
process = subprocess.Popen([sys.executable, "-m", "mlserving", *sys.argv[1:]])
print(process.pid, flush=True)
sys.stdin.read()
os._exit(9)
"""


def test_a_recorder_whose_gateway_is_killed_finishes_and_ends(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {}})
    arguments = ["record", "--spool", str(tmp_path / "spool"), "--predictions", str(tmp_path / "predictions"), "--config", str(config)]
    command = [sys.executable, "-c", _STARTS_A_RECORDER_AND_DIES, *arguments, "--metrics", str(tmp_path / "recorder.prom")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as gateway:
        assert gateway.stdout is not None
        recorder = int(gateway.stdout.readline())
        eventually("there are figures", (tmp_path / "recorder.prom").exists, 180)
        spooled(tmp_path, [by_grpc()])
        gateway.kill()
    eventually(
        "the recorder has ended",
        lambda: not Path(f"/proc/{recorder}").exists() or "Z" in Path(f"/proc/{recorder}/stat").read_text().split()[2],
        180,
    )
    assert sum(ids(tmp_path / "predictions").values()) == 1


def test_on_a_full_disk_the_spool_is_kept_and_written_when_there_is_space(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {"features": FEATURES}})
    with small_disk(tmp_path / "predictions", "1m") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(MIB - 40 * 1024))
        spooled(tmp_path, [by_grpc(number, prediction_id=os.urandom(30).hex()) for number in range(3000)])
        with recording(tmp_path, config) as process:
            eventually(
                "errors of writing are counted",
                lambda: (tmp_path / "recorder.prom").exists() and figures(tmp_path)["millrace_predictions_write_errors_total"] > 1,
                180,
            )
            assert segments(tmp_path / "spool")
            assert rows_in(disk, "cards") == 0
            assert process.poll() is None
            ballast.unlink()
            eventually("all rows are written", lambda: rows_in(disk, "cards") == 3000, 180)
            eventually("the spool is empty", lambda: not segments(tmp_path / "spool"), 180)
        assert set(ids(disk).values()) == {1}


def test_torn_segments_cost_their_last_record_and_no_more(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {}})
    spooled(tmp_path, [by_grpc(number) for number in range(10)])
    (segment,) = segments(tmp_path / "spool")
    os.truncate(segment, segment.stat().st_size - 5)
    spooled(tmp_path, [by_grpc(number) for number in range(10, 20)])
    with recording(tmp_path, config):
        eventually("all whole rows are written", lambda: rows_in(tmp_path / "predictions", "cards") == 19, 180)
        eventually(
            "the torn one is counted", lambda: figures(tmp_path).get('millrace_predictions_dropped_total{model="",reason="torn"}') == 1, 180
        )
    assert "id-9" not in ids(tmp_path / "predictions")


def test_a_day_begins_at_midnight_utc_and_a_clock_that_jumps_back_loses_nothing(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {}})
    midnight = NOON + 12 * 3600 * 1_000_000
    times = [midnight - 1, midnight, midnight + 1, NOON - 400 * 86400 * 1_000_000, midnight + 86400 * 1_000_000, 0, -1, 2**62]
    spooled(tmp_path, [by_grpc(number, time_us=time_us) for number, time_us in enumerate(times)])
    with recording(tmp_path, config):
        eventually("all sound rows are written", lambda: rows_in(tmp_path / "predictions", "cards") == 7, 180)
        eventually(
            "the undecodable one is counted",
            lambda: figures(tmp_path).get('millrace_predictions_dropped_total{model="cards",reason="undecodable"}') == 1,
            180,
        )
    days = files.days(tmp_path / "predictions" / "log", "cards")
    rows = {str(day): sum(len(log_rows(path)) for path in folder.glob("*.parquet")) for day, folder in days.items()}
    assert rows == {"1969-12-31": 1, "1970-01-01": 1, "2024-11-26": 1, "2025-12-31": 1, "2026-01-01": 2, "2026-01-02": 1}


def log_rows(path: Path) -> list[Any]:
    import pyarrow.parquet as pq

    rows: list[Any] = pq.read_table(path).to_pylist()
    return rows


def test_garbage_is_counted_and_what_is_beside_it_is_logged(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {}})
    bad = [by_grpc(1, request=b"\xff" * 50), by_grpc(2, response=b""), by_grpc(3, model="../../etc"), by_grpc(4, method="Nonsense")]
    bad = [an_exchange(5, model="cards", version=0, request=b"{"), *bad]
    spooled(tmp_path, [*bad, by_grpc(6)])
    with recording(tmp_path, config):
        eventually("the sound row is written", lambda: rows_in(tmp_path / "predictions", "cards") == 1, 180)
        eventually(
            "the undecodable ones are counted",
            lambda: figures(tmp_path).get('millrace_predictions_dropped_total{model="cards",reason="undecodable"}') == 4,
            180,
        )
        assert figures(tmp_path)['millrace_predictions_dropped_total{model="",reason="unknown_model"}'] == 1
    assert segments(tmp_path / "spool") == []


def test_versions_with_other_columns_and_types_are_files_of_their_own(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {"features": ["x"]}})

    def with_x(number: int, version: int, dtype: str, value: Any) -> Exchange:
        asked = wire.PredictRequest()
        asked.inputs["x"].CopyFrom(tensor_to_wire(Tensor.of(dtype, [value])))
        answered = wire.PredictResponse()
        answered.outputs["label"].CopyFrom(tensor_to_wire(Tensor.of("DT_STRING", ["food"])))
        request, response = asked.SerializeToString(), answered.SerializeToString()
        return an_exchange(number, model="cards", version=version, protocol="grpc", method="Predict", request=request, response=response)

    spooled(tmp_path, [with_x(1, 0, "DT_FLOAT", 1.5), with_x(2, 0, "DT_STRING", "text"), with_x(3, 0, "DT_FLOAT", 2.5), by_grpc(4)])
    with recording(tmp_path, config):
        eventually("all rows are written", lambda: rows_in(tmp_path / "predictions", "cards") == 4, 180)
    rows = log(tmp_path / "predictions", "cards").table(["prediction_id", "feature/x"]).sort_by("prediction_id")
    assert rows["feature/x"].to_pylist() == ["1.5", "text", "2.5", None]


def test_labels_become_parquet_and_are_counted(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {}})
    spooled(tmp_path, [by_grpc(1)])
    with recording(tmp_path, config):
        with LabelStore(tmp_path / "predictions") as store:
            store.store({"model": "cards", "labels": [{"prediction_id": "id-1", "label": "rent"}]})
        eventually(
            "the label is counted", lambda: figures_or_none(tmp_path).get('millrace_labels_total{model="cards",source="api"}') == 1, 180
        )
        eventually("the row is written", lambda: rows_in(tmp_path / "predictions", "cards") == 1, 180)
    assert len(list((tmp_path / "predictions" / "labels" / "model=cards").rglob("*.parquet"))) == 1
    (row,) = [row for batch in joined(tmp_path / "predictions", "cards") for row in batch.to_pylist()]
    assert (row["label"], row["truth"]) == ("food", "rent")


def figures_or_none(folder: Path) -> dict[str, float]:
    return figures(folder) if (folder / "recorder.prom").exists() else {}


def test_a_model_with_a_thousand_classes_fills_no_prometheus(tmp_path: Path) -> None:
    config = gateway_yaml(tmp_path, {"cards": {}})
    spooled(
        tmp_path,
        [
            an_exchange(n, model="cards", version=0, protocol="grpc", method="Predict", request=b"", response=r)
            for n, r in enumerate(_classes(300))
        ],
    )
    with recording(tmp_path, config):
        eventually("all rows are written", lambda: rows_in(tmp_path / "predictions", "cards") == 300, 180)
    classes = [name for name in figures(tmp_path) if name.startswith("millrace_prediction_class_total")]
    assert len(classes) == 101
    assert figures(tmp_path)['millrace_prediction_class_total{class="other",model="cards",track="stable",version="0"}'] == 200


def _classes(count: int) -> list[bytes]:
    found = []
    for number in range(count):
        answered = wire.PredictResponse()
        answered.outputs["label"].CopyFrom(tensor_to_wire(Tensor.of("DT_STRING", [f"class {number}"])))
        found.append(answered.SerializeToString())
    return found


def test_what_a_real_server_answered_is_typed_by_its_signature(tmp_path: Path, server: Any) -> None:
    """Over both protocols, against the local model server; JSON that tells no types gets those of the version that answered."""
    import urllib.request

    def post(verb: str, body: dict[str, Any]) -> tuple[bytes, bytes]:
        data = json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(f"http://{server.rest}/v1/models/demo/versions/2:{verb}", data)) as answer:
            return data, answer.read()

    config = gateway_yaml(tmp_path, {"demo": {"features": ["amount", "merchant"], "outputs": {"confidence": "scores"}}}, rest=server.rest)
    asked = [
        ("predict", post("predict", {"instances": [{"amount": 1, "merchant": "tools"}, {"amount": 2.5, "merchant": "travel"}]})),
        ("predict", post("predict", {"inputs": {"amount": [3], "merchant": ["x"]}})),
        ("classify", post("classify", {"signature_name": "classify", "examples": [{"amount": 4.0, "merchant": "tools"}]})),
        ("regress", post("regress", {"signature_name": "regress", "examples": [{"amount": 5.0}]})),
    ]
    spooled(
        tmp_path,
        [an_exchange(n, model="demo", version=2, method=verb, request=q, response=a) for n, (verb, (q, a)) in enumerate(asked)],
    )
    with recording(tmp_path, config):
        eventually("all rows are written", lambda: rows_in(tmp_path / "predictions", "demo") == 5, 180)
    rows = log(tmp_path / "predictions", "demo").table().sort_by([("prediction_id", "ascending"), ("row", "ascending")]).to_pylist()
    assert [row["feature/amount"] for row in rows] == [1.0, 2.5, 3.0, 4.0, 5.0]
    assert [row["feature/merchant"] for row in rows] == ["tools", "travel", "x", "tools", None]
    assert [row["label"] for row in rows] == ["tools", "travel", "other", "tools", None]
    assert rows[0]["output/version"] == 2
    assert rows[0]["confidence"] == pytest.approx(max(rows[0]["output/scores"]))
    assert rows[4]["output/value"] == 10.0
    assert [row["signature"] for row in rows] == ["serving_default"] * 3 + ["classify", "regress"]


def test_json_waits_in_the_spool_until_somebody_tells_the_signature(tmp_path: Path, server: Any) -> None:
    config = gateway_yaml(tmp_path, {"demo": {"features": ["amount"]}})
    body = json.dumps({"inputs": {"amount": [3], "merchant": ["x"]}}).encode()
    answer = json.dumps({"outputs": {"label": ["other"], "version": [2]}}).encode()
    spooled(tmp_path, [an_exchange(1, model="demo", version=2, request=body, response=answer)])
    with recording(tmp_path, config):
        eventually("there are figures", (tmp_path / "recorder.prom").exists, 180)
        assert segments(tmp_path / "spool")
        gateway_yaml(tmp_path, {"demo": {"features": ["amount"]}}, rest=server.rest)
        eventually("the row is written", lambda: rows_in(tmp_path / "predictions", "demo") == 1, 180)
    assert log(tmp_path / "predictions", "demo").table()["feature/amount"].to_pylist() == [3.0]

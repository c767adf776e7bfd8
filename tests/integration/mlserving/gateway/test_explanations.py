"""Why a prediction is what it is, asked through the gateway: from the typed command to the row of the log, and to those who count rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from explained_models import exported
from gateways import Server, config, gateway
from mlserving import store
from mlserving.predictions import reading
from typed_commands import millrace
from waiting import eventually

pytestmark = pytest.mark.slow
INPUTS = {"amount", "count", "team", "tags"}
LOG = "    log: {share: 1, features: [amount, team, tags], outputs: {label: label, confidence: confidence}}\n"
ROWS = [
    {"amount": 12.5, "count": 3, "team": "sales", "tags": ["urgent", "late"]},
    {"amount": 900.0, "count": 0, "team": "plant", "tags": []},
    {"count": 1, "team": "café"},
]


@dataclass(frozen=True)
class Asked:
    """A workspace whose gateway was asked over both protocols, each time the usual question and why, and was stopped then."""

    workspace: Path
    usual: dict[str, list[dict[str, Any]]]
    why: dict[str, list[dict[str, Any]]]
    counted: dict[str, float]
    """By the recorder: rows of the log, and classes."""


@pytest.fixture(scope="module")
def asked(start_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    folder = tmp_path_factory.mktemp("explained")
    store.publish_version(folder / "models", "cards", 1, exported(folder, "classification"))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    folders = ["--spool", str(folder / "spool"), "--predictions", str(folder / "predictions")]
    with start_server(folder, "--store", folder / "models") as server:
        settings = config("cards", stable=((server.grpc, server.rest), 100), more=LOG)
        with gateway(folder / "g", settings, *folders) as front:
            usual, why = ({way: predict(front, folder, way, *words) for way in ("grpc", "rest")} for words in ([], ["--explain"]))
            eventually("all predictions are logged", lambda: front.metric("millrace_predictions_logged_total") == 4 * len(ROWS), 60)
            counted = {name: front.metric(f"millrace_{name}_total") for name in ("predictions_logged", "prediction_class")}
            assert front.stop(60) == 0
    return Asked(folder, usual, why, counted)


def predict(front: Server, folder: Path, way: str, *words: str) -> list[dict[str, Any]]:
    """`millrace predict` of the rows, through the gateway."""
    told = millrace(
        "predict",
        "cards",
        "--address",
        getattr(front, way),
        f"--{way}",
        "--file",
        folder / "rows.jsonl",
        "--json",
        *words,
        workspace=folder,
    )
    return [json.loads(line) for line in told.stdout.splitlines()]


def logged(asked: Asked, signature: str, protocol: str) -> list[dict[str, Any]]:
    rows = reading.log(asked.workspace / "predictions", "cards", explanations=True).table().sort_by("row").to_pylist()
    return [row for row in rows if (row["signature"], row["protocol"]) == (signature, protocol)]


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_the_answer_is_the_usual_one_with_parts_that_add_up(asked: Asked, protocol: str) -> None:
    for usual, why in zip(asked.usual[protocol], asked.why[protocol], strict=True):
        assert why["label"] == usual["label"]
        assert why["scores"] == pytest.approx(usual["scores"], abs=1e-6)
        assert set(why["explained_by"]) == INPUTS
        assert why["base_score"] + sum(why["attributions"]) == pytest.approx(max(usual["scores"]), abs=1e-5)


def test_both_protocols_explain_alike(asked: Asked) -> None:
    for one, other in zip(asked.why["grpc"], asked.why["rest"], strict=True):
        assert dict(zip(one["explained_by"], one["attributions"], strict=True)) == pytest.approx(
            dict(zip(other["explained_by"], other["attributions"], strict=True)), abs=1e-6
        )


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_the_log_keeps_what_was_said_typed_by_the_signature(asked: Asked, protocol: str) -> None:
    rows = logged(asked, "explain", protocol)
    assert [row["feature/team"] for row in rows] == [row["team"] for row in ROWS]
    assert [[tag for tag in row["feature/tags"] if tag] for row in rows] == [row.get("tags", []) for row in ROWS]
    for row, said in zip(rows, asked.why[protocol], strict=True):
        assert row["output/explained_by"] == said["explained_by"]
        assert row["output/attributions"] == pytest.approx(said["attributions"], rel=1e-5)
        assert row["output/base_score"] == pytest.approx(said["base_score"], rel=1e-5)
        assert (row["label"], row["version"]) == (said["label"], 1)
    schema = reading.log(asked.workspace / "predictions", "cards", explanations=True).schema
    kinds = {"explained_by": pa.list_(pa.string()), "attributions": pa.list_(pa.float32()), "base_score": pa.float32()}
    assert {name: schema.field(f"output/{name}").type for name in kinds} == kinds
    usual = logged(asked, "serving_default", protocol)
    assert [row["output/explained_by"] for row in usual] == [None] * len(ROWS)


def test_a_case_that_was_explained_counts_once_for_the_monitor_and_for_rollouts(asked: Asked) -> None:
    assert asked.counted == {"predictions_logged": 4 * len(ROWS), "prediction_class": 2 * len(ROWS)}
    findings = json.loads(millrace("monitor", "cards", "--since", "1h", "--json", workspace=asked.workspace).stdout)
    assert findings["rows"] == 2 * len(ROWS)
    assert [note for note in findings["notes"] if f"explained {2 * len(ROWS)} rows" in note]

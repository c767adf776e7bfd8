"""Transactions that lie near each other, from rows to answers; and a new customer's labels, which count with no training."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from typed_commands import millrace, run, served, versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROJECT = Path(__file__).resolve().parents[2] / "pipelines" / "projects" / "transaction-similarity"
MODEL = "transaction-similarity"
SMALL = (
    "source.options.rows=6000",
    "training.epochs=4",
    "training.parameters.table_bits=12",
    "evaluation.slices=[]",
    "deployment.warmup_requests=5",
)
KNOWN = {
    "merchant": "SQ *KESTOR CAFE 0173",
    "amount": 14.5,
    "booked_at": 1_740_000_000,
    "vat": "standard",
    "team": "sales",
    "cost_centre": "sales-01",
}
NEW = {
    "merchant": "NORROS HARBOUR 0042",  # the new customer has been there before
    "amount": 480.0,
    "booked_at": 1_740_000_000,
    "vat": "exempt",
    "team": "fleet",
    "cost_centre": "fleet-02",
}


def settings(*more: str) -> list[str]:
    return [f"--set={each}" for each in (*SMALL, *more)]


def ask(rest: str, transactions: Sequence[dict[str, Any]], signature: str = "") -> list[Any]:
    body = {"instances": list(transactions), **({"signature_name": signature} if signature else {})}
    with urllib.request.urlopen(f"http://{rest}/v1/models/{MODEL}:predict", json.dumps(body).encode(), timeout=60) as answer:
        return list(json.load(answer)["predictions"])


def test_a_new_customers_labels_count_without_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # no line of a table is broken
    workspace = tmp_path / "w"
    first = run(PROJECT, *settings(), workspace=workspace)
    assert first["status"] == "blessed", first["failure"]

    second = run(PROJECT, "--reuse", "champion", *settings("source.options.newcomer_rows=40"), workspace=workspace)
    assert second["status"] == "blessed", second["failure"]
    (report,) = workspace.glob(f"projects/{MODEL}/runs/{second['run']}/artifacts/*/train/model/training.json")
    told = json.loads(report.read_text())
    assert (told["steps"], told["epochs_run"], told["reused"]["version"]) == (0, 0, 1)
    newest, oldest = versions(MODEL, workspace)
    assert (newest["version"], newest["trained as"], oldest["trained as"]) == (2, "1", "1")
    assert newest["data"] != oldest["data"]

    with served(MODEL, workspace, tmp_path / "ready.json") as rest:
        new, known = ask(rest, [NEW, KNOWN])
        assert new["label"] == "harbour-dues"
        assert known["label"] == "meals"
        assert 0.5 < new["confidence"] <= 1
        assert -1 <= new["similarity"] <= 1.001
        assert np.linalg.norm(known["embedding"]) == pytest.approx(1, abs=1e-4)
        assert ask(rest, [KNOWN], "embedding")[0] == pytest.approx(known["embedding"], abs=1e-5)
        (why,) = ask(rest, [NEW], "explain")
        assert (why["label"], why["confidence"]) == (new["label"], pytest.approx(new["confidence"], abs=1e-5))
        assert why["explained_by_label"][0] == "harbour-dues"
        assert len(set(why["explained_by"])) == 5
        assert why["attributions"] == sorted(why["attributions"], reverse=True)
        assert not {"explained_by", "attributions"} & new.keys()
        told = millrace(
            "predict", MODEL, "--explain", "--address", rest, *(f"{name}={value}" for name, value in NEW.items()), workspace=workspace
        )
        assert "(harbour-dues) +0." in told.stdout


def test_a_version_that_left_nothing_to_build_on_and_one_that_is_not_there_are_told(tmp_path: Path) -> None:
    nobody = millrace("run", PROJECT, "--reuse", "champion", workspace=tmp_path / "w", code=2)
    assert "has no champion" in nobody.stderr
    misspelt = millrace("run", PROJECT, "--reuse", "newest", workspace=tmp_path / "w", code=2)
    assert "name a version by its number" in misspelt.stderr

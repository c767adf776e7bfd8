"""A freeze and its lifting stand in the audit log, in the name of whoever typed them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlpipelines.commands.freeze import freeze, thaw
from mlserving.audit.command import main as audit


def test_who_froze_a_model_and_who_let_it_go_stand_in_the_audit_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--workspace", str(tmp_path)]
    monkeypatch.setenv("MILLRACE_USER", "ann")
    assert freeze(["visits", "--because", "month end", *where]) == 0
    monkeypatch.setenv("MILLRACE_USER", "bob")
    assert thaw(["visits", *where]) == 0
    assert thaw(["visits", *where]) == 0
    capsys.readouterr()
    assert audit(["list", "visits", "--json", *where]) == 0
    entries = json.loads(capsys.readouterr().out)
    told = [(entry["who"], entry["action"], entry["why"]) for entry in entries]
    assert told == [("ann", "freeze", "month end"), ("bob", "thaw", "")]
    assert entries[1]["details"] == {"frozen_by": "ann", "frozen_because": "month end"}
    assert audit(["verify", *where]) == 0

"""`millrace monitor` on a log of real Parquet files: what it prints, writes, serves and exits with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlserving import store
from mlserving.errors import ConfigError, Unavailable
from mlserving.monitor.command import main
from waiting import eventually
from watched_model import MODEL, NOON, Watched, payments

WINDOW = ("--since", "2026-11-27", "--until", "2026-11-28")


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def monitored(watched: Watched, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any], dict[str, float]]:
    """Exit code, the JSON that it prints, and the metrics that it writes."""
    file = watched.root / "metrics.prom"
    code = main([MODEL, "--workspace", str(watched.root), *WINDOW, "--json", "--metrics-file", str(file), *options])
    lines = [line.rsplit(" ", 1) for line in file.read_text().splitlines() if not line.startswith("#")]
    return code, json.loads(capsys.readouterr().out), {name: float(value) for name, value in lines}


def series(metrics: dict[str, float], name: str, **labels: str) -> dict[str, float]:
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    return {
        each: value for each, value in metrics.items() if each.startswith(f"millrace_monitor_{name}{{") and all(w in each for w in wanted)
    }


def alarms(findings: dict[str, Any]) -> set[tuple[str, str]]:
    return {(alarm["name"], alarm["labels"].get("column", "")) for alarm in findings["alarms"]}


def test_a_healthy_model_exits_0_and_tells_every_number(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish(floor=0.3)
    ids = watched.log(2000)
    watched.label(ids[:500], watched.logged[0]["label"].to_pylist()[:500])
    code, findings, metrics = monitored(watched, capsys)
    assert (code, findings["alarms"], findings["rows"]) == (0, [], 2000)
    assert len(series(metrics, "drift_distance")) == len(series(metrics, "drift_threshold")) == 5
    assert set(series(metrics, "drift_alarm").values()) == set(series(metrics, "missing_alarm").values()) == {0.0}
    (accuracy,) = series(metrics, "quality", metric="accuracy").values()
    assert accuracy == 1.0
    assert list(series(metrics, "labelled_ratio").values()) == [0.25]
    assert list(series(metrics, "statistics_present").values()) == [1.0]
    assert series(metrics, "alarms", alarm="ModelFeatureDrift") == {
        f'millrace_monitor_alarms{{alarm="ModelFeatureDrift",model="{MODEL}"}}': 0.0
    }
    assert metrics[f'millrace_monitor_last_run_timestamp_seconds{{model="{MODEL}"}}'] == pytest.approx(time.time(), abs=60)


def test_drift_of_features_and_answers_and_what_goes_missing_alarm_and_exit_3(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish()
    features = payments(2000, 2)
    watched.log(
        2000,
        features={
            "amount": pa.array(np.asarray(features["amount"]) * 3),
            "team": pa.array(features["team"].to_pylist(), mask=np.arange(2000) % 2 == 0),
        },
        outputs={"label": pa.array(["rail"] * 2000)},
    )
    code, findings, metrics = monitored(watched, capsys)
    assert code == 3
    assert alarms(findings) == {
        ("ModelFeatureDrift", "feature/amount"),
        ("ModelMissingValues", "feature/team"),
        ("ModelPredictionDrift", "output/label"),
    }
    assert sum(series(metrics, "drift_alarm").values()) == 2
    for alarm in findings["alarms"]:
        assert alarm["value"] > alarm["threshold"]
        assert alarm["labels"]["column"] in alarm["reason"]


def test_two_hundred_rows_of_chance_raise_no_alarm(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish()
    watched.log(200)
    assert monitored(watched, capsys)[0] == 0


def test_a_slice_in_which_something_is_wrong_alarms_though_the_whole_does_not(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish(slices=["team"])
    features = payments(4000, 2)
    parks = np.array(features["team"].to_pylist()) == "parks"
    currency = np.where(parks & (np.arange(4000) % 2 == 0), "EUR", features["currency"].to_pylist())
    watched.log(4000, features={"currency": pa.array(currency)})
    assert monitored(watched, capsys, "--by", "protocol")[0] == 0
    code, findings, _ = monitored(watched, capsys)
    assert code == 3
    assert {(alarm["labels"]["slice"], alarm["labels"]["column"]) for alarm in findings["alarms"]} == {("team=parks", "feature/currency")}
    groups = {group["slice"]: group["rows"] for group in findings["groups"]}
    assert groups.pop("") == sum(groups.values()) == 4000


def test_a_slice_that_differs_from_the_whole_is_held_against_its_own_training_rows_or_against_nothing(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    def by_currency(rows: int, seed: int) -> dict[str, pa.Array]:
        made = payments(rows, seed)
        factor = np.where(np.array(made["currency"].to_pylist()) == "USD", 50, 1)
        return {**made, "amount": pa.array(np.asarray(made["amount"]) * factor, pa.float32())}

    watched.publish(training=by_currency(20_000, 1), slices=["currency"])
    watched.log(4000, features=dict(by_currency(4000, 2)))
    code, findings, _ = monitored(watched, capsys)
    assert code == 0
    assert {group["slice"]: len(group["columns"]) for group in findings["groups"]} == {
        "": 5, "currency=EUR": 2, "currency=GBP": 2, "currency=USD": 2
    }  # fmt: skip
    _, findings, _ = monitored(watched, capsys, "--by", "team")
    assert {len(group["columns"]) for group in findings["groups"] if group["slice"]} == {0}
    assert any(note.startswith("Slices by team are told without drift") for note in findings["notes"])


def test_slices_with_few_rows_are_not_judged_and_columns_that_are_not_there_are_none(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.publish(slices=["team", "nowhere"], min_rows=700)
    watched.log(2000)
    _, findings, _ = monitored(watched, capsys)
    assert {group["slice"] for group in findings["groups"]} == {"", "team=fleet"}


def test_versions_and_tracks_are_told_apart(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish(1)
    watched.publish(2)
    watched.log(800, version=1)
    watched.log(600, version=2, track="canary", seed=3, outputs={"label": pa.array(["fuel"] * 600)})
    watched.log(500, version=2, track="shadow", seed=4, features={"amount": None, "colour": pa.array(["red"] * 500)})
    code, findings, metrics = monitored(watched, capsys)
    assert code == 3
    assert {(g["version"], g["track"], g["rows"]) for g in findings["groups"]} == {
        (1, "stable", 800),
        (2, "canary", 600),
        (2, "shadow", 500),
    }
    assert ("ModelPredictionDrift", "output/label") in alarms(findings)
    assert {a["labels"]["version"] for a in findings["alarms"]} == {"2"}
    assert any("features that training did not describe: colour" in note for note in findings["notes"])
    assert len(series(metrics, "rows")) == 3


def test_a_feature_that_the_log_does_not_keep_is_told_and_raises_no_alarm(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish()
    watched.log(1000, features={"amount": None})
    code, findings, _ = monitored(watched, capsys)
    assert code == 0
    assert findings["groups"][0]["unlogged"] == ["amount"]


def test_a_version_from_before_statistics_is_watched_for_quality_and_says_so(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish(carries=False)
    ids = watched.log(1000)
    watched.label(ids, watched.logged[0]["label"].to_pylist())
    code, findings, metrics = monitored(watched, capsys)
    assert code == 0
    assert list(series(metrics, "statistics_present").values()) == [0.0]
    assert series(metrics, "drift_distance") == {}
    assert findings["groups"][0]["quality"]["metrics"]["accuracy"]["value"] == 1.0
    assert "carries no statistics of its training" in findings["notes"][-1]


def test_a_version_that_left_the_store_is_still_told(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.log(300)
    code, findings, _ = monitored(watched, capsys)
    assert code == 0
    assert "Version 1 is no longer in" in findings["notes"][0]


def test_an_empty_window_is_healthy_and_says_that_it_is_empty(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish()
    watched.log(100, start=NOON - timedelta(days=3))
    code, findings, metrics = monitored(watched, capsys)
    assert (code, findings["rows"], findings["groups"]) == (0, 0, [])
    assert "There are no predictions in the window." in findings["notes"]
    assert f'millrace_monitor_last_run_timestamp_seconds{{model="{MODEL}"}}' in metrics


def test_accuracy_surely_below_the_floor_alarms_and_too_few_labels_do_not(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish(floor=0.9)
    ids = watched.log(1000)
    said = watched.logged[0]["label"].to_pylist()
    wrong = ["food" if each != "food" else "fuel" for each in said]
    watched.label(ids[:20], wrong[:20])
    assert monitored(watched, capsys)[0] == 0
    watched.label(ids[:300], [*said[:200], *wrong[200:300]], after=timedelta(hours=3))
    code, findings, metrics = monitored(watched, capsys)
    assert code == 3
    assert alarms(findings) == {("ModelQualityLow", "")}
    assert list(series(metrics, "quality_alarm").values()) == [1.0]


def test_labels_from_the_review_queue_alone_are_told_as_a_biased_sample(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish()
    ids = watched.log(1000)
    watched.label(ids[:100], watched.logged[0]["label"].to_pylist()[:100], source="review")
    _, findings, metrics = monitored(watched, capsys)
    assert any("all labels come from the review queue" in note for note in findings["notes"])
    assert list(series(metrics, "reviewed_ratio").values()) == [0.1]


def test_labels_that_take_too_long_alarm(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish(label_delay_hours=24)
    watched.log(500)
    code, findings, _ = monitored(watched, capsys)  # the window's end is longer ago than a day, and no label has come
    assert (code, alarms(findings)) == (3, {("ModelLabelsLate", "")}) or findings["measured_at"] < "2026-11-28T12"


def test_the_page_is_one_file_that_tells_the_alarms_and_escapes_what_the_data_says(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.publish()
    watched.log(1000, features={"currency": pa.array(["<script>alert(1)</script>"] * 1000)})
    report = watched.root / "pages" / "report.html"
    assert monitored(watched, capsys, "--report", str(report), "--by", "team")[0] == 3
    page = report.read_text()
    assert "ModelFeatureDrift" in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"<script|https?://|url\(", page)
    assert page.count("<svg") >= 5


def test_the_terminal_says_what_alarms_first(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish()
    watched.log(1000, features={"currency": pa.array(["JPY"] * 1000)})
    assert main([MODEL, "--workspace", str(watched.root), *WINDOW]) == 3
    said = capsys.readouterr().out.splitlines()
    assert said[1].strip().startswith("ALARM ModelFeatureDrift version=1 track=stable column=feature/currency")
    assert any(line.startswith("! feature/currency") for line in said)


def test_damaged_files_and_wrong_arguments_say_what_to_do(watched: Watched) -> None:
    watched.publish()
    watched.log(200)
    options = [MODEL, "--workspace", str(watched.root)]
    for extra, message in (
        (["--since", "soon"], "--since 'soon' is neither a length of time"),
        (["--since", "1h", "--until", "2h"], "is not before"),
        (["--every", "often"], "--every 'often' is no length of time"),
        (["--settings", str(watched.root / "none.yaml")], "none.yaml cannot be read"),
    ):
        with pytest.raises(ConfigError, match=message):
            main([*options, *extra])
    with pytest.raises(ConfigError, match=r"There is no model 'crads'.*There are: cards"):
        main(["crads", "--workspace", str(watched.root)])
    with pytest.raises(Unavailable, match="Name the workspace: --workspace DIR"):
        main(["--workspace", str(watched.root / "nothing")])
    (watched.folder() / store.TRAINING_STATISTICS).write_bytes(b"\xff" * 9)
    with pytest.raises(ConfigError, match=r"training_statistics.pb cannot be read as statistics"):
        main([*options, *WINDOW])
    (watched.folder() / store.TRAINING_STATISTICS).unlink()
    (watched.folder() / store.MONITOR_SETTINGS).write_text('{"drfit": 0.2}')
    with pytest.raises(ConfigError, match=r"monitor.json: drfit: Extra inputs are not permitted"):
        main([*options, *WINDOW])


def test_settings_named_on_the_command_line_take_the_place_of_the_version_s(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    watched.publish()
    watched.log(1000, features={"currency": pa.array(["JPY"] * 1000)})
    settings = watched.root / "settings.yaml"
    settings.write_text("ignore: [currency]\n")
    assert monitored(watched, capsys, "--settings", str(settings))[0] == 0


def test_the_service_runs_again_and_again_serves_its_metrics_and_ends_on_sigterm(watched: Watched) -> None:
    watched.publish()
    watched.log(500)
    broken = watched.models / "broken" / "1"
    (broken / store.EXTRA).mkdir(parents=True)
    (broken / store.MONITOR_SETTINGS).write_text("no: settings")
    (watched.predictions / "log" / "model=broken").symlink_to(watched.predictions / "log" / f"model={MODEL}")
    command = [sys.executable, "-m", "mlserving", "monitor", "--workspace", str(watched.root), *WINDOW]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, "--every", "1m", "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "predictions, healthy" in line:
                break
        try:
            address = re.search(r"http://\S+/metrics", said)
            assert address is not None, said
            assert "broken: ConfigError: " in said

            def told(line: str) -> bool:
                return line in urllib.request.urlopen(address[0], timeout=30).read().decode()

            assert told(f'millrace_monitor_rows{{model="{MODEL}",slice="",track="stable",version="1"}} 500.0')
            eventually("a failed run is counted once all of it has ended", lambda: told("millrace_monitor_failed_runs_total 1.0"), 30)
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_it_imports_neither_tensorflow_nor_tfdv() -> None:
    code = "import sys, mlserving.monitor.service; print([m for m in ('tensorflow', 'tensorflow_data_validation') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

"""Labels: what is acknowledged is on the disk, what is wrong is refused with its path, and each becomes Parquet once."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserving.errors import ConfigError, Unavailable
from mlserving.predictions import files, label_journal
from mlserving.predictions.commit import locked
from mlserving.predictions.label_journal import JOURNAL
from mlserving.predictions.label_request import MOST_BYTES, MOST_LABELS
from mlserving.predictions.labels import LabelStore, collect
from mlserving.predictions.reading import labels, last_labels

NOW = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)


def a_request(*given: dict[str, Any], model: str = "cards") -> dict[str, Any]:
    return {"model": model, "labels": list(given or [{"prediction_id": "a", "label": "fraud"}])}


def told(predictions: Path, model: str = "cards") -> list[dict[str, Any]]:
    return [row for batch in labels(predictions, model) for row in batch.to_pylist()]


def test_the_journal_may_lie_on_another_disk_than_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, disk = tmp_path / "bucket", tmp_path / "disk"
    monkeypatch.setenv(label_journal.VARIABLE, str(disk))
    with LabelStore(log) as store:
        store.store(a_request())
        assert [row["label"] for row in told(log)] == ["fraud"], "seen before it is Parquet"
        assert not log.exists()
    collect(log)
    assert label_journal.journals(disk) == []
    assert [row["label"] for row in told(log)] == ["fraud"]
    assert [path.suffix for path in (log / "labels").rglob("*") if path.is_file()] == [".parquet"]


def test_what_is_acknowledged_is_on_the_disk(tmp_path: Path) -> None:
    store = LabelStore(tmp_path, now=lambda: NOW)
    status, answer = store.answer(json.dumps(a_request()).encode())
    assert (status, json.loads(answer)) == (200, {"stored": 1, "refused": []})
    (journal,) = label_journal.journals(tmp_path / "labels" / JOURNAL)
    assert json.loads(journal.read_bytes())["label"] == "fraud"
    assert told(tmp_path) == [
        {
            "prediction_id": "a", "row": 0, "model": "cards", "label": "fraud", "labelled_at": NOW, "received_at": NOW, "source": "api",
            "reviewer": None,
        }
    ]  # fmt: skip
    store.close()


@pytest.mark.parametrize(("label", "text"), [("fraud", "fraud"), (3, "3"), (0.5, "0.5"), (True, "true")])
def test_a_label_that_is_no_text_is_written_as_the_log_writes_it(tmp_path: Path, label: Any, text: str) -> None:
    with LabelStore(tmp_path) as store:
        store.store(a_request({"prediction_id": "a", "label": label}))
    assert [row["label"] for row in told(tmp_path)] == [text]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"label": "x"}, "labels.1.prediction_id"),
        ({"prediction_id": "a b", "label": "x"}, "labels.1.prediction_id"),
        ({"prediction_id": "a", "label": None}, "labels.1.label"),
        ({"prediction_id": "a", "label": ""}, "labels.1.label"),
        ({"prediction_id": "a", "label": float("nan")}, "labels.1.label"),
        ({"prediction_id": "a", "label": "x", "row": -1}, "labels.1.row"),
        ({"prediction_id": "a", "label": "x", "labelled_at": "2025-12-31T10:00:00"}, "labels.1.labelled_at"),
        ({"prediction_id": "a", "label": "x", "labelled_at": "2031-01-01T00:00:00Z"}, "labels.1.labelled_at"),
        ({"prediction_id": "a", "label": "x", "owner": "Jane"}, "labels.1.owner"),
        ("nonsense", "labels.1"),
    ],
)
def test_a_wrong_label_is_refused_by_its_path_and_the_others_are_kept(tmp_path: Path, wrong: Any, reason: str) -> None:
    good = {"prediction_id": "a", "label": "x"}
    with LabelStore(tmp_path, now=lambda: NOW) as store:
        stored = store.store(a_request(good, wrong, good | {"row": 1}))
    assert stored.stored == 2
    ((index, text),) = stored.refused
    assert index == 1
    assert text.startswith(reason)
    assert [row["row"] for row in told(tmp_path)] == [0, 1]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "no JSON"),
        (b"[]", 400, "the request"),
        (b'{"model": "../x", "labels": [1]}', 400, "model"),
        (b'{"model": "m", "labels": []}', 400, "labels"),
        (b'{"model": "m", "labels": [1], "more": 1}', 400, "more"),
        (json.dumps({"model": "m", "labels": [1] * (MOST_LABELS + 1)}).encode(), 400, "labels"),
        (b'{"model": "m", "labels": [1]}', 400, "labels.0"),
        (bytes(MOST_BYTES + 1), 413, "fewer"),
        (b"[" * 100_000, 400, "no JSON"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(tmp_path: Path, body: bytes, status: int, text: str) -> None:
    with LabelStore(tmp_path) as store:
        got, answer = store.answer(body)
    assert got == status
    assert text in answer.decode()
    assert told(tmp_path, "m") == []


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
def test_any_json_is_answered(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    with LabelStore(Path(tmp_path_factory.getbasetemp())) as store:
        status, _ = store.answer(json.dumps({"model": "m", "labels": [document, {"prediction_id": "a", "label": document}]}).encode())
        assert status in {200, 400}
        assert store.answer(json.dumps(document).encode())[0] == 400


def test_collected_labels_are_parquet_once_by_model_and_day(tmp_path: Path) -> None:
    times = iter([NOW, NOW.replace(hour=5), datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC)])
    with LabelStore(tmp_path, now=lambda: next(times)) as store:
        store.store(a_request({"prediction_id": "a", "label": "x"}))
        store.store(a_request({"prediction_id": "b", "label": "x"}, model="demo"))
        store.store(a_request({"prediction_id": "c", "label": "x"}))
    assert collect(tmp_path) == {("cards", "api"): 2, ("demo", "api"): 1}
    assert collect(tmp_path) == {}
    assert label_journal.journals(tmp_path / "labels" / JOURNAL) == []
    assert [str(day) for day in files.days(tmp_path / "labels", "cards")] == ["2025-12-31", "2026-01-01"]
    assert sorted(row["prediction_id"] for row in told(tmp_path)) == ["a", "c"]


def test_a_journal_that_grows_is_left_alone_and_one_that_is_old_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "labels" / JOURNAL
    journal = label_journal.Journal(folder, most_seconds=3600)
    with LabelStore(tmp_path) as store:
        store._journal = journal
        store.store(a_request())
        assert collect(tmp_path) == {}
    aged = label_journal.Journal(folder, most_seconds=0.01)
    aged.append(
        [
            dict.fromkeys(("prediction_id", "model", "label", "source"), "x")
            | {"row": 0, "labelled_at": 0, "received_at": 0, "reviewer": None}
        ]
    )
    assert aged._timer is not None
    aged._timer.join(5)
    assert collect(tmp_path) == {("cards", "api"): 1, ("x", "x"): 1}


def test_while_somebody_else_collects_nothing_is_done(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        store.store(a_request())
    with locked(tmp_path / "labels" / JOURNAL) as ours:
        assert ours
        assert collect(tmp_path) == {}
    assert collect(tmp_path) == {("cards", "api"): 1}


def test_a_torn_line_was_never_acknowledged_and_is_left_out(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        store.store(a_request())
    (journal,) = label_journal.journals(tmp_path / "labels" / JOURNAL)
    with journal.open("ab") as file:
        file.write(journal.read_bytes()[:50])
    assert len(told(tmp_path)) == 1
    assert collect(tmp_path) == {("cards", "api"): 1}


def test_a_full_disk_is_told_nothing_of_the_request_is_kept_and_it_goes_on_when_there_is_space(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = LabelStore(tmp_path)
    store.store(a_request({"prediction_id": "first", "label": "x"}))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        many = a_request(*[{"prediction_id": f"id-{n}", "label": "x"} for n in range(100)])
        with pytest.raises(Unavailable, match="again"):
            store.store(many)
        assert store.answer(json.dumps(many).encode())[0] == 503
        assert [row["prediction_id"] for row in told(tmp_path)] == ["first"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.store(many).stored == 100
    store.close()
    assert len(told(tmp_path)) == 101


_STORES_UNTIL_KILLED = """
import sys
from pathlib import Path
from mlserving.predictions.labels import LabelStore
store = LabelStore(Path(sys.argv[1]))
number = 0
while True:
    store.store({"model": "cards", "labels": [{"prediction_id": f"id-{number}", "label": "x"}]})
    print(number, flush=True)
    number += 1
"""


def test_a_killed_process_loses_no_label_that_it_acknowledged(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _STORES_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [line for line in process.stdout.readlines() if line.endswith(b"\n")]
    collect(tmp_path)
    found = {row["prediction_id"] for row in told(tmp_path)}
    assert found >= {f"id-{int(line)}" for line in acknowledged}


def test_threads_may_store_together(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        threads = [
            threading.Thread(
                target=lambda n=n: [store.store(a_request({"prediction_id": f"{n}-{each}", "label": "x"})) for each in range(50)]
            )
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert last_labels(tmp_path, "cards").num_rows == 200


def test_a_request_as_a_whole_raises_where_there_is_no_http(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store, pytest.raises(ConfigError, match="model"):
        store.store({"labels": [1]})


@contextlib.contextmanager
def dying_at(monkeypatch: pytest.MonkeyPatch, call: int) -> Any:
    """The process dies at its n-th change of a name on the disk."""
    made = 0

    class Killed(BaseException):
        pass

    def counted(real: Any) -> Any:
        def change(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made == call:
                raise Killed
            return real(*arguments, **options)

        return change

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", counted(Path.rename))
        patched.setattr(Path, "unlink", counted(Path.unlink))
        with contextlib.suppress(Killed):
            yield


@pytest.mark.parametrize("call", range(1, 9))
def test_wherever_a_collecting_process_dies_its_successor_has_each_label_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    with LabelStore(tmp_path) as store:
        for model in ("cards", "demo"):
            store.store(a_request({"prediction_id": "a", "label": "x"}, {"prediction_id": "b", "label": "x"}, model=model))
    with dying_at(monkeypatch, call):
        collect(tmp_path)
    collect(tmp_path)
    for model in ("cards", "demo"):
        assert sorted(row["prediction_id"] for row in told(tmp_path, model)) == ["a", "b"]
    assert not [path for path in (tmp_path / ".staging").rglob("*") if path.is_file()]

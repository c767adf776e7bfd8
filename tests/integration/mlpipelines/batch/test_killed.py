"""Killed at any rename or at any moment, and typed again: the output is what it would have been, and nothing is in it twice.

Each call is a process of its own, forked from one that has imported the libraries.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_world import changed, payments, write
from fork_server import new_fork_server
from mlpipelines.batch import run as run_module
from mlpipelines.batch.output import Output, alone_in
from mlpipelines.batch.request import BatchOutcome, BatchRequest
from mlpipelines.batch.run import run_batch
from mlpipelines.errors import Conflict
from mlpipelines.publishing import registry
from mlpipelines.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Make = Callable[..., BatchRequest]


def call(request: BatchRequest, renames: int) -> None:
    """In a process of its own: score, and die by SIGKILL at the rename with this number; 0 lives on."""
    run_module._ROWS_AT_ONCE = 1000
    count = 0
    real = Path.replace

    def replace(self: Path, target: Any) -> Path:
        nonlocal count
        count += 1
        if count == renames:
            if random.random() < 0.5:
                real(self, target)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, target)

    Path.replace = replace  # type: ignore[method-assign,assignment]
    run_batch(request)


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    return new_fork_server("mlpipelines.preloaded", "mlpipelines.batch.run")


def start(forks: ForkServerContext, request: BatchRequest, renames: int = 0) -> ForkServerProcess:
    process = forks.Process(target=call, args=(request, renames))
    process.start()
    return process


def fill(world: Path) -> None:
    for number in range(3):
        rows = changed(payments(800, seed=number, start=800 * number), {5: {"age": None}, 700: {"merchant": "boom"}})
        write(world / "in" / f"{number}.parquet", rows, row_group=400)


RANKED: dict[str, Any] = {"rank_by": "score", "top": 7, "once_per": "account", "log_share": 0.5}


def told(output: Path, predictions: Path) -> dict[str, Any]:
    """Everything that a reader sees, without the moments at which it was written."""
    tables: dict[str, Any] = {}
    for file in sorted(path for path in output.rglob("*.parquet") if not {"_state", "_cases"} & set(path.parts)):
        table = pq.read_table(file, partitioning=None)
        tables[str(file.relative_to(output))] = table.drop_columns([n for n in ("prediction_time",) if n in table.column_names])
    logged = [pq.read_table(file, partitioning=None) for file in predictions.rglob("*.parquet")]
    log = pa.concat_tables(logged).drop_columns(["time"]).sort_by("prediction_id") if logged else None
    records = json.loads((output / "_batch.json").read_text())["files"]
    counted = {name: (each["sha256"], each["rows"], each["scored"], each["rejected"], each["logged"]) for name, each in records.items()}
    return {"tables": tables, "log": log, "records": counted}


def left_in(world: Path) -> list[str]:
    """What a reader of the folders finds beside rows: the manifest, and whatever a killed call left half written."""
    places = [*(world / "out").rglob("*"), *(world / "workspace" / "predictions").rglob("*")]
    return [path.name for path in places if path.is_file() and path.suffix != ".parquet" and "_state" not in path.parts]


def test_killed_at_renames_and_typed_again_the_output_is_the_same(world: Path, request_for: Make, forks: ForkServerContext) -> None:
    fill(world)
    whole = request_for(output=world / "whole", **RANKED)
    process = start(forks, whole)
    process.join()
    assert process.exitcode == 0
    expected = told(world / "whole", world / "workspace" / "predictions")
    (world / "workspace" / "predictions").rename(world / "predictions-of-the-whole-run")

    dice, deaths = random.Random(11), 0
    for _ in range(60):
        process = start(forks, request_for(**RANKED), renames=dice.randint(3, 20))
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        deaths += 1
        registry.promote(Workspace(world / "workspace"), "payments", 1)  # what is begun is finished with the version it was begun with
    assert process.exitcode == 0
    assert deaths > 1
    found = told(world / "out", world / "workspace" / "predictions")
    assert found == expected
    assert found["log"]["prediction_id"].to_pylist() == sorted(set(found["log"]["prediction_id"].to_pylist()))
    records = json.loads((world / "out" / "_batch.json").read_text())["files"].values()
    assert len({record["run"] for record in records}) == 1
    assert {record["version"] for record in records} == {2}
    assert left_in(world) == ["_batch.json"]


def test_killed_at_random_moments_and_typed_again_the_output_is_the_same(world: Path, request_for: Make, forks: ForkServerContext) -> None:
    fill(world)
    began = time.monotonic()
    process = start(forks, request_for(output=world / "whole", **RANKED))
    process.join()
    takes = time.monotonic() - began
    expected = told(world / "whole", world / "workspace" / "predictions")
    (world / "workspace" / "predictions").rename(world / "predictions-of-the-whole-run")
    dice, deaths = random.Random(5), 0
    for attempt in range(9):
        process = start(forks, request_for(**RANKED))
        process.join(timeout=dice.uniform(0.2, 1.0) * takes if attempt < 4 else None)
        if process.exitcode == 0:
            break
        process.kill()
        process.join()
        deaths += 1
    assert process.exitcode == 0
    assert deaths
    assert told(world / "out", world / "workspace" / "predictions") == expected
    assert left_in(world) == ["_batch.json"]


def test_a_call_with_other_options_begins_anew_after_a_kill(world: Path, request_for: Make, forks: ForkServerContext) -> None:
    fill(world)
    process = start(forks, request_for(), renames=8)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    outcome = run_batch(request_for(keep=("account",)))
    assert not outcome.resumed
    assert (outcome.files, outcome.rows) == (3, 2400)
    assert "account" in pq.read_schema(world / "out" / "2.parquet").names


def test_what_was_scored_and_not_ranked_before_a_kill_is_ranked_by_the_next_call_even_with_another_cut(
    world: Path, score: Callable[..., BatchOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(world / "in" / "a.parquet", payments(100))

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "deliver", dies)
        with pytest.raises(KeyboardInterrupt):
            score(rank_by="score", top=9, per="run", keep=("at",))
    assert score(rank_by="score", top=4, per="run", keep=("at",)).cases == 4
    assert score(rank_by="score", top=4, per="run", keep=("at",)).cases is None


def test_two_at_once_is_a_conflict(world: Path, score: Callable[..., BatchOutcome]) -> None:
    write(world / "in" / "a.parquet", payments(10))
    with alone_in(Output(world / "out")), pytest.raises(Conflict, match=f"process {os.getpid()}"):
        score()
    assert score().files == 1


def test_a_file_that_is_written_to_while_it_is_scored_is_not_in_the_output(
    world: Path, score: Callable[..., BatchOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(world / "in" / "a.parquet", payments(10))
    real = run_module.score_files

    def written_to(*arguments: Any) -> None:
        write(file, payments(11))
        real(*arguments)

    monkeypatch.setattr(run_module, "score_files", written_to)
    with pytest.raises(Conflict, match="was written to while"):
        score()
    assert not (world / "out" / "a.parquet").exists()
    monkeypatch.setattr(run_module, "score_files", real)
    assert score().rows == 11

"""Batch scoring with a real registry, a real model store, a real graph and the real Beam runner."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batch_world import add_version, changed, payments, write
from mlpipelines.batch import run as run_module
from mlpipelines.batch.request import BatchOutcome, require_accepted
from mlpipelines.errors import ConfigError, Conflict, DataRejected
from mlpipelines.evaluation.served_model import answer_rows, load_model
from mlpipelines.project_file import load_project
from mlpipelines.publishing import registry
from mlpipelines.workspace import Workspace
from mlserving.predictions.records import PREDICTION_FIELDS

pytestmark = pytest.mark.slow
Score = Callable[..., BatchOutcome]


def read(path: Path) -> pa.Table:
    with path.open("rb") as file:
        return pq.read_table(file)


def log_of(world: Path) -> pa.Table:
    return pa.concat_tables(read(file) for file in sorted((world / "workspace" / "predictions").rglob("*.parquet")))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of an output folder but its state, by name."""
    files = [path for path in folder.rglob("*") if path.is_file() and "_state" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_file_gets_its_own_output_with_the_answers_that_the_model_gives(world: Path, score: Score) -> None:
    rows = payments(2500)
    write(world / "in" / "a.parquet", rows)
    write(world / "in" / "deep" / "é ünïcode.parquet", payments(40, start=2500))
    outcome = score(keep=("account",))
    assert (outcome.files, outcome.rows, outcome.scored, outcome.rejected, outcome.version) == (2, 2540, 2540, 0, 2)

    scored = read(world / "out" / "a.parquet")
    with load_model(world / "workspace" / "models" / "payments" / "2") as model:
        canonical = rows.set_column(3, "amount", rows["amount"].cast(pa.float32())).set_column(4, "age", rows["age"].cast(pa.int64()))
        expected = answer_rows(model, load_project(world / "payments"), canonical)
    assert np.array_equal(scored["output/score"].to_numpy(), expected["score"])
    assert scored["output/label"].to_pylist() == [label.decode() for label in expected["label"]]
    assert np.allclose(scored["output/scores"].to_pylist(), expected["scores"], atol=0)
    assert scored["output/tags_seen"].to_pylist() == [place % 3 for place in range(2500)], "lists reach the graph"
    assert scored["payment_id"].equals(rows["payment_id"])
    assert scored["account"].equals(rows["account"])
    assert scored["input_row"].to_pylist() == list(range(2500))
    assert set(scored["model_version"].to_pylist()) == {2}
    ids = scored["prediction_id"].to_pylist() + read(world / "out" / "deep" / "é ünïcode.parquet")["prediction_id"].to_pylist()
    assert len(set(ids)) == 2540


def test_the_manifest_says_what_was_scored_by_what(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(10))
    outcome = score()
    manifest = json.loads((world / "out" / "_batch.json").read_text())
    record = manifest["files"]["a.parquet"]
    assert (record["rows"], record["scored"], record["rejected"], record["version"], record["run"]) == (10, 10, 0, 2, outcome.run)
    assert len(record["sha256"]) == len(record["version_digest"]) == 64
    assert record["started"] <= record["finished"]
    assert manifest["failed"] == {}
    assert not (world / "out" / "_state" / "run.json").exists()


def test_a_second_call_scores_nothing_and_changes_nothing(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(100))
    score()
    before, logged = contents(world / "out"), log_of(world)
    again = score()
    assert (again.files, again.unchanged, again.rows) == (0, 1, 0)
    assert contents(world / "out") == before
    assert log_of(world).equals(logged)


def test_only_new_and_changed_files_are_scored(world: Path, score: Score) -> None:
    for name in ("a", "b"):
        write(world / "in" / f"{name}.parquet", payments(50))
    score()
    untouched = (world / "out" / "a.parquet").stat().st_mtime_ns
    write(world / "in" / "b.parquet", payments(60, seed=5))
    write(world / "in" / "c.parquet", payments(70))
    again = score()
    assert (again.files, again.unchanged, again.rows) == (2, 1, 130)
    assert (world / "out" / "a.parquet").stat().st_mtime_ns == untouched
    assert read(world / "out" / "b.parquet").num_rows == 60


def test_a_renamed_file_gets_an_output_under_its_new_name(world: Path, score: Score) -> None:
    file = write(world / "in" / "a.parquet", payments(20))
    score()
    file.rename(world / "in" / "z.parquet")
    assert score().files == 1
    assert read(world / "out" / "z.parquet").num_rows == 20


def test_another_champion_scores_everything_again_and_an_id_tells_the_versions_apart(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(30))
    score()
    first = read(world / "out" / "a.parquet")
    registry.promote(Workspace(world / "workspace"), "payments", 1)
    assert score().version == 1
    second = read(world / "out" / "a.parquet")
    assert set(second["model_version"].to_pylist()) == {1}
    assert not set(first["prediction_id"].to_pylist()) & set(second["prediction_id"].to_pylist())


def test_a_version_can_be_named(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(5))
    assert score(version=1).version == 1
    with pytest.raises(ConfigError, match="no version 9"):
        score(version=9)


def test_a_champion_that_moves_while_files_are_scored_changes_nothing(world: Path, score: Score, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        write(world / "in" / f"{name}.parquet", payments(10))
    monkeypatch.setattr(run_module, "_ROWS_AT_ONCE", 1)  # each file in a pipeline of its own
    real = run_module.score_files

    def moving(*arguments: Any) -> None:
        registry.promote(Workspace(world / "workspace"), "payments", 1)
        real(*arguments)

    monkeypatch.setattr(run_module, "score_files", moving)
    assert score().version == 2
    assert {version for name in "abc" for version in read(world / "out" / f"{name}.parquet")["model_version"].to_pylist()} == {2}


def test_model_files_that_were_changed_are_refused(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(5))
    with (world / "workspace" / "models" / "payments" / "2" / "saved_model.pb").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(Conflict, match="not those that were registered"):
        score()
    assert not (world / "out" / "_batch.json").exists()


def test_a_version_that_left_the_store_comes_from_the_registry(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(5))
    add_version(world / "workspace", world / "model-3", offset=0.5)
    shutil.rmtree(world / "workspace" / "models" / "payments" / "3")
    assert score().version == 3


def test_rows_that_cannot_be_scored_are_set_aside_with_the_reason_and_the_others_are_scored(world: Path, score: Score) -> None:
    rows = changed(
        payments(5000),
        {
            1: {"merchant": "boom"},
            2: {"amount": 666.0},
            3: {"age": None},
            4: {"payment_id": None},
            4999: {"merchant": "x"},
        },
    )
    write(world / "in" / "a.parquet", rows)
    outcome = score()
    assert (outcome.scored, outcome.rejected) == (4995, 5)
    rejected = read(world / "out" / "_rejected" / "a.parquet")
    reasons = dict(zip(rejected["input_row"].to_pylist(), rejected["reason"].to_pylist(), strict=True))
    assert "the model refuses the row" in reasons[1]
    assert "NaN" in reasons[2]
    assert reasons[3] == "column 'age' is missing"
    assert reasons[4] == "column 'payment_id' is missing"
    assert rejected["merchant"].to_pylist()[0] == "boom"
    places = read(world / "out" / "a.parquet")["input_row"].to_pylist()
    assert sorted([*places, *reasons]) == list(range(5000)), "nothing lost, nothing double"
    with pytest.raises(DataRejected, match=r"5 of 5,000 rows.*_rejected"):
        require_accepted(outcome, 0.0)
    require_accepted(outcome, 0.01)


def test_values_of_the_wrong_type_are_judged_one_by_one(world: Path, score: Score) -> None:
    rows = payments(300)
    amounts = pa.array(["12.5" if place != 7 else "much" for place in range(300)])
    write(world / "in" / "a.parquet", rows.set_column(3, "amount", amounts))
    outcome = score()
    assert (outcome.scored, outcome.rejected) == (299, 1)
    assert outcome.reasons == {"column 'amount': float expected": 1}
    assert "'much' cannot be read as float" in read(world / "out" / "_rejected" / "a.parquet")["reason"][0].as_py()


def test_rejected_rows_of_an_earlier_content_go_when_the_file_is_mended(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", changed(payments(10), {0: {"age": None}}))
    assert score().rejected == 1
    write(world / "in" / "a.parquet", payments(10))
    assert score().rejected == 0
    assert not (world / "out" / "_rejected" / "a.parquet").exists()


BROKEN: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "no parquet": lambda path: path.write_bytes(b"merchant,amount\nshop,1\n" * 50),
    "cut off": lambda path: path.write_bytes(write(path, payments(100)).read_bytes()[:-20]),
    "damaged in the middle": lambda path: _damage(write(path, payments(3000))),
    "missing column": lambda path: write(path, payments(10).drop_columns(["merchant"])),
    "struct": lambda path: write(path, payments(10).set_column(3, "amount", pa.array([{"value": 1.0}] * 10))),
    "link to nowhere": lambda path: path.symlink_to(path.parent / "nowhere.parquet"),
}


def _damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[500:1500] = bytes(1000)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_cannot_be_scored_is_reported_and_the_others_are_scored(kind: str, world: Path, score: Score) -> None:
    write(world / "in" / "good.parquet", payments(10))
    BROKEN[kind](world / "in" / "bad.parquet")
    outcome = score()
    assert (outcome.files, outcome.scored, list(outcome.failed)) == (1, 10, ["bad.parquet"])
    assert "bad.parquet" in outcome.failed["bad.parquet"]
    assert not (world / "out" / "bad.parquet").exists()
    if kind == "missing column":
        assert "'merchant'" in outcome.failed["bad.parquet"]
    if kind == "struct":
        assert "column 'amount' is struct" in outcome.failed["bad.parquet"]
    with pytest.raises(DataRejected, match=r"bad\.parquet"):
        require_accepted(outcome, 1.0)
    (world / "in" / "bad.parquet").unlink()
    write(world / "in" / "bad.parquet", payments(10, start=10))
    mended = score()
    assert (mended.files, mended.unchanged, mended.failed) == (1, 1, {})


def test_a_file_without_rows_gets_an_output_without_rows(world: Path, score: Score) -> None:
    write(world / "in" / "zero.parquet", payments(0))
    assert score(keep=("account",)).files == 1
    scored = read(world / "out" / "zero.parquet")
    assert scored.num_rows == 0
    assert {"prediction_id", "account", "output/score", "output/scores"} <= set(scored.column_names)
    assert score(keep=("account",)).unchanged == 1


def test_links_are_followed_and_names_that_are_no_unicode_are_kept(world: Path, score: Score) -> None:
    elsewhere = write(world / "elsewhere" / "real.parquet", payments(10))
    (world / "in").mkdir()
    (world / "in" / "link.parquet").symlink_to(elsewhere)
    (world / "in" / "loop").symlink_to(world / "in")
    strange = Path(os.fsdecode(os.fsencode(world / "in") + b"/caf\xe9.parquet"))
    write(strange, payments(10, start=10))
    outcome = score(rank_by="score", per="run")
    assert (outcome.files, outcome.cases) == (2, 5)
    assert read(Path(os.fsdecode(os.fsencode(world / "out") + b"/caf\xe9.parquet"))).num_rows == 10
    assert elsewhere.exists()
    assert score().unchanged == 2


def test_the_sources_own_names_are_taken_where_project_yaml_renames(world: Path, score: Score) -> None:
    rows = payments(20)
    write(world / "in" / "a.parquet", rows.rename_columns(["gross" if name == "amount" else name for name in rows.column_names]))
    assert score().scored == 20


def test_rows_without_a_key_are_known_by_their_file_and_place(world: Path, score: Score) -> None:
    for name in ("a", "b"):
        write(world / "in" / f"{name}.parquet", payments(20).drop_columns(["payment_id"]))
    score()
    ids = [read(world / "out" / f"{name}.parquet")["prediction_id"].to_pylist() for name in "ab"]
    assert len({*ids[0], *ids[1]}) == 40
    shutil.rmtree(world / "out")
    score()
    assert read(world / "out" / "a.parquet")["prediction_id"].to_pylist() == ids[0], "the same row, the same id"


def test_the_prediction_log_has_the_share_the_features_and_the_form_of_the_gateways(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(4000))
    outcome = score(log_share=0.25, log_features=("amount",))
    log, scored = log_of(world), read(world / "out" / "a.parquet")
    assert outcome.logged == log.num_rows
    assert 800 < log.num_rows < 1200
    assert log.schema.names[: len(PREDICTION_FIELDS)] == PREDICTION_FIELDS.names
    assert [name for name in log.column_names if name.startswith("feature/")] == ["feature/amount"], "nothing that was not named"
    assert set(log["track"].to_pylist()) == {"stable"}
    assert set(log["protocol"].to_pylist()) == {"batch"}
    mine = scored.filter(pc.is_in(scored["prediction_id"], value_set=log["prediction_id"].combine_chunks()))
    assert mine["output/score"].equals(log["output/score"])
    assert log["label"].equals(mine["output/label"])
    assert log["time"].equals(mine["prediction_time"])


def test_what_a_row_lacks_is_logged_as_the_model_was_asked_for_it(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", changed(payments(3), {1: {"tags": None}}))
    score(log_share=1.0, log_features=("amount", "tags"))
    tags = log_of(world).sort_by("feature/amount")["feature/tags"].to_pylist()
    assert len(tags) == 3
    assert None not in tags, "null means that it was not kept"


def test_nothing_is_logged_at_a_share_of_zero(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(40))
    assert score(log_share=0.0).logged == 0
    assert not (world / "workspace" / "predictions").exists()


def test_the_projects_own_source_is_scored_for_a_window_without_its_label(
    world: Path, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    write(world / "payments" / "source.parquet", payments(72))  # three days of 24; it has no column `fraud`
    window: dict[str, Any] = {"input": "", "since": "2025-03-02", "until": "2025-03-03", "settings": ["rename=null"]}
    outcome = score(**window)
    assert (outcome.files, outcome.scored) == (1, 24)
    assert score(**window).unchanged == 1
    write(world / "payments" / "source.parquet", payments(72).take(pa.array(range(71, -1, -1))))
    assert score(**window).unchanged == 1, "the same rows in another order"


def test_overlapping_folders_and_options_that_do_not_go_together_are_refused(world: Path, score: Score) -> None:
    file = write(world / "in" / "a.parquet", payments(5))
    with pytest.raises(ConfigError, match="lies inside --input"):
        score(output=world / "in" / "out")
    with pytest.raises(ConfigError, match="lies inside --output"):
        score(input=str(file), output=world)
    (world / "to-in").symlink_to(world / "in")
    with pytest.raises(ConfigError, match="lies inside"):
        score(output=world / "to-in" / "out")
    with pytest.raises(ConfigError, match="no Parquet file"):
        score(input=str(world / "nothing-*.parquet"))
    with pytest.raises(ConfigError, match="not both"):
        score(since="2025-03-01")
    with pytest.raises(ConfigError, match="--keep prediction_id"):
        score(keep=("prediction_id",))
    with pytest.raises(ConfigError, match=r"ranked by confidence, score, tags_seen"):
        score(rank_by="label")
    with pytest.raises(ConfigError, match=r"has a file cases\.parquet"):
        score(input=str(write(world / "cases.parquet", payments(5))), rank_by="score")
    with pytest.raises(ConfigError, match="--log-feature nothing"):
        score(log_features=("nothing",))
    assert list((world / "in").iterdir()) == [file]


def test_a_project_whose_types_are_not_the_models_is_refused_before_any_row(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(5))
    with pytest.raises(ConfigError, match="declares 'age' as 'float'"):
        score(settings=["features.age=float"])

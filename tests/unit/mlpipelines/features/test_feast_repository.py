"""What `millrace features export` leaves behind: a file for each day, nothing of another contract among them, and a store that stays as it was set."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from exported_features import project_of_these_days
from mlpipelines.commands import features
from mlpipelines.errors import ConfigError
from mlpipelines.features.feast_repository import export
from mlpipelines.project_file import load_project

DAY = timedelta(days=1)


def exported(folder: Path, output: Path, since: datetime, until: datetime | None = None) -> list[Path]:
    """Its files of rows, of whatever contract."""
    export(load_project(folder), folder, output, since, until)
    return sorted(output.glob("data/*/*.parquet"))


def test_each_day_is_a_file_and_only_days_that_have_come_are_written(tmp_path: Path) -> None:
    today = project_of_these_days(tmp_path)
    files = exported(tmp_path, tmp_path / "feast", today - 2 * DAY, today + 3 * DAY)
    assert [file.stem for file in files] == [f"{today - n * DAY:%Y-%m-%d}" for n in (2, 1, 0)]
    for file in files:
        rows = pq.read_table(file).to_pylist()
        assert rows
        assert {row["as_of"].strftime("%Y-%m-%d") for row in rows} == {file.stem}
        assert all(row["exported_at"] > row["as_of"] for row in rows)
        assert not {"scam", "row_id"} & rows[0].keys(), "neither what is learned nor what only a training needs"


def test_a_day_is_written_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    today = project_of_these_days(tmp_path)
    before = [pq.read_table(file).drop_columns(["exported_at"]) for file in exported(tmp_path, tmp_path / "feast", today - DAY)]
    again = [pq.read_table(file).drop_columns(["exported_at"]) for file in exported(tmp_path, tmp_path / "feast", today - DAY)]
    assert again == before


def test_rows_of_a_changed_contract_are_never_among_those_of_the_old_one(tmp_path: Path) -> None:
    today = project_of_these_days(tmp_path)
    (old,) = exported(tmp_path, tmp_path / "feast", today)
    contract = yaml.safe_load((tmp_path / "feature_views.yaml").read_text())
    contract["features"]["count_2_all"]["days"] = 3
    (tmp_path / "feature_views.yaml").write_text(yaml.safe_dump(contract))
    (new,) = set(exported(tmp_path, tmp_path / "feast", today)) - {old}
    definitions = (tmp_path / "feast" / "odd_accounts.py").read_text()
    assert new.parent.name in definitions
    assert old.parent.name not in definitions


def test_a_store_that_was_set_is_left_as_it_is(tmp_path: Path) -> None:
    today = project_of_these_days(tmp_path)
    exported(tmp_path, tmp_path / "feast", today)
    store = tmp_path / "feast" / "feature_store.yaml"
    assert yaml.safe_load(store.read_text())["project"] == "odd_accounts"
    store.write_text("project: trust\n")
    exported(tmp_path, tmp_path / "feast", today)
    assert store.read_text() == "project: trust\n"


def test_a_project_without_a_contract_and_a_name_that_is_taken_are_told(tmp_path: Path) -> None:
    today = project_of_these_days(tmp_path)
    with pytest.raises(ConfigError, match=r"project\.yaml needs source\.kind: feature_views"):
        export(
            load_project(tmp_path, settings=["source.kind=parquet", "source.path=rows.parquet"]), tmp_path, tmp_path / "feast", today, None
        )
    taken = load_project(tmp_path, settings=["features.exported_at=float", "rename.exported_at=mean_2_all"])
    with pytest.raises(ConfigError, match=r"features\.exported_at: exported rows have a column of that name"):
        export(taken, tmp_path, tmp_path / "feast", today, None)
    assert not (tmp_path / "feast").exists()


def test_the_command_says_how_much_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    today = project_of_these_days(tmp_path)
    words = ["export", str(tmp_path), "--since", (today - DAY).isoformat(), "--output", str(tmp_path / "feast"), "--json"]
    assert features.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["days"] == 2
    assert told["rows"] == sum(pq.read_metadata(file).num_rows for file in (tmp_path / "feast").glob("data/*/*.parquet"))
    assert features.main(words[:-1]) == 0
    assert f"cd {tmp_path / 'feast'} && feast apply" in capsys.readouterr().out

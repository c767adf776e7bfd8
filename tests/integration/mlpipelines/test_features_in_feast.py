"""What the real Feast hands out of our export, for days past and for now, is what a training and a scoring read themselves."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import feast_environment
from exported_features import USERS, project_of_these_days
from mlpipelines.ingestion.reading import read_source
from mlpipelines.ingestion.sources import Window, open_source
from mlpipelines.project_file import load_project
from typed_commands import millrace

pytestmark = [
    pytest.mark.feast,
    pytest.mark.slow,
    pytest.mark.skipif(not (feast_environment.ready() or feast_environment.UV.exists()), reason="no Feast: type `make tools`"),
]

ASK = """
import json, sys
import pandas
from feast import FeatureStore
from feast.cli.cli import cli

asked = json.load(sys.stdin)
cli(["apply"], standalone_mode=False)
cli(["materialize-incremental", asked["now"]], standalone_mode=False)
store = FeatureStore(".")
view = store.get_feature_view("odd_accounts")
features = [f"odd_accounts:{field.name}" for field in view.features]
pairs = pandas.DataFrame(asked["pairs"], columns=["user_id", "event_timestamp"])
pairs["event_timestamp"] = pandas.to_datetime(pairs["event_timestamp"], utc=True)
past = store.get_historical_features(entity_df=pairs, features=features).to_arrow().to_pylist()
users = sorted(set(pairs["user_id"]))
now = store.get_online_features(features=features, entity_rows=[{"user_id": user} for user in users]).to_dict()
told = {"past": past, "now": now, "owner": view.owner, "description": view.description}
with open("told.json", "w") as file:
    json.dump(told, file, default=lambda moment: moment.isoformat())
"""

Row = dict[str, Any]


def told_by_feast(repository: Path, pairs: list[tuple[str, datetime]]) -> Any:
    """Apply, materialize, and ask for everybody: as of each pair's moment, and now."""
    asked = {"now": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "pairs": [(user, moment.isoformat()) for user, moment in pairs]}
    words = [str(feast_environment.python()), "-c", ASK]
    done = subprocess.run(words, cwd=repository, input=json.dumps(asked), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((repository / "told.json").read_text())


def features_of(rows: list[Row], names: list[str]) -> dict[tuple[str, datetime], Row]:
    """By user and moment; what is missing is None, however it was written."""
    found = {}
    for row in rows:
        values = {name: None if row[name] != row[name] else row[name] for name in names}
        found[row["user_id"], datetime.fromisoformat(row["event_timestamp"])] = values
    return found


def rows_of(folder: Path, *, label: bool, window: Window) -> list[Row]:
    """The project's rows as a training (`label`), or a scoring, reads them."""
    project = load_project(folder)
    project = project if label else project.model_copy(update={"label": None})
    rows = read_source(open_source(project.source, folder), project, window).rows.to_pylist()
    return [{**row, "event_timestamp": datetime.fromtimestamp(row["as_of"], UTC).isoformat()} for row in rows]


def test_feast_hands_out_what_was_trained_on_and_what_is_scored_today(tmp_path: Path) -> None:
    folder, repository = tmp_path / "odd-accounts", tmp_path / "feast"
    today = project_of_these_days(folder)
    day = timedelta(days=1)
    millrace("features", "export", folder, "--since", (today - 9 * day).isoformat(), "--output", repository, workspace=tmp_path)
    names = list(load_project(folder).features)
    trained = features_of(rows_of(folder, label=True, window=Window()), names)
    scored = features_of(rows_of(folder, label=False, window=Window.between(today, None)), names)
    moments = sorted({moment for _, moment in trained})
    assert len(moments) == 5, "the fixture's labels are known up to four days ago"

    asked = [(user, moment) for user in USERS for moment in moments]
    told = told_by_feast(repository, asked)

    past = features_of(told["past"], names)
    nothing = dict.fromkeys(names)
    assert {pair: past[pair] for pair in trained} == trained
    absent = set(asked) - trained.keys()
    assert any((user, moment - day) in trained for user, moment in absent), "some account has a row on one day and none on the next"
    assert all(past.get(pair, nothing) == nothing for pair in absent), (
        "who has no row at a moment is not told yesterday's; Feast may leave it out"
    )
    now = {user: {name: told["now"][name][at] for name in names} for at, user in enumerate(told["now"]["user_id"])}
    assert now == {user: scored.get((user, today), nothing) for user in now}
    assert (told["owner"], told["description"]) == ("trust", 'Accounts that are "odd"')

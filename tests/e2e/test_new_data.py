"""New files of a source start one training, once nobody writes them any more; files that are refused are told of and start nothing again."""

from __future__ import annotations

import importlib.util
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from receivers import Inbox, http_inbox
from triggers import Trigger
from typed_commands import millrace, run
from waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LOOKING = 'millrace_trigger_turn_timestamp_seconds{part="looking"}'


class World:
    """A project that reads a folder of Parquet, and whoever is told of its runs."""

    def __init__(self, root: Path, inbox: Inbox, *, incremental: bool) -> None:
        self.root, self.workspace, self.inbox = root, root / "w", inbox
        millrace("new", "visits", "--team", "web", "--into", root / "projects", workspace=self.workspace)
        self.folder = root / "projects" / "visits"
        text = (self.folder / "project.yaml").read_text().replace("batch_size: 512", "batch_size: 128")
        source = f"source: {{kind: parquet, path: rows, incremental: {str(incremental).lower()}}}\n\n"
        text = text[: text.index("source:")] + source + text[text.index("key: visit_id") :]
        (self.folder / "project.yaml").write_text(text + "\nretraining: {cooldown_hours: 0, signals: [new-data]}\n")
        self.rows = self._generated()
        (self.folder / "rows").mkdir()
        (root / "hook").write_text(inbox.url)
        (root / "notify.yaml").write_text(f"webhook: {{url_file: {root / 'hook'}}}\n")

    def _generated(self) -> pa.Table:
        spec = importlib.util.spec_from_file_location("visits_generator", self.folder / "generator.py")
        assert spec is not None
        assert spec.loader is not None
        generator = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(generator)
        return pa.Table.from_batches(list(generator.rows(rows=3000))).sort_by("visited_at")

    def file(self, name: str) -> Path:
        return self.folder / "rows" / name

    def told(self, event: str) -> list[dict[str, Any]]:
        """The notices of a kind that have arrived."""
        return [each for each in self.inbox.posted if each["event"] == event]


@pytest.fixture(params=[False, True], ids=["read whole", "incremental"])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    with http_inbox() as inbox:
        yield World(tmp_path, inbox, incremental=request.param)


def looks(trigger: Trigger, count: int, meanwhile: Any = lambda: time.sleep(0.02)) -> None:
    """Let the trigger look so many times at every model."""
    for _ in range(count):
        before = trigger.metric(LOOKING)
        while trigger.metric(LOOKING) == before:
            meanwhile()


def test_files_that_settle_start_one_training_and_refused_ones_are_told_of_once(world: World) -> None:
    pq.write_table(world.rows.slice(0, 2000), world.file("first.parquet"))
    assert run(world.folder, "--accept-schema", workspace=world.workspace)["status"] == "blessed"
    with Trigger(world.workspace, world.root / "projects", "--every", "2", "--notify", str(world.root / "notify.yaml")) as trigger:
        written = io.BytesIO()
        pq.write_table(world.rows.slice(2000), written)
        content = memoryview(written.getvalue())
        with world.file("second.parquet").open("wb") as file:

            def grow() -> None:
                nonlocal content
                file.write(content[:10])  # far less than there is
                file.flush()
                content = content[10:]
                time.sleep(0.02)

            looks(trigger, 4, grow)
            assert content, "it is not whole yet"
            assert 'millrace_trigger_decisions_total{model="visits"' not in trigger.ask("GET", "/metrics")[1]
            file.write(content)
        eventually("the run has ended", lambda: [each["state"] for each in trigger.why("visits")["runs"]] == ["ended"], 400)
        (told,) = trigger.why("visits")["runs"]
        assert told["outcome"] in ("blessed", "rejected"), "the model was judged"
        newest = json.loads(millrace("runs", "visits", "--json", workspace=world.workspace).stdout)[0]
        assert newest["reason"] == "new-data: the source's files changed since the last training"
        sealed = pq.read_table(world.workspace / "projects" / "visits" / "sealed" / "test.parquet").num_rows
        assert sum(newest["facts"]["rows"].values()) == 3000 - sealed, "the new rows are trained on"
        looks(trigger, 3)
        assert len(trigger.why("visits")["runs"]) == 1, "what was trained on is not new"

        broken = world.rows.slice(0, 500).drop_columns(["page"])
        pq.write_table(broken, world.file("third.parquet"))
        eventually(
            "the data is rejected and somebody is told",
            lambda: [each["outcome"] for each in trigger.why("visits")["runs"]][:1] == ["rejected"] and world.told("data rejected"),
            400,
        )
        looks(trigger, 4)
        assert len(trigger.why("visits")["runs"]) == 2, "the same files start nothing again"
        assert [each["reason"] for each in trigger.why("visits")["decisions"][:2]] == ["duplicate", "started"]
        (notice,) = world.told("data rejected")
        assert "'page'" in notice["text"]
        assert "third.parquet" in notice["text"]
        assert [each["run"] for each in world.told("training started")] == [
            each["name"] for each in reversed(trigger.why("visits")["runs"])
        ]

        pq.write_table(
            world.rows.slice(0, 10).set_column(0, "visit_id", pa.array([f"w{n}" for n in range(10)])), world.file("third.parquet")
        )
        eventually("a third run is there", lambda: len(trigger.why("visits")["runs"]) == 3, 60)  # mended files are new ones

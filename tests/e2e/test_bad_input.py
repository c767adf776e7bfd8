"""Rows and disks as they should not be, through the command that a person types, in a workspace with a published model.

Each is refused with its documented exit code and in words that name the file, the column and what to type next; what is
published, sealed, registered and accepted is the same afterwards, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import typed_commands

KEPT = ("models", "projects/visits/sealed", "projects/visits/accepted")
"""What no refused run may touch, in a workspace."""
ANOTHER_MODEL = ("--set", "training.seed=18", "--set", "evaluation.rule=not_worse", "--set", "evaluation.margin=0.5")
Change = Callable[[pa.Table], pa.Table]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A project that reads Parquet, and the workspace where its first model is published."""

    project: Path
    workspace: Path
    rows: pa.Table

    def millrace(self, *words: str | Path, code: int) -> subprocess.CompletedProcess[str]:
        return typed_commands.millrace(*words, workspace=self.workspace, code=code)

    def run(self, *words: str | Path, code: int = 0) -> dict[str, Any]:
        return typed_commands.run(self.project, *words, workspace=self.workspace, code=code)

    def versions(self) -> list[dict[str, Any]]:
        return typed_commands.versions("visits", self.workspace)

    @contextmanager
    def nothing_changes(self, *kept: str) -> Iterator[None]:
        before = self.digests(kept or KEPT), self._registered()
        yield
        assert (self.digests(kept or KEPT), self._registered()) == before
        assert self.leftovers() == []

    def leftovers(self) -> list[Path]:
        """What is being written has a name that begins with a dot; a lock's file stays."""
        return [path for path in self.workspace.rglob(".*") if path.name != ".lock"]

    def digests(self, kept: Sequence[str]) -> dict[str, str]:
        files = [file for name in kept for file in (self.workspace / name).rglob("*") if file.is_file()]
        assert files
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def _registered(self) -> dict[str, list[Any]]:
        """Every row of MLflow's tables of models; asking `millrace models` around each run would take longer than the runs."""
        with closing(sqlite3.connect(self.workspace / "mlflow.db")) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {
                name: database.execute(f"SELECT * FROM {name}").fetchall() for name in tables if name.startswith(("registered", "model_v"))
            }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """What `millrace new` writes, reading its generator's rows from a file, after a first blessed run."""
    root = tmp_path_factory.mktemp("site")
    subprocess.run([typed_commands.MILLRACE, "new", "visits", "--team", "web", "--into", root], check=True, capture_output=True)
    project = root / "visits"
    made = Site(
        project=project,
        workspace=root / "w",
        rows=pa.Table.from_batches(list(runpy.run_path(str(project / "generator.py"))["rows"](rows=6000))),
    )
    pq.write_table(made.rows, project / "good.parquet")
    settings = yaml.safe_load((project / "project.yaml").read_text())
    settings["source"] = {"kind": "parquet", "path": "good.parquet"}
    settings["training"] = {"epochs": 2, "batch_size": 64}
    del settings["evaluation"]["slices"]  # too few rows to judge each country
    (project / "project.yaml").write_text(yaml.safe_dump(settings))
    assert made.run("--accept-schema")["status"] == "blessed"
    return made


def column(name: str, values: Callable[[list[Any]], pa.Array]) -> Change:
    """One column with other values, made from those it has."""
    return lambda rows: rows.set_column(rows.column_names.index(name), name, values(rows[name].to_pylist()))


def every(name: str, value: str | None, kind: pa.DataType | None = None) -> Change:
    return column(name, lambda rows: pa.array([value] * len(rows), kind))


def unchecked_text(values: list[bytes]) -> pa.Array:
    """A text column of any bytes: Arrow takes a buffer's word for UTF-8."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


def with_keys_twice(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows, every("page", "jobs")(rows.slice(0, 3))])


def tenfold(rows: pa.Table) -> pa.Table:
    return column("visit_id", lambda keys: pa.array([f"copy-{at}" for at in range(len(keys))]))(pa.concat_tables([rows] * 10))


BAD: dict[str, tuple[Change, tuple[str, ...]]] = {
    "a column missing": (lambda rows: rows.drop_columns(["seconds"]), ("lacks a column", "'seconds'", "`rename:` in project.yaml")),
    "a column renamed": (
        lambda rows: rows.rename_columns([{"seconds": "Second"}.get(name, name) for name in rows.column_names]),
        ("'seconds', closest: 'Second'", "`rename:` in project.yaml"),
    ),
    "text for numbers": (every("seconds", "a while"), ("column 'seconds' should be float", "'a while' in row 1", "type in project.yaml")),
    "a column without values": (every("seconds", None, pa.float64()), ("seconds: all missing", "was it renamed?")),
    "no label": (every("outcome", None, pa.string()), ("'outcome' is missing in 6,000 of 6,000 rows", "Correct the source")),
    "one class": (every("outcome", "left"), ("'left' in 'outcome'", "one class", "Widen the window")),
    "keys twice": (with_keys_twice, ("3 values of the key 'visit_id'", "'v7-0' (2 times)", "as `key` in project.yaml")),
    "ten times the rows": (tenfold, ("(rows): growth", "more than 8 times", "--set validation.max_growth=1000")),
    "broken UTF-8": (
        column("page", lambda v: unchecked_text([page.encode() + b"\xff" * (at < 600) for at, page in enumerate(v)])),
        ("page: not in the domain", "column 'page': 600 values were not UTF-8", "millrace schema diff"),
    ),
    "times to come": (
        column("visited_at", lambda v: pa.array([v[0].replace(year=2099), *v[1:]])),
        ("visited_at: in the future: the newest row is of 2099-", "Correct the rows at their source"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_by_file_and_column_with_the_next_command(site: Site, tmp_path: Path, name: str) -> None:
    change, words = BAD[name]
    file = tmp_path / "rows.parquet"
    pq.write_table(change(site.rows), file)
    with site.nothing_changes():
        refused = site.run("--set", f"source.path={file}", code=3)
    assert refused["failure"]["kind"] == "DataRejected"
    assert refused["failure"]["report"]
    for word in (str(file), *words, str(site.project)):
        assert word in refused["failure"]["message"]


def test_a_truncated_file_is_refused_by_name(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "half.parquet"
    whole = (site.project / "good.parquet").read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with site.nothing_changes():
        said = site.run("--set", f"source.path={file}", code=3)["failure"]["message"]
    assert said.startswith(f"{file} cannot be read as Parquet")
    assert "truncated" in said
    assert f"--set source.path=FILE. Then: millrace run {site.project}" in said


def test_a_window_without_rows_is_refused_with_its_ends_and_source(site: Site) -> None:
    with site.nothing_changes():
        said = site.run("--since", "2030-01-01", "--until", "2030-02-01", code=3)["failure"]["message"]
    assert "no row between 2030-01-01T00:00:00Z and 2030-02-01T00:00:00Z" in said
    assert "Widen --since and --until" in said
    assert "good.parquet" in said


def test_a_window_that_is_none_is_a_mistake_in_the_command(site: Site) -> None:
    with site.nothing_changes(*KEPT, "projects"):
        mistyped = site.millrace("run", site.project, "--json", "--since", "yesterday", code=2)
        backwards = site.millrace("run", site.project, "--json", "--since", "2025-06-01", "--until", "2025-05-01", code=2)
    assert "--since 'yesterday' is not a time. Type ISO 8601" in mistyped.stderr
    assert "--since 2025-06-01 is not before --until 2025-05-01" in backwards.stderr


def test_nul_in_text_is_taken_out_and_told(site: Site, tmp_path: Path) -> None:
    """Without it the rows are those of the champion, so there is nothing to publish."""
    file = tmp_path / "nul.parquet"
    pq.write_table(column("page", lambda v: pa.array([f"{page}\0" for page in v]))(site.rows), file)
    with site.nothing_changes("models"):
        found = site.run("--set", f"source.path={file}")
    assert found["status"] == "unchanged"
    assert found["facts"]["warnings"] == ["column 'page': 6,000 values held NUL, which was removed"]


def test_of_two_runs_at_once_the_second_is_told_who_is_first(site: Site, tmp_path: Path) -> None:
    project, gate = tmp_path / "visits", tmp_path / "gate"
    shutil.copytree(site.project, project)
    os.mkfifo(gate)
    (project / "waiting.py").write_text("def rows(since=None, until=None, gate=''):\n    open(gate).read()\n    yield from ()\n")
    source = ("kind=python", "entry=waiting:rows", f'options={{"gate": "{gate}"}}', "path=null")
    words = [word for setting in source for word in ("--set", f"source.{setting}")]
    with (
        site.nothing_changes(),
        subprocess.Popen(
            [typed_commands.MILLRACE, "run", project, "--json", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=typed_commands.environment(site.workspace),
        ) as first,
    ):
        with gate.open("w"):  # opens when the first run reads its source, and keeps it there
            second = site.millrace("run", site.project, "--json", code=5)
            first.terminate()
        output, _ = first.communicate(timeout=60)
    assert first.returncode == 130
    assert f"the run {json.loads(output)['run']} is open on this workspace" in second.stderr
    assert "Wait for it (`millrace runs` shows it)" in second.stderr


@pytest.fixture
def small_store(site: Site, tmp_path: Path) -> Iterator[Site]:
    """A copy of the workspace whose model store is a file system of its own, with room for nothing more."""
    workspace = tmp_path / "w"
    store = workspace / "models"
    store.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "models", store], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small file system takes Linux and root: {mounted.stderr.strip()}")
    try:
        shutil.copytree(site.workspace, workspace, dirs_exist_ok=True)
        room = os.statvfs(store)
        resize(store, (room.f_blocks - room.f_bfree) * room.f_frsize // 1024 + 32)
        yield Site(project=site.project, workspace=workspace, rows=site.rows)
    finally:
        subprocess.run(["umount", store], check=True)


def resize(store: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", store], check=True)


def test_a_full_disk_while_publishing_leaves_the_champion_and_the_next_run_publishes(small_store: Site) -> None:
    champion, published = small_store.versions()[0], small_store.digests(KEPT[:1])
    failed = small_store.run(*ANOTHER_MODEL, code=4)
    store = small_store.workspace / "models" / "visits"
    assert failed["failure"]["kind"] == "Unavailable"
    for word in (f"No space left on device ({store / '2'})", "Nothing was published", "Free some space and type the same command again"):
        assert word in failed["failure"]["message"]
    assert small_store.digests(KEPT[:1]) == published
    assert small_store.leftovers() == []
    assert champion in small_store.versions(), "blessed and registered, the new version waits as challenger"

    resize(small_store.workspace / "models", 16 * 1024)
    assert small_store.run(*ANOTHER_MODEL)["status"] == "blessed"
    assert {path.name for path in store.iterdir()} == {".lock", "1", "2"}
    assert ["champion" in version["aliases"] for version in sorted(small_store.versions(), key=lambda v: v["version"])] == [False, True]


def test_after_all_that_good_rows_run_through(site: Site) -> None:
    with site.nothing_changes("models"):
        assert site.run()["status"] == "unchanged"
    assert [(version["version"], version["aliases"]) for version in site.versions()] == [(1, "champion")]

"""The sealed test set: drawn once, on a project's first run, and never trained on afterwards.

It lies in the workspace, not in a run, because every later model is judged by the same rows. Its folder appears in one
rename; of two first runs at once, the second finds the first one's set and uses it. Its hash is checked whenever it is read.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.artifacts import KEY, TestSet
from mlpipelines.errors import Conflict, DataRejected
from mlpipelines.ingestion.parquet_files import read_rows, sha256_of, write_rows
from mlpipelines.workspace import ProjectState, create_folder, read_json, write_json

_ROWS = "test.parquet"
_KEYS = "keys.parquet"
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """The set and what is known about it."""

    folder: Path
    manifest: Mapping[str, Any]
    keys: pa.Array
    first_run: bool = False

    @property
    def columns(self) -> Mapping[str, str]:
        """Name → type, as sealed."""
        columns: Mapping[str, str] = self.manifest["columns"]
        return columns

    @property
    def classes(self) -> list[str] | None:
        """The classes that are not folded; None where nothing is."""
        classes: list[str] | None = self.manifest["classes"]
        return classes

    def rows(self, columns: list[str] | None = None) -> pa.Table:
        """The rows, or some of their columns."""
        return read_rows(self.folder / _ROWS, columns)

    def copy_to(self, root: Path, wanted: Mapping[str, str], current: pa.Table) -> None:
        """Fill a `TestSet` with the sealed rows.

        A copy, not a link: whatever happens to an artifact, the sealed file stays as it is.

        Args:
            root: the artifact's folder.
            wanted: the project's columns and types of today.
            current: rows of this run. Where the project has gained a column, the sealed rows' values are found there, by key.

        Raises:
            DataRejected: a column was added, and the source no longer has every sealed row.
        """
        root.mkdir(parents=True, exist_ok=True)
        test = TestSet(root)
        if dict(wanted) == dict(self.columns):
            shutil.copyfile(self.folder / _ROWS, test.rows)
        elif all(self.columns.get(name) == kind for name, kind in wanted.items()):
            write_rows(test.rows, self.rows([*wanted, KEY]))
        else:
            write_rows(test.rows, self._found_again(wanted, current))
        write_json(test.manifest, dict(self.manifest))

    def _found_again(self, wanted: Mapping[str, str], current: pa.Table) -> pa.Table:
        found = current.filter(pc.is_in(current[KEY], value_set=self.keys))
        if found.num_rows < len(self.keys):
            new = [name for name, kind in wanted.items() if self.columns.get(name) != kind]
            raise DataRejected(
                f"The sealed test set ({self.folder}) does not have {', '.join(map(repr, new))} as project.yaml now wants, and only "
                f"{found.num_rows:,} of its {len(self.keys):,} rows are in this window of the source to take it from. Read a window that holds "
                "all of them, or remove that folder to seal a new set (models judged before cannot be compared with it then).",
                report=[{"column": name, "rule": "in the sealed test set", "origin": str(self.folder)} for name in new],
            )
        place = pc.index_in(self.keys, value_set=found[KEY].combine_chunks())
        return found.take(place)


def load_sealed(state: ProjectState) -> Sealed | None:
    """The project's sealed set, if it has one.

    Raises:
        Conflict: its rows are not the ones that were sealed.
    """
    if not state.sealed.is_dir():
        return None
    manifest = read_json(state.sealed / _MANIFEST)
    if sha256_of(state.sealed / _ROWS) != manifest["content_hash"]:
        raise Conflict(
            f"{state.sealed / _ROWS} is not what was sealed at {manifest['sealed_at']}: its hash differs. Restore it from a backup, or "
            "remove its folder to seal a new set, then `millrace run` again."
        )
    keys = read_rows(state.sealed / _KEYS)[KEY].combine_chunks()
    return Sealed(folder=state.sealed, manifest=manifest, keys=keys)


def seal(state: ProjectState, rows: pa.Table, facts: Mapping[str, Any]) -> Sealed:
    """Seal `rows`, or return the set that another run has sealed meanwhile.

    Args:
        state: where.
        rows: in the order in which they are to lie in the file, with `KEY`.
        facts: what else the manifest says: `columns`, `classes`, `window`, `split`, `sealed_at`, `run`.
    """

    def write(folder: Path) -> None:
        write_rows(folder / _ROWS, rows)
        write_rows(folder / _KEYS, rows.select([KEY]))
        write_json(folder / _MANIFEST, {**facts, "rows": rows.num_rows, "content_hash": sha256_of(folder / _ROWS)})

    mine = True
    try:
        create_folder(state.sealed, write)
    except Conflict:
        mine = False
    sealed = load_sealed(state)
    assert sealed is not None
    return Sealed(folder=sealed.folder, manifest=sealed.manifest, keys=sealed.keys, first_run=mine)

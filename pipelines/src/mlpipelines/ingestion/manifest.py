"""The data manifest: what `ingest` read, what became of it, and the proof that the splits share nothing.

Everything downstream that must say where a model's data came from (validation, MLflow tags, lineage) reads this one file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mlpipelines.errors import ConfigError
from mlpipelines.workspace import read_json, write_json

_REPAIRS = {
    "broken_utf8": "values were not UTF-8; their broken bytes became U+FFFD",
    "nul": "values held NUL, which was removed",
    "null_items": "list items were null and were left out",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanFacts:
    """One span's rows and the SHA-256 of its Parquet file."""

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataManifest:
    """`manifest.json` of the data artifact."""

    rows: Mapping[str, int]
    """By split: `train`, `validation`, `test`. Labelled predictions count."""
    read: int
    """Rows that came from the source in this run, before anything was dropped. Kept rows of an incremental source do not count."""
    window: Mapping[str, str | None]
    """`since`, `until` as asked for; `oldest`, `newest` as found. ISO 8601, UTC; null where there is no time."""
    columns: Mapping[str, str]
    """Name → type, the key of the row not among them."""
    content_hash: str
    """SHA-256 over the spans' hashes: equal rows, equal hash."""
    spans: Mapping[str, Mapping[str, SpanFacts]]
    """Split → span → facts."""
    source: Mapping[str, Any]
    """Kind and place, without passwords."""
    split: Mapping[str, Any]
    """The settings, `validation_share`, `strata`, and under `disjoint` what was checked."""
    sealed: Mapping[str, Any]
    """The sealed test set: `content_hash`, `rows`, `sealed_at`, `run`, `first_run`."""
    near_duplicates: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    """Label value → training rows; empty for a number or without a label."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows left out: `label_missing`, `image_broken`, `time_missing`, `outside_window`, `sealed` (kept for the test set), `sealed_group` (of
    a sealed group, or said to be for the test after the set was sealed), `near_sealed`."""
    repaired: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Column → `broken_utf8`, `nul` (values), `null_items` (list items)."""
    incremental: Mapping[str, Any] = field(default_factory=dict)
    """For an incremental source: `watermark_before`, `watermark`, `kept`, `new`, `replaced`."""
    predictions: Mapping[str, Any] = field(default_factory=dict)
    """Labelled predictions (`source.learn_from`): how many were `labelled`; of those that are rows now, `train`, `validation`, `from` (by who
    told the label: `reviewers`, `labels`) and `labelled_until`; `left_out` by reason. Empty where none was looked for or found."""
    warnings: tuple[str, ...] = ()
    """For people: what is odd and did not stop the run."""


def place_of(source: Mapping[str, Any]) -> str:
    """A manifest's `source` as an error names it: the path, the table or the entry."""
    if table := source.get("table"):
        return f"the table {table}"
    return str(source.get("path") or source.get("entry") or "source.query")


def mended(repaired: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A manifest's `repaired`, for people: one text for each column."""
    return [
        f"column {name!r}: " + ", ".join(f"{count:,} {_REPAIRS[what]}" for what, count in counts.items() if count)
        for name, counts in repaired.items()
    ]


def learned_text(predictions: Mapping[str, Any]) -> str:
    """A manifest's `predictions`, for people; empty where none is learned from."""
    told = predictions.get("from") or {}
    whose = {"reviewers": "that reviewers labelled", "labels": "labelled otherwise"}
    count = sum(told.values())
    return f"{count:,} predictions among them, " + ", ".join(f"{n:,} {whose[teller]}" for teller, n in told.items()) if count else ""


def content_hash(spans: Mapping[str, Mapping[str, SpanFacts]]) -> str:
    """SHA-256 over split, span and hash of each span, in order."""
    lines = [f"{split}/{span} {facts.sha256}\n" for split, of_split in sorted(spans.items()) for span, facts in sorted(of_split.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(path: Path, manifest: DataManifest) -> None:
    """Write it whole."""
    write_json(path, asdict(manifest))


def read_manifest(path: Path) -> DataManifest:
    """What `write_manifest` wrote; fields of a later release are left out.

    Raises:
        ConfigError: the file is missing or is no manifest.
    """
    try:
        values = read_json(path)
        spans = {split: {span: SpanFacts(**facts) for span, facts in of_split.items()} for split, of_split in values["spans"].items()}
        known = {f.name: values[f.name] for f in fields(DataManifest) if f.name in values}
        return DataManifest(**{**known, "spans": spans, "warnings": tuple(values.get("warnings", ()))})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a data manifest: {type(error).__name__}: {error}. Run `millrace run` from ingest again."
        ) from error

"""What a verdict's reader wants to know beside the numbers: which rows, which data, which training. Pure, except for reading JSON.

Manifests of other steps are read tolerantly: a fact that is not there is left out, and no verdict fails for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlpipelines.evaluation.contestants import Asked
from mlpipelines.ingestion.manifest import learned_text
from mlpipelines.workspace import read_json

_DEVICES = 4


def read_if_there(file: Path) -> dict[str, Any]:
    """A JSON object from `file`; an empty one where there is no such file."""
    return dict(read_json(file)) if file.is_file() else {}


def gather_facts(
    *, run_id: str, reason: str = "", seal: Mapping[str, Any], data: Mapping[str, Any], training: Mapping[str, Any], asked: Asked, rows: int
) -> dict[str, str]:
    """The facts of a verdict, in the order of its page."""
    facts = {
        "run": run_id,
        "started because": reason,
        "test rows": _test_rows(seal, rows),
        "test window": _window(seal.get("window", {})),
        "test sealed": str(seal.get("sealed_at", "")),
        "test hash": str(seal.get("content_hash", "")),
        "training rows": " · ".join(f"{count:,} {split}" for split, count in data.get("rows", {}).items() if split != "test"),
        "learned from predictions": learned_text(data.get("predictions", {})),
        "training window": _window(data.get("window", {})),
        "data hash": str(data.get("content_hash", "")),
        "training": _training(training),
        "model fingerprint": asked.fingerprint,
    }
    return {name: value for name, value in facts.items() if value}


def _test_rows(seal: Mapping[str, Any], judged: int) -> str:
    total = int(seal.get("rows") or judged)
    if judged > total:
        return f"{total:,}, and {judged - total:,} planted among them, since nothing is labelled"
    return f"{judged:,}" + (f" of {total:,} (the others have no label)" if total > judged else "")


def _window(window: Any) -> str:
    if not isinstance(window, Mapping):
        return ""
    ends = [str(window.get(name) or "")[:10] for name in ("oldest", "newest")]
    return " to ".join(ends) if all(ends) else ""


def _training(training: Mapping[str, Any]) -> str:
    if reused := training.get("reused"):
        return f"none: that of version {reused.get('version')} (data {str(reused.get('data_hash'))[:12]}), with the labels of these rows"
    wanted = {
        "epochs_run": "{:,.0f} epochs",
        "seconds": "{:,.0f} s",
        "examples_per_second": "{:,.0f} rows/s",
        "peak_memory_mb": "peak {:,.0f} MB",
    }
    parts = [text.format(training[name]) for name, text in wanted.items() if isinstance(training.get(name), (int, float))]
    parts += [str(device) for device in training.get("devices", ())][:_DEVICES]
    return ", ".join(parts)

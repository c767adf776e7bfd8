"""`image-content` on 12,000 small photos of ten classes, from scratch: the compact transformer, and what it is held against.

All three networks are the project's own. The compact transformer comes first; a small convolutional network and the plain Vision Transformer are
judged against it on the same sealed rows after as many epochs. What each cost is told in seconds of a core. None of them was
trained on other images before; a pre-trained one is `training.parameters.preset`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluating import Ran, interval, run, table

NAMES = {"cct": "compact convolutional transformer", "cnn": "convolutional network", "vit": "Vision Transformer"}


def evaluate(workspace: Path) -> dict[str, Any]:
    """One run for each network, in one workspace: same rows, same sealed test set."""
    source = table("images/cifar10_jpeg_12k.parquet")
    figures = {}
    for name in NAMES:
        ran = run(
            "image-content",
            *("--with", "cifar10.yaml", "--set", f"source.path={source}"),
            *("--set", f"training.parameters.architecture={name}"),
            workspace=workspace,
        )
        figures[name] = _told(ran)
    return figures


def _told(ran: Ran) -> dict[str, Any]:
    """Seconds by the clock, and of the processors: a machine may have other work."""
    decided = ran.verdict["checks"][0]
    return {
        "status": ran.record["status"],
        "seconds": round(ran.seconds),
        "cpu_seconds": round(_cpu_seconds(ran)),
        "against": ran.verdict["opponent"]["name"],
        "difference": decided["difference"],
        "classes": ran.verdict["classes"],
        "scores": ran.scores(),
    }


def _cpu_seconds(ran: Ran) -> float:
    """Of all steps."""
    events = [json.loads(line) for line in (ran.folder / "events.jsonl").read_text().splitlines()]
    return float(sum(event.get("cpu_seconds", 0.0) for event in events))


def rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What is printed."""
    return [
        {
            "network": NAMES[name],
            "accuracy": interval(found["scores"]["accuracy"]),
            "macro_f1": interval(found["scores"]["macro_f1"]),
            "difference": f"{interval(found['difference'])} to {found['against']}",
            "seconds": f"{found['seconds']} ({found['cpu_seconds']} of a core)",
        }
        for name, found in figures.items()
    ]

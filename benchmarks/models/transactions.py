"""`transactions` on four years of a city's purchase cards, judged on the fifth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluating import interval, run, table


def evaluate(workspace: Path) -> dict[str, Any]:
    """One run; figures by name."""
    source = table("transactions/birmingham_purchase_card.parquet")
    ran = run("transactions", "--with", "birmingham.yaml", "--set", f"source.path={source}", workspace=workspace)
    return {"status": ran.record["status"], "seconds": round(ran.seconds), "scores": ran.scores()}


def rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What is printed."""
    return [
        {"metric": name, "this model": interval(score), "the table of each merchant's usual class": f"{score['opponent']:.3f}"}
        for name, score in figures["scores"].items()
        if score["opponent"] is not None
    ]

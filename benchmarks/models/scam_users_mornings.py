"""`scam-users` on its generated warehouse, morning by morning: who is found by moderators who look at so many accounts a day, nobody twice.

`evaluation.metric` counts rows, an account on each of its days. What a team feels is accounts: on each sealed morning the first so many that nobody has looked at
yet are looked at, and a scammer counts as found once. Gradient boosting, which learned the same rows, is asked for the same mornings. Both look at
rows of a world that we made, so the figures say that the parts fit together, and nothing about anybody's scammers.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from evaluating import PROJECTS, interval, run
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from mlpipelines.project import Project
from mlpipelines.project_file import load_project

Floats = NDArray[np.float64]
FOLDER = PROJECTS / "scam-users"


def evaluate(workspace: Path) -> dict[str, Any]:
    """One run; figures by name."""
    warehouse = workspace / "warehouse.db"
    subprocess.run([sys.executable, FOLDER / "generator.py", "--out", warehouse], check=True, capture_output=True)
    ran = run("scam-users", "--set", f"source.url=sqlite:///{warehouse}", workspace=workspace)
    project, sealed = load_project(FOLDER), ran.sealed()
    score = np.asarray(ran.answers(project, sealed)["score"], dtype=np.float64)
    rival = _boosted(project, ran.learned("train", "validation"), sealed)
    capacity = project.evaluation.capacity
    assert capacity is not None
    return {
        "status": ran.record["status"],
        "seconds": round(ran.seconds),
        "scores": ran.scores(),
        "sealed": {"rows": len(sealed), "days": len(set(_days(sealed))), "scammers": len(set(_users(sealed)[_flags(sealed) == 1]))},
        "mornings": {name: _mornings(each, sealed, capacity.cases) for name, each in (("scam-users", score), ("gradient boosting", rival))},
    }


def rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What is printed."""
    found = [
        {"what": f"scammers found, {name}", "figure": f"{each['found']} of {each['scammers']}"}
        for name, each in figures["mornings"].items()
    ]
    return [*({"what": name, "figure": interval(score)} for name, score in figures["scores"].items()), *found]


def _flags(rows: pa.Table) -> Floats:
    return np.asarray(rows["scam"].cast(pa.int64()), dtype=np.float64)


def _days(rows: pa.Table) -> NDArray[np.int64]:
    return np.asarray(rows["as_of"].cast(pa.int64()), dtype=np.int64) // 86_400


def _users(rows: pa.Table) -> NDArray[np.str_]:
    return np.array(rows["user_id"].to_pylist())


def _boosted(project: Project, learned: pa.Table, sealed: pa.Table) -> Floats:
    """Texts as the codes of their values."""

    def matrix(rows: pa.Table) -> Floats:
        numbers = [np.asarray(rows[name].cast(pa.float64())) for name, kind in project.features.items() if kind != "string"]
        texts = [np.searchsorted(known[name], np.array(rows[name].fill_null("").to_pylist())) for name in known]
        return np.stack([*numbers, *texts], axis=1).astype(np.float64)

    known = {name: np.unique(learned[name].fill_null("").to_pylist()) for name, kind in project.features.items() if kind == "string"}
    model = HistGradientBoostingClassifier(learning_rate=0.05, max_leaf_nodes=15, max_iter=150, random_state=17)
    return np.asarray(model.fit(matrix(learned), _flags(learned)).predict_proba(matrix(sealed))[:, 1], dtype=np.float64)


def _mornings(score: Floats, sealed: pa.Table, cases: int) -> dict[str, int]:
    """Play each sealed morning: the first `cases` accounts that were not looked at on an earlier one."""
    days, users, flags = _days(sealed), _users(sealed), _flags(sealed)
    looked_at: set[str] = set()
    found: set[str] = set()
    for day in sorted(set(days.tolist())):
        ranked = np.flatnonzero(days == day)
        ranked = ranked[np.argsort(-score[ranked], kind="stable")]
        today = [place for place in ranked if users[place] not in looked_at][:cases]
        looked_at |= {str(users[place]) for place in today}
        found |= {str(users[place]) for place in today if flags[place]}
    return {"cases": len(looked_at), "found": len(found), "scammers": len(set(users[flags == 1].tolist()))}

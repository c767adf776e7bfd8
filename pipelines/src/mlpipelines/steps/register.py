"""Enter the blessed model in the registry, with everything that somebody will ask about it in a year.

The tags answer: which rows, which schema, which code, which image, which parameters, which model before it, and why it was
let through. Doing it again for the same model gives the same version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlpipelines.artifacts import Data, Evaluation, Model
from mlpipelines.errors import ModelRejected
from mlpipelines.evaluation.served_model import fingerprint
from mlpipelines.evaluation.verdict import Verdict, figure, from_json
from mlpipelines.evaluation.verdict_facts import read_if_there
from mlpipelines.progress import note, progress
from mlpipelines.project import Project
from mlpipelines.publishing import registry
from mlpipelines.workspace import Workspace
from mlserving.rollout.aliases import RUN


def register(
    *,
    project: Project,
    workspace: Workspace,
    data: Path,
    schema: Path,
    model: Path,
    evaluation: Path,
    run_id: str,
    lineage: Mapping[str, str],
) -> int:
    """Register the model as the next version with the alias `challenger`; `publish` makes it the champion.

    Args:
        project: its name, team, deployment and training sections count.
        workspace: where the registry is.
        data: the `Data` artifact.
        schema: the reviewed schema file.
        model: the `Model` artifact.
        evaluation: the `Evaluation` artifact.
        run_id: the pipeline run.
        lineage: what the starter of the run knows: commit, image, who started it.

    Returns:
        The version's number.

    Raises:
        ModelRejected: the verdict is not "blessed".
        Unavailable: the registry does not answer, or its disk is full.
    """
    verdict = from_json(Evaluation(evaluation).verdict.read_text(encoding="utf-8"))
    if not verdict.blessed:
        raise ModelRejected(f"{verdict.title}. Only a blessed model is registered: improve it and run `millrace run` again.")
    progress("copying the model into the registry", 0.1)
    champion = registry.champion_of(workspace, project.model_name)
    manifest, training = read_if_there(Data(data).manifest), read_if_there(Model(model).training)
    tags = {
        "project": project.name,
        "team": project.team,
        RUN: run_id,
        "data_hash": str(manifest.get("content_hash", "")),
        "learned_from_predictions": json.dumps(manifest.get("predictions", {}).get("from", {}), sort_keys=True),
        "schema_hash": hashlib.sha256(schema.read_bytes()).hexdigest(),
        "test_hash": verdict.facts.get("test hash", ""),
        "parent_version": str(champion.version) if champion is not None else "none",
        "parameters": json.dumps(project.training.model_dump(mode="json", exclude_defaults=True), sort_keys=True),
        registry.FINGERPRINT: fingerprint(Model(model).saved_model),
        registry.TRAINING_FINGERPRINT: str(training.get("fingerprint", "")),
        registry.TRAINED_VERSION: str(training.get("reused", {}).get("version", "")),
        **_verdict_tags(verdict),
        **{f"lineage.{name}": str(value) for name, value in sorted(lineage.items())},
    }
    version = registry.register_version(
        workspace,
        project=project.name,
        model=project.model_name,
        run_id=run_id,
        saved_model=Model(model).saved_model,
        trained=Model(model).trained,
        tags=tags,
        description=verdict.title,
    )
    note(version=version, model=project.model_name, summary=f"{project.model_name} version {version}")
    return version


def _verdict_tags(verdict: Verdict) -> dict[str, Any]:
    deciding = next((score for score in verdict.scores if score.metric == verdict.metric), None)
    return {
        "verdict": verdict.title,
        "metric": verdict.metric,
        "metric_value": str(deciding.challenger) if deciding else "",
        "size_mb": figure(verdict.metrics.get("size_mb")),
        "latency_ms": figure(verdict.metrics.get("latency_ms")),
    }

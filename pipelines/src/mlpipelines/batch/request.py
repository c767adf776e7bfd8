"""What a call asks for and what it tells when it is done, and the run that it opens: a call that was killed is gone on with.

A run has one version of the model and one moment, which its predictions bear. Both are written down before the first row is scored, so
whoever finishes the run finishes it with the same ones, even if the champion has moved meanwhile.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlpipelines.batch.columns import refuse_our_names
from mlpipelines.batch.decisions import Decisions, decisions_of
from mlpipelines.batch.delivery import refuse_case_names
from mlpipelines.batch.inputs import root_of
from mlpipelines.batch.output import Output
from mlpipelines.batch.prediction_log import log_settings
from mlpipelines.batch.ranking import Per, Rule, rule_of
from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.moments import moments
from mlpipelines.project import Project
from mlpipelines.workspace import Workspace, read_json, write_json
from mlserving.gateway.settings import Log


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What a person, Airflow or a pipeline asks for."""

    project: Project
    project_dir: Path
    workspace: Workspace
    output: Path
    input: str = ""
    """A file, a folder or a glob; empty: the project's own source for the window."""
    since: str = ""
    until: str = ""
    version: int | None = None
    """None: the champion."""
    keep: tuple[str, ...] = ()
    rank_by: str = ""
    top: int | None = None
    per: Per | None = None
    once_per: str = ""
    log_share: float | None = None
    log_features: tuple[str, ...] = ()
    max_rejected: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """A request that makes sense, with what follows from it."""

    keep: tuple[str, ...]
    log: Log
    rule: Rule | None
    decisions: Decisions | None

    def as_asked(self, request: BatchRequest) -> dict[str, Any]:
        """What a run must have in common with the one before to go on with it, as JSON."""
        return {
            "project": request.project.name,
            "model": request.project.model_name,
            "input": str(root_of(request.input)) + f" {request.input}" if request.input else "",
            "window": [request.since, request.until],
            "version": request.version,
            "keep": list(self.keep),
            "log": self.log.model_dump(mode="json"),
            "rule": asdict(self.rule) if self.rule else None,
        }


def understand(request: BatchRequest) -> Understood:
    """Check what can be checked before anything is looked at.

    Raises:
        ConfigError: the options do not go together.
    """
    window = moments(request.since, request.until)
    if bool(request.input) == any(window):
        raise ConfigError(
            "Say what is scored: --input FILE, FOLDER or 'GLOB', or the project's own source by --since and --until, not both."
        )
    if not 0 <= request.max_rejected <= 1:
        raise ConfigError(f"--max-rejected {request.max_rejected:g}: it is a share of the rows, from 0 to 1.")
    if not request.rank_by and (request.top is not None or request.per or request.once_per):
        raise ConfigError("--top, --per and --once-per say how a ranking is cut. Name what rows are ranked by: --rank-by OUTPUT")
    rule = None
    if request.rank_by:
        rule = rule_of(request.project, rank_by=request.rank_by, top=request.top, per=request.per, once_per=request.once_per or None)
    wanted = [*request.keep, *([rule.once_per] if rule and rule.once_per else [])]
    wanted += [request.project.time] if rule and rule.per != "run" and request.project.time else []
    decisions = decisions_of(request.project_dir)
    wanted += decisions.columns if decisions else ()
    refuse_our_names(wanted)
    if rule:
        refuse_case_names(wanted)
    log = log_settings(request.project, share=request.log_share, features=request.log_features)
    return Understood(keep=tuple(dict.fromkeys(wanted)), log=log, rule=rule, decisions=decisions)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A run that has not ended, as `_state/run.json` has it."""

    run: str
    asked: Mapping[str, Any]
    version: int | None
    fingerprint: str
    started_us: int
    files: tuple[str, ...] = ()
    """Names of the files that it scores, or has scored."""
    resumed: bool = False

    @property
    def started(self) -> str:
        """The moment of the run, for people."""
        return datetime.fromtimestamp(self.started_us / 1e6, UTC).isoformat(timespec="seconds")

    def write(self, output: Output) -> None:
        """Write it down."""
        write_json(output.open_run, {**asdict(self), "resumed": None})


def open_run(output: Output, asked: Mapping[str, Any]) -> OpenRun:
    """The run that was killed, if it asked for the same; else a new one that has no version yet.

    A new one takes over the files of the killed one, which may be scored already and not yet ranked.
    """
    inherited: tuple[str, ...] = ()
    if output.open_run.is_file():
        found = read_json(output.open_run)
        if found["asked"] == asked:
            return replace(OpenRun(**found), files=tuple(found["files"]), resumed=True)
        if not output.delivery(found["run"]).is_file():
            inherited = tuple(found["files"])
    now = time.time_ns() // 1000
    run = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now // 1_000_000))}-{secrets.token_hex(2)}"
    return OpenRun(run=run, asked=asked, version=None, fingerprint="", started_us=now, files=inherited)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """How a call ended."""

    run: str
    model: str
    version: int
    output: str
    resumed: bool
    files: int
    """Input files that the run scored."""
    unchanged: int
    """Input files whose predictions were in the output already."""
    rows: int = 0
    scored: int = 0
    rejected: int = 0
    logged: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    """Files that could not be scored, and why."""
    cases: int | None = None
    decisions: int | None = None
    """Rows that the project's `decisions.py` made of them."""
    seconds: float = 0.0


def require_accepted(outcome: BatchOutcome, most: float) -> None:
    """Say no to a run of which too much could not be scored; everything else is in the output.

    Raises:
        DataRejected: a file failed, or more than the share `most` of the rows.
    """
    reasons: list[dict[str, object]] = [{"file": name, "rows": None, "reason": why} for name, why in outcome.failed.items()]
    reasons += [{"file": "", "rows": rows, "reason": why} for why, rows in outcome.reasons.items()]
    if outcome.failed:
        name, why = next(iter(outcome.failed.items()))
        more = f" (and {len(outcome.failed) - 1} more)" if len(outcome.failed) > 1 else ""
        raise DataRejected(
            f"{len(outcome.failed)} of the input files could not be scored: {name}: {why}{more} Everything else is in {outcome.output}. "
            "Correct the files and type the same command again: only they are scored.",
            report=reasons,
        )
    if outcome.rejected > most * outcome.rows:
        raise DataRejected(
            f"{outcome.rejected:,} of {outcome.rows:,} rows could not be scored ({outcome.rejected / outcome.rows:.2%}; --max-rejected allows {most:.2%}). "
            f"They lie in {outcome.output}/_rejected with their reasons; the others are scored. Correct them at their source, or allow more.",
            report=reasons,
        )

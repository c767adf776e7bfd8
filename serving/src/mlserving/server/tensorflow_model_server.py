"""Where Google's own `tensorflow_model_server` is installed, it serves: this turns our settings into its flags.

It takes the process over (exec), so signals and the exit code are its own. It knows nothing of a ready file, and it does not
say when it is ready; a small process that we leave behind (`python -m mlserving.server.await_ready`) asks it until it is, and tells.
Differences that remain: it listens on all interfaces, it ends at once on SIGTERM, and it serves the models that are
in the store when it starts (their new versions, yes; new models, no).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlserving.errors import ConfigError
from mlserving.server.versions import ServedModel

PROGRAM = "tensorflow_model_server"


def found() -> str | None:
    """Its path, if it is on PATH."""
    return shutil.which(PROGRAM)


def flags(*, grpc_port: int, rest_port: int, config: Path) -> list[str]:
    """The flags that make it behave like the local server: quick to notice, tolerant of labels, warmed up, health-checked."""
    return [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_config_file={config}",
        "--model_config_file_poll_wait_seconds=1",
        "--file_system_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_model_warmup=true",
        "--enable_grpc_healthcheck_service=true",
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=1000000",
    ]


def config_text(models: Sequence[ServedModel]) -> str:
    """A model_config_list of `models`, each with its newest version."""
    configs = [
        f'  config {{\n    name: "{model.name}"\n    base_path: "{model.base_path.absolute()}"\n    model_platform: "tensorflow"\n  }}\n'
        for model in models
    ]
    return "model_config_list {\n" + "".join(configs) + "}\n"


def write_config(models: Sequence[ServedModel]) -> Path:
    """`config_text` in a new temporary file, which outlives this process: the server reads it again each second."""
    if not models:
        raise ConfigError("There is no model in the store. Train and publish one: millrace run PROJECT_DIR")
    descriptor, name = tempfile.mkstemp(prefix="millrace-", suffix=".model_config")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(config_text(models))
    return Path(name)


def replace_process(program: str, arguments: Sequence[str], *, ready_arguments: Sequence[str]) -> None:
    """Leave the process that waits for readiness behind, then become the server. Does not return."""
    sys.stdout.flush()
    subprocess.Popen([sys.executable, "-m", "mlserving.server.await_ready", str(os.getpid()), *ready_arguments], start_new_session=True)
    os.execv(program, [program, *arguments])  # noqa: S606  becoming another program is the point

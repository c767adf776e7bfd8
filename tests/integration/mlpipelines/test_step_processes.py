"""Steps as forks of a process that has imported the heavy libraries, and as fresh processes."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fork_server import stop_fork_server
from mlpipelines.step_processes import StepProcesses

SCRIPT = """
program_path=$(mktemp -d)
printf "%s" "$0" > "$program_path/ephemeral_component.py"
_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path "$program_path/ephemeral_component.py" "$@"
"""
SOURCE = """
def {name}(folder: str) -> str:
    import os, pathlib, sys, threading, time
    here = pathlib.Path(folder)
    heavy = [name for name in ("tensorflow", "apache_beam", "mlflow") if name in sys.modules]
    (here / "facts").write_text("\\n".join([f"{{os.getpid()}} of {{os.getppid()}}", *heavy]))
    if (here / "fail").exists():
        raise SystemExit(3)
    while (here / "wait").exists():
        time.sleep(0.05)
    return "done"
"""


@pytest.fixture(scope="module")
def processes() -> Iterator[StepProcesses]:
    stop_fork_server()
    started = StepProcesses()
    yield started
    started.close()


def command(name: str, folder: Path) -> list[str]:
    output = folder / "output.json"
    given = {
        "inputs": {"parameterValues": {"folder": str(folder)}},
        "outputs": {"parameters": {"Output": {"outputFile": str(folder / "answer")}}, "outputFile": str(output)},
    }
    return ["sh", "-ec", SCRIPT, SOURCE.format(name=name), "--executor_input", json.dumps(given), "--function_to_execute", name]


@pytest.mark.parametrize(("name", "heavy"), [("train", ["tensorflow", "apache_beam", "mlflow"]), ("ingest", [])])
def test_a_step_is_a_process_of_its_own_and_only_forks_have_the_libraries(
    processes: StepProcesses, tmp_path: Path, name: str, heavy: list[str]
) -> None:
    folder = tmp_path / "python3-paths-stay-as-they-are"
    folder.mkdir()
    assert processes.run(command(name, folder)) == 0
    ids, *found = (folder / "facts").read_text().splitlines()
    assert ids.split()[0] != str(os.getpid())
    assert found == heavy
    assert "done" in (folder / "output.json").read_text()


def test_a_light_step_is_a_fork_of_this_process_and_waits_for_no_libraries(processes: StepProcesses, tmp_path: Path) -> None:
    assert processes.run(command("labels", tmp_path)) == 0
    pid, _, parent = (tmp_path / "facts").read_text().splitlines()[0].split()
    assert pid != parent == str(os.getpid())
    assert "done" in (tmp_path / "output.json").read_text()


@pytest.mark.parametrize("name", ["train", "ingest", "labels"])
def test_the_exit_code_is_the_steps_own(processes: StepProcesses, tmp_path: Path, name: str) -> None:
    (tmp_path / "fail").touch()
    assert processes.run(command(name, tmp_path)) == 3


@pytest.fixture
def told() -> Iterator[list[int]]:
    """Of which signals this process was told that end it, as a run's process has its own way to end."""
    signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    yield signals
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("name", ["train", "labels"])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_fork_fails_its_step_and_the_next_one_still_runs(
    processes: StepProcesses, tmp_path: Path, told: list[int], name: str, sign: signal.Signals
) -> None:
    (tmp_path / "wait").touch()

    def kill() -> None:
        while not (tmp_path / "facts").exists() or not (tmp_path / "facts").read_text():
            time.sleep(0.02)
        os.kill(int((tmp_path / "facts").read_text().split()[0]), sign)

    killer = threading.Thread(target=kill)
    killer.start()
    assert processes.run(command(name, tmp_path)) == -sign
    killer.join()
    (tmp_path / "wait").unlink()
    assert processes.run(command(name, tmp_path)) == 0
    assert told == []

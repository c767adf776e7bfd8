"""The `millrace` command finds what the packages offer, and its exit codes can be relied on."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from mlplatform import cli


class ForeseenError(Exception):
    exit_code = 3


def polite(argv: list[str]) -> int:
    """Say what was asked

    and nothing more.
    """
    print(argv)
    return 0


def rejected(argv: list[str]) -> int:
    """Fail for a foreseen reason"""
    raise ForeseenError("the rows break the schema. Next: millrace schema diff")


def buggy(argv: list[str]) -> int:
    """Fail for an unforeseen reason"""
    raise ZeroDivisionError


def interrupted(argv: list[str]) -> int:
    """Be stopped by Ctrl-C"""
    raise KeyboardInterrupt


class Offered(EntryPoint):
    """An entry point of this test file, which is no installed module."""

    def load(self) -> object:
        return globals()[self.value]


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = {"polite": "polite", "serve": "polite", "gate": "rejected", "bug": "buggy", "slow": "interrupted"}
    entries = [Offered(name=name, value=value, group="millrace.commands") for name, value in offers.items()]
    monkeypatch.setattr(cli, "entry_points", lambda *, group: entries if group == "millrace.commands" else [])


def test_a_command_gets_what_stands_after_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["polite", "a", "--b"]) == 0
    assert capsys.readouterr().out == "['a', '--b']\n"


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command_with_its_summary_and_the_exit_codes(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    text = capsys.readouterr().out
    assert "Serving\n  serve   Say what was asked\n" in text
    assert "More\n  bug     Fail for an unforeseen reason\n  gate " in text
    assert "  130  interrupted" in text


def test_help_of_a_command_asks_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "polite"]) == 0
    assert capsys.readouterr().out == "['--help']\n"


def test_an_unknown_command_is_a_usage_error_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plite"]) == 2
    assert "Did you mean 'polite'?" in capsys.readouterr().err


def test_a_foreseen_failure_prints_its_text_and_exits_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gate"]) == 3
    assert capsys.readouterr().err == "ForeseenError: the rows break the schema. Next: millrace schema diff\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.main(["bug"])


def test_ctrl_c_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["slow"]) == 130
    assert capsys.readouterr() == ("", "")


def test_the_installed_help_imports_nothing_heavy() -> None:
    code = "import sys; from mlplatform.cli import main; main(['--help']); print(sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = run.stdout.splitlines()[-1]
    for heavy in ("tensorflow", "pandas", "numpy", "pyarrow", "kfp", "mlflow", "pydantic", "grpc", "rich"):
        assert f"'{heavy}'" not in modules, f"millrace --help imports {heavy}"
    assert "serve " in run.stdout


@pytest.mark.parametrize("package", ["mlplatform", "mlpipelines", "mlserving", "gpuqueue"])
def test_what_an_image_runs_tells_what_it_can_do(package: str) -> None:
    done = subprocess.run([sys.executable, "-m", package, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")

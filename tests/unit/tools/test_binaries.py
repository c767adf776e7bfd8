"""`make tools`: built once, wherever it is asked from, and never half."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BINARIES = Path(__file__).resolve().parents[3] / "tools" / "binaries.py"

FAKE_GO = """#!/bin/sh
echo "$@" >> "$GO_LOG"
while [ "$1" != -o ]; do shift; done
sleep 0.3
[ -z "$GO_FAILS" ] || { echo "undefined: x" >&2; exit 1; }
echo "#!/bin/sh" > "$2"
chmod +x "$2"
"""


class Desk:
    """A home, a PATH with a compiler that takes 0.3 s, and the command."""

    def __init__(self, folder: Path) -> None:
        self.cache, self.log, self.bin = folder / "cache", folder / "go.log", folder / "bin"
        self.bin.mkdir()
        self.log.touch()
        self.settings = {"XDG_CACHE_HOME": str(self.cache), "GO_LOG": str(self.log), "PATH": f"{self.bin}:/usr/bin:/bin"}
        self.install_go()

    def install_go(self) -> None:
        (self.bin / "go").write_text(FAKE_GO)
        (self.bin / "go").chmod(0o755)

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        environment = {"HOME": os.environ["HOME"], **self.settings, **settings}
        command = [sys.executable, str(BINARIES), *arguments]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ask(self, *arguments: str, **settings: str) -> tuple[int, list[str], str]:
        process = self.start(*arguments, **settings)
        output, errors = process.communicate(timeout=30)
        return process.returncode, output.split(), errors

    def builds(self) -> int:
        return len(self.log.read_text().splitlines())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_what_was_built_is_not_built_again(desk: Desk) -> None:
    _, first, _ = desk.ask("etcd")
    _, second, _ = desk.ask("etcd")
    assert first == second
    assert os.access(first[0], os.X_OK)
    assert desk.builds() == 1


def test_two_that_ask_at_once_build_once(desk: Desk) -> None:
    both = [desk.start("etcd", "kwok") for _ in range(2)]
    answers = {process.communicate(timeout=30)[0] for process in both}
    assert len(answers) == 1
    assert desk.builds() == 2


def test_a_failed_build_leaves_nothing_and_says_what_the_compiler_said(desk: Desk) -> None:
    code, _, errors = desk.ask("etcd", GO_FAILS="1")
    assert code == 2
    assert "etcd did not build" in errors
    assert "undefined: x" in errors
    assert [path for path in desk.cache.rglob("*etcd*") if path.is_file()] == []


def test_without_go_the_answer_is_what_to_install_and_type(desk: Desk) -> None:
    (desk.bin / "go").unlink()
    code, _, errors = desk.ask("kwok")
    assert code == 2
    assert "Install Go" in errors
    assert errors.strip().endswith("make tools")


def test_what_is_there_needs_no_go(desk: Desk) -> None:
    _, built, _ = desk.ask("kwok")
    (desk.bin / "go").unlink()
    assert desk.ask("kwok") == (0, built, "")


def test_given_programs_come_first(desk: Desk, tmp_path: Path) -> None:
    given = tmp_path / "assets"
    given.mkdir()
    for name in ("etcd", "kube-apiserver"):
        (given / name).touch(mode=0o755)
    _, found, _ = desk.ask("etcd", "kube-apiserver", KUBEBUILDER_ASSETS=str(given))
    assert found == [str(given / "etcd"), str(given / "kube-apiserver")]
    assert desk.builds() == 0


def test_half_a_control_plane_is_not_mixed_with_half_of_another(desk: Desk, tmp_path: Path) -> None:
    given = tmp_path / "assets"
    given.mkdir()
    (given / "etcd").touch(mode=0o755)
    _, found, _ = desk.ask("etcd", "kube-apiserver", KUBEBUILDER_ASSETS=str(given))
    assert str(given / "etcd") not in found


def test_path_prints_folders_for_the_shell(desk: Desk) -> None:
    _, (line,), _ = desk.ask("--path", "kube-scheduler", "kubectl", "kwok")
    folders = [Path(folder) for folder in line.split(":")]
    assert [sorted(p.name for p in folder.iterdir()) for folder in folders] == [["kube-scheduler", "kubectl"], ["kwok"]]


def test_what_goes_into_an_image_is_of_our_own_pins_whatever_is_given(desk: Desk, tmp_path: Path) -> None:
    given, image = tmp_path / "assets", tmp_path / "image"
    given.mkdir()
    for name in ("etcd", "kubectl"):
        (given / name).touch(mode=0o755)
    for _ in range(2):
        code, found, _ = desk.ask("--into", str(image), "helm", "kubectl", KUBEBUILDER_ASSETS=str(given))
        assert (code, found) == (0, [str(image / "helm"), str(image / "kubectl")])
    assert all(os.access(path, os.X_OK) and Path(path).read_text() == "#!/bin/sh\n" for path in found)
    assert sorted(path.name for path in image.iterdir()) == ["helm", "kubectl"]
    assert desk.builds() == 2


def test_kubernetes_reports_the_version_that_is_pinned(desk: Desk) -> None:
    desk.ask("kubectl")
    assert "gitVersion=v1.36." in desk.log.read_text()


def test_prometheus_is_built_without_what_it_would_never_discover_here_and_others_whole(desk: Desk) -> None:
    desk.ask("promtool", "helm")
    promtool, helm = desk.log.read_text().splitlines()
    assert "-tags=remove_all_sd" in promtool
    assert "-tags" not in helm


def test_an_unknown_tool_is_answered_with_the_known_ones(desk: Desk) -> None:
    code, _, errors = desk.ask("kubelet")
    assert code == 2
    assert "no such tool: kubelet. There are: etcd, kube-apiserver" in errors

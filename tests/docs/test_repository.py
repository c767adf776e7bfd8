"""What a reader of the repository relies on: links lead somewhere, commands exist, nothing shadows anything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(p for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("pipelines/projects/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_place_in_the_code_that_a_page_names_is_there(page: Path) -> None:
    for file, symbol in re.findall(r"`([\w/.-]+\.py)::(\w+)`", page.read_text()):
        assert (ROOT / file).is_file(), f"{page.name} names {file}"
        assert re.search(rf"^\s*(def|class|async def) {symbol}\b|^{symbol}\b", (ROOT / file).read_text(), re.MULTILINE), (
            f"{page.name}: {symbol} is not in {file}"
        )


def test_every_command_that_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"make {target}"
    for command in set(re.findall(r"millrace ([a-z]+) ", text)):
        help_text = subprocess.run(
            [Path(sys.executable).parent / "millrace", command, "--help"], capture_output=True, text=True, check=False
        )
        assert help_text.returncode == 0, f"millrace {command}"


def test_no_top_level_folder_is_a_package() -> None:
    assert [p.parent.name for p in ROOT.glob("*/__init__.py")] == []
    found = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.system())"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "Linux"


def test_make_alone_prints_every_documented_target() -> None:
    printed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "verify", "setup", "benchmark"):
        assert re.search(rf"^  {target} ", printed, re.MULTILINE)


def test_requirements_name_no_address() -> None:
    for file in [*ROOT.glob("requirements/*.txt"), *ROOT.glob("tools/*/requirements.*")]:
        assert "://" not in file.read_text(), file.name

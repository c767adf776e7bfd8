"""Copy what Python needs from the Debian that this runs on into a folder, which becomes the root of the image (`../Dockerfile`).

An image that starts from a distribution carries a shell, a package manager and their updates. This one carries the interpreter, its standard
library and every shared library that one of them is linked to. Scanners still find out what is inside: the packages that files came from
leave their entries in /var/lib/dpkg/status.d, as in the distroless images.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

STANDARD = Path(sysconfig.get_path("stdlib"))
UNUSED = (
    "__pycache__",
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "pydoc_data",
    "EXTERNALLY-MANAGED",
    "config-3*",
    "_test*",
    "_tkinter*",
)
"""Parts of the standard library that a server has no use for."""
DATA = ("/usr/share/zoneinfo", "/etc/ssl/certs/ca-certificates.crt")
OLD_ZONES = ("posix", "right", "localtime", "posixrules")
USER = "gpu-queue:x:65532:65532::/:/none\n"
_LINKED = re.compile(rb"(/\S+) \(0x")


def main() -> int:
    """Fill the folder that is named on the command line; `app` in it holds the libraries already."""
    image = Path(sys.argv[1])
    interpreter = Path(sys.executable).resolve()
    _lay_out(image)
    taken = [interpreter, STANDARD / "os.py", STANDARD / "asyncio/__init__.py", *map(Path, DATA)]
    _copy(interpreter, image)
    (image / "usr/bin/python3").symlink_to(interpreter.name)
    shutil.copytree(STANDARD, _inside(image, STANDARD), ignore=shutil.ignore_patterns(*UNUSED), symlinks=True)
    shutil.copytree(DATA[0], _inside(image, Path(DATA[0])), ignore=shutil.ignore_patterns(*OLD_ZONES), symlinks=True)
    _copy(Path(DATA[1]), image)
    shutil.rmtree(image / "app" / "bin", ignore_errors=True)
    for library in _linked([interpreter, *image.rglob("*.so"), *image.rglob("*.so.*")]):
        _copy(library, image)
        taken.append(library)
    _tell_packages(image, taken)
    unchanging = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compiled = compileall.compile_dir(image, stripdir=str(image), quiet=1, maxlevels=20, invalidation_mode=unchanging)
    return 0 if compiled else 1


def _lay_out(image: Path) -> None:
    """Folders that programs take for granted, and who we are."""
    for folder in ("usr/bin", "usr/lib", "usr/lib64", "etc", "tmp"):
        (image / folder).mkdir(parents=True)
    (image / "tmp").chmod(0o1777)
    for name in ("bin", "lib", "lib64"):
        (image / name).symlink_to(f"usr/{name}")
    (image / "etc/passwd").write_text(USER)
    (image / "etc/group").write_text("gpu-queue:x:65532:\n")
    (image / "etc/nsswitch.conf").write_text("hosts: files dns\n")


def _linked(programs: Iterable[Path]) -> list[Path]:
    """Every shared library outside the image that one of the programs is linked to, the loader included."""
    found: set[Path] = set()
    for program in programs:
        answer = subprocess.run(["/usr/bin/ldd", program], capture_output=True, check=False)
        if b"not found" in answer.stdout:
            raise SystemExit(f"{program} needs a library that is not installed:\n{answer.stdout.decode()}")
        found.update(Path(os.fsdecode(path)) for path in _LINKED.findall(answer.stdout))
    return sorted(found)


def _copy(file: Path, image: Path) -> None:
    """The file's contents under the name by which it is asked for."""
    target = _inside(image, file)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(file.resolve(), target)


def _inside(image: Path, file: Path) -> Path:
    return image / file.relative_to("/")


def _tell_packages(image: Path, files: Iterable[Path]) -> None:
    folder = image / "var/lib/dpkg/status.d"
    folder.mkdir(parents=True)
    for package in sorted({name for file in files for name in _owners(file)}):
        (folder / package.partition(":")[0]).write_bytes(
            subprocess.run(["/usr/bin/dpkg", "-s", package], capture_output=True, check=True).stdout
        )


def _owners(file: Path) -> list[str]:
    """The packages that own a file; libraries are known by their names before /lib became a link to /usr/lib, too."""
    for name in {file, file.resolve(), Path("/usr", *file.parts[1:]), Path("/", *file.parts[2:])}:
        answer = subprocess.run(["/usr/bin/dpkg", "-S", name], capture_output=True, text=True, check=False)
        owned = [line for line in answer.stdout.splitlines() if not line.startswith("diversion ")]
        if owned:
            return [owner.strip() for owner in owned[0].partition(": ")[0].split(",")]
    return []


if __name__ == "__main__":
    sys.exit(main())

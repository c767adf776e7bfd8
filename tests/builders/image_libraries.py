"""An image's libraries and no others: a Python in which every module is missing that a file of requirements/ does not bring.

What is installed here holds the libraries of all images, so an import that works here may be missing there. Which module is whose is read from the
installed distributions' own lists of files, so that namespaces which several share (`google`) are told apart, and `mlflow` from `mlflow-skinny`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
_ONLY = """
import sys, sysconfig
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from pathlib import Path

held, seen = set(sys.argv.pop(1).split(",")), set()
for found in distributions():
    if (name := found.name.lower().replace("_", "-").replace(".", "-")) in held:
        seen.add(name)
        FILES = globals().setdefault("FILES", set())
        FILES.update(str(found.locate_file(file)) for file in found.files or ())
assert seen == held, f"not installed here: {held - seen}"
place = sysconfig.get_path("purelib")

class Only(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        of_a_library = spec is not None and spec.origin is not None and spec.origin.startswith(place)
        return None if of_a_library and spec.origin not in FILES and not name.startswith("_") else spec

sys.meta_path[sys.meta_path.index(PathFinder)] = Only
"""


def run_with_libraries_of(file: str, code: str) -> subprocess.CompletedProcess[str]:
    """`python -c code` with the libraries of requirements/FILE.txt and ours."""
    names = {name.lower() for name in re.findall(r"^([\w.-]+)==", (REQUIREMENTS / f"{file}.txt").read_text(), re.MULTILINE)}
    held = ",".join(sorted(name.replace("_", "-").replace(".", "-") for name in names))
    return subprocess.run([sys.executable, "-c", _ONLY + code, held], capture_output=True, text=True, check=False)

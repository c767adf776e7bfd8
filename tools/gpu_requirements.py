"""`make export`: requirements/steps-gpu.txt, which is requirements/steps.txt with the TensorFlow that runs on GPUs, and the CUDA libraries that it loads.

One resolution decides on every other library, so that a model that was trained on a GPU is evaluated and published by the same code on a processor. Here each
pin of steps.txt is a requirement and an override at once: only what TensorFlow brings along for GPUs is left to resolve. What pyproject.toml leaves out
of every environment is left out here too.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FROM, TO = (ROOT / "requirements" / f"{name}.txt" for name in ("steps", "steps-gpu"))
CPU, GPU = "tensorflow-cpu", "tensorflow[and-cuda]"
SETTINGS = """[project]
name = "steps-gpu"
version = "0"
requires-python = ">=3.11,<3.14"
dependencies = [
{pins}
]

[tool.uv]
package = false
environments = ["sys_platform == 'linux' and platform_machine == 'x86_64'"]
override-dependencies = [
{pins}
"{CPU} ; sys_platform == 'never'",
{left_out}
]
"""


def pins(text: str) -> list[str]:
    """Of a requirements file, each without its hashes: `name==version ; marker`."""
    lines = (re.sub(r"\s+--hash=\S+", "", line).strip() for line in text.replace("\\\n", "").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def on_gpus(found: Sequence[str]) -> list[str]:
    """The same with the other TensorFlow, of the same version.

    Raises:
        ValueError: there is no TensorFlow among them.
    """
    if not any(pin.startswith(f"{CPU}==") for pin in found):
        raise ValueError(f"{FROM.name} pins no {CPU}")
    return [pin.replace(f"{CPU}==", f"{GPU}==", 1) for pin in found]


def left_out(settings: str) -> list[str]:
    """Libraries that pyproject.toml keeps out of every environment, though others ask for them; TensorFlow is not one of them on GPUs."""
    overrides: list[str] = tomllib.loads(settings)["tool"]["uv"]["override-dependencies"]
    return [each for each in overrides if each.endswith("; sys_platform == 'never'") and not each.startswith("tensorflow ")]


def main(uv: str) -> int:
    """Write the file."""
    wanted = on_gpus(pins(FROM.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as folder:
        without = left_out((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        told = SETTINGS.format(pins=_lines(wanted), CPU=CPU, left_out=_lines(without))
        (Path(folder) / "pyproject.toml").write_text(told, encoding="utf-8")
        subprocess.run([uv, "lock", "--quiet", "--project", folder], check=True)
        subprocess.run([uv, "export", "--quiet", "--frozen", "--no-annotate", "--no-header", "--no-emit-project", "--format", "requirements-txt", "--project", folder, "-o", TO], check=True)  # fmt: skip
    return 0


def _lines(texts: Sequence[str]) -> str:
    return "\n".join(f'"{text}",' for text in texts)


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]).resolve())))

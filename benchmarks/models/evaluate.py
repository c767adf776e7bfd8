"""`make evaluate-models`: every model on a real table, with what it is held against.

    python benchmarks/models/evaluate.py [NAME …]        # transactions, transaction-similarity, …; all without a name

Each is one module of this folder with two functions: `evaluate(workspace)`, which returns figures, and `rows(figures)`, the table that is
printed. Figures are written to benchmarks/results/models/NAME.json, with the machine they were made on; docs/models/NAME.md tells of them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from evaluating import RESULTS

from mlpipelines.commands.screen import console, print_table
from mlpipelines.workspace import write_json

_SHARED = {"evaluate", "evaluating"}


def main() -> int:
    """Evaluate, print, write."""
    names = sorted(file.stem.replace("_", "-") for file in Path(__file__).parent.glob("*.py") if file.stem not in _SHARED)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    chosen = parser.parse_args().names or names
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"there is no evaluation of {', '.join(unknown)}; there are {', '.join(names)}")
    for name in chosen:
        module = importlib.import_module(name.replace("-", "_"))
        folder = Path(tempfile.mkdtemp(prefix=f"millrace-{name}-"))
        try:
            figures = module.evaluate(folder)
        except BaseException:
            console().print(f"The runs are left in {folder}", soft_wrap=True)
            raise
        shutil.rmtree(folder)
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_json(RESULTS / f"{name}.json", {"machine": {"cores": os.cpu_count()}, **figures})
        print_table(name, module.rows(figures))
        console().print(f"Written to {RESULTS / name}.json", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

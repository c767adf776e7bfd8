"""The heavy libraries, imported once for all steps of a local run: see `step_processes`.

Importing this module is all there is to it; `multiprocessing`'s fork server does so before it forks the first step.
"""

# ruff: noqa: F401, E402  # imported for what importing does, after the libraries were told to be quiet
from __future__ import annotations

import gc
import sys

from mlpipelines.inside import quiet_libraries

quiet_libraries()
UNUSED = ("sklearn", "matplotlib")
"""Where they are installed Keras imports them, for wrappers and pictures that no step uses: a second and a half."""
sys.modules.update(dict.fromkeys(UNUSED))  # type: ignore[arg-type]  # None: the import system's word for "cannot be imported"

import keras

for _name in UNUSED:
    del sys.modules[_name]

import apache_beam
import kfp.dsl.executor_main
import mlflow
import pyarrow.parquet
import tensorflow as tf
import tensorflow_data_validation
import tensorflow_transform.beam

gc.freeze()  # the collector of a fork need not touch, and so copy, what all of them share

"""TensorFlow Data Validation's C++ core: infer a schema and check one, from one protocol buffer to another.

The Python package around that core imports TensorFlow and Beam (ten seconds) for work that takes milliseconds and needs
neither. So the extension is loaded by its file; where it is not found there, or the package is imported already, the
package's own public functions do the same. A test holds both to the same answers.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

_PACKAGE = "tensorflow_data_validation"
_EXTENSION = "tensorflow_data_validation_extension"
_MODULE = f"{_PACKAGE}.pywrap.{_EXTENSION}"


def infer_schema(statistics: statistics_pb2.DatasetFeatureStatisticsList, *, max_domain: int) -> schema_pb2.Schema:
    """The schema that these statistics (of one data set) suggest; text with up to `max_domain` values gets a domain of them."""
    core = _core()
    if core is None:
        import tensorflow_data_validation as tfdv

        return tfdv.infer_schema(statistics, infer_feature_shape=False, max_string_domain_size=max_domain)
    serialised = core.InferSchema(statistics.datasets[0].SerializeToString(), max_domain, False)
    return schema_pb2.Schema.FromString(serialised)


def validate_statistics(statistics: statistics_pb2.DatasetFeatureStatisticsList, schema: schema_pb2.Schema) -> anomalies_pb2.Anomalies:
    """What in these statistics breaks `schema`."""
    core = _core()
    if core is None:
        import tensorflow_data_validation as tfdv

        return tfdv.validate_statistics(statistics, schema)
    none = b""
    serialised = core.ValidateFeatureStatistics(
        statistics.datasets[0].SerializeToString(), schema.SerializeToString(), none, none, none, none, none, none, False
    )
    return anomalies_pb2.Anomalies.FromString(serialised)


@functools.cache
def _core() -> ModuleType | None:
    """The extension's functions; None where the package must be asked."""
    package = importlib.util.find_spec(_PACKAGE)
    if _PACKAGE in sys.modules or package is None or package.origin is None:
        return None
    files = sorted((Path(package.origin).parent / "pywrap").glob(f"{_EXTENSION}*.so"))
    found = importlib.util.spec_from_file_location(_MODULE, files[0]) if files else None
    if found is None or found.loader is None:
        return None
    extension = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(extension)
    except ImportError:  # built against libraries that only the package loads
        return None
    sys.modules[_MODULE] = extension  # the package, imported later, finds it there: initialised twice, it crashes at exit
    core: ModuleType = extension.validation
    return core

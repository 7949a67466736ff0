"""The tests here are many small JAX programs: compile them quickly rather than well."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

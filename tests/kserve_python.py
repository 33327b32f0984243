"""The interpreter that has KServe's package, which asks for older releases of libraries than this project uses."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


def kserve_python() -> str:
    """Of STREAMLEARN_KSERVE, of `make kserve`, or this one; skips the test where none has the package."""
    beside = Path(__file__).parents[1] / ".venv-kserve/bin/python"
    interpreter = os.environ.get("STREAMLEARN_KSERVE") or (str(beside) if beside.exists() else sys.executable)
    if interpreter == sys.executable and not (find_spec("kserve") and find_spec("grpc")):
        pytest.skip("KServe's package is not installed: `make kserve` makes an environment of its own for it")
    return interpreter

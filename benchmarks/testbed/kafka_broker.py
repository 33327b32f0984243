"""A real Kafka broker, from the program that development uses."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

BROKER = Path(__file__).parents[2] / "deploy/kafka/broker.py"


def load_broker() -> ModuleType:
    """`deploy/kafka/broker.py`, which is a program and no part of a package."""
    spec = importlib.util.spec_from_file_location("broker", BROKER)
    assert spec, f"{BROKER} is not there"
    assert spec.loader, f"{BROKER} is not there"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

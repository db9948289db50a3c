"""Builders of torchvision's models, shared with the page that lists them."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def heads_table():
    """Load docs/heads_table.py, which builds every model and checks it for the docs."""
    path = Path(__file__).parents[2] / "docs" / "heads_table.py"
    spec = importlib.util.spec_from_file_location("heads_table", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

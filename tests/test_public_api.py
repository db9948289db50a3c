"""The promise of names: what can be imported from layerkit is this list, and nothing else."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import layerkit

DOCS = Path(__file__).parents[1] / "docs"

PUBLIC_NAMES = [
    "Binary",
    "Checkpoint",
    "CheckpointError",
    "ExportError",
    "FolderDataset",
    "FolderReport",
    "Head",
    "HeadError",
    "History",
    "LayerkitError",
    "LayerkitWarning",
    "LearningRates",
    "Loaders",
    "MLPHead",
    "MultiTask",
    "Multiclass",
    "Multilabel",
    "NonFiniteError",
    "PictureError",
    "Prediction",
    "Predictor",
    "PredictorFileError",
    "Preset",
    "Regression",
    "Run",
    "SolvedHead",
    "Split",
    "SplitError",
    "TargetError",
    "__version__",
    "channel_statistics",
    "check_folder",
    "decode",
    "evaluate",
    "find_head",
    "find_lr",
    "fit",
    "folder_loaders",
    "freeze",
    "freeze_backbone",
    "k_fold",
    "load_predictor",
    "parameter_groups",
    "per_batch",
    "plan_split",
    "precompute_features",
    "replace_head",
    "solve_head",
    "split_folder",
    "table_loaders",
    "unfreeze",
    "write_report",
]
DOCUMENTED_NAMES = [name for name in PUBLIC_NAMES if name != "__version__"]


def test_exported_names_are_the_written_list() -> None:
    """`layerkit.__all__` is the written list, in order."""
    assert layerkit.__all__ == PUBLIC_NAMES
    assert sorted(PUBLIC_NAMES) == PUBLIC_NAMES


def test_every_exported_name_exists() -> None:
    """Whatever is listed can be imported, and comes from layerkit itself."""
    for name in DOCUMENTED_NAMES:
        assert getattr(layerkit, name).__module__.startswith("layerkit."), name


def test_package_holds_imports_only() -> None:
    """layerkit/__init__.py is a docstring, imports and `__all__`."""
    docstring, *body = ast.parse(inspect.getsource(layerkit)).body
    assert isinstance(docstring, ast.Expr)
    *imports, names = body
    assert all(isinstance(statement, ast.ImportFrom) for statement in imports)
    assert isinstance(names, ast.Assign)
    assert ast.unparse(names.targets[0]) == "__all__"


@pytest.mark.parametrize("name", DOCUMENTED_NAMES)
def test_every_exported_name_is_documented(name: str) -> None:
    """Each public name has a docstring, and a place in the reference."""
    assert inspect.getdoc(getattr(layerkit, name))
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    assert re.search(rf"^\.\. auto(class|exception|function):: {name}$", pages, flags=re.MULTILINE)

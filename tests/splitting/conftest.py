"""Folders to split, made of tiny files: splitting decodes nothing."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import layerkit

MakeFolder = Callable[..., Path]


def write_files(root: Path, contents: Mapping[str, str]) -> Path:
    for path, text in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Make a folder with so many pictures of each class, all different."""

    def make(name: str = "source", **sizes: int) -> Path:
        contents = {f"{c}/{c}.{i}.jpg": f"{c} {i}" for c, size in sizes.items() for i in range(size)}
        (tmp_path / name).mkdir(exist_ok=True)
        return write_files(tmp_path / name, contents)

    return make


@pytest.fixture
def source(make_folder: MakeFolder) -> Path:
    return make_folder(cat=30, dog=20)


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Read all visible files of a folder, by relative path."""

    def read(root: Path) -> dict[str, str]:
        files = (path for path in root.rglob("*") if not path.is_dir())
        return {
            path.relative_to(root).as_posix(): path.read_text()
            for path in files
            if not path.relative_to(root).as_posix().startswith(".layerkit-split")
        }

    return read


@pytest.fixture
def run_alone() -> Callable[..., subprocess.Popen[str]]:
    """Start a process that knows only `layerkit.splitting`: to import the rest, and torch, takes seconds."""
    package = str(Path(layerkit.__file__).parent)
    head = (
        "import sys, types; package = types.ModuleType('layerkit'); package.__path__ = [sys.argv[1]]; "
        "package.__version__ = '0'; sys.modules['layerkit'] = package; from layerkit.splitting import *; "
    )

    def run(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", head + code, package, *map(str, arguments)]
        return subprocess.Popen(command, text=True, **options)

    return run

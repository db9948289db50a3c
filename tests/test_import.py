"""What `import layerkit` loads, and what it leaves alone."""

import subprocess
import sys

import pytest

HEAVY = {
    "IPython",
    "imagehash",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "pandas",
    "safetensors",
    "scipy",
    "sklearn",
    "timm",
    "torchcodec",
    "torchmetrics",
    "tqdm",
}


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and give what it printed."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def loaded_packages(imports: str) -> set[str]:
    """Give the top-level packages that the imports load in a fresh interpreter."""
    names = run_python(f"import sys\n{imports}\nprint(*{{name.partition('.')[0] for name in sys.modules}})")
    return set(names.split())


@pytest.fixture(scope="module")
def loaded_by_torch() -> set[str]:
    return loaded_packages("import torch, torchvision")


@pytest.mark.parametrize("module", ["layerkit", "layerkit.plots", "layerkit.cli"])
def test_import_loads_no_heavy_package(module: str, loaded_by_torch: set[str]) -> None:
    """The import loads none of the heavy packages that torch and torchvision do not load themselves."""
    assert (loaded_packages(f"import {module}") - loaded_by_torch) & HEAVY == set()


def test_import_draws_and_prints_nothing() -> None:
    """Importing layerkit prints nothing, warns of nothing, and leaves torch's settings and generator alone."""
    state = "torch.get_rng_state().sum().item(), torch.get_num_threads(), torch.is_grad_enabled()"
    code = f"import torch\nbefore = {state}\nimport layerkit\nassert before == ({state})"
    assert run_python(code) == ""

"""What `import layerkit` loads, and what it leaves alone."""

import json
import subprocess
import sys

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


SCRIPT = """
import json, sys
import torch, torchvision

def settings():
    return torch.get_rng_state().sum().item(), torch.get_num_threads(), torch.is_grad_enabled()

before, known = settings(), set(sys.modules)
import layerkit, layerkit.plots, layerkit.cli
assert settings() == before
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - known})))
"""


def test_the_import_is_light_and_silent() -> None:
    """In a fresh interpreter it loads no heavy package, prints and warns of nothing, and leaves torch's settings."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = set(json.loads(done.stdout))  # fails if there is anything else
    assert "layerkit" in loaded
    assert loaded & HEAVY == set()

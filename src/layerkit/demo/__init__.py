"""The whole job on pictures that the package carries, with nothing from the network."""

from layerkit.demo.running import run_demo
from layerkit.demo.weights import packaged_weights

__all__ = ["packaged_weights", "run_demo"]

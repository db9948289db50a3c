"""The whole job on pictures that the package carries, with nothing from the network."""

from layerkit.demo.running import run_demo

__all__ = ["run_demo"]

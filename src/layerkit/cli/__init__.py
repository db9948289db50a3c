"""A thin door onto the functions, for the command line."""

from layerkit.cli.running import main

__all__ = ["main"]

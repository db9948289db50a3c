"""One page that says how good a model is, and where it fails."""

from layerkit.reporting.writing import write_report

__all__ = ["write_report"]

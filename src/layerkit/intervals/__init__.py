"""How far a figure may be off, for the few samples that it was measured on."""

from layerkit.intervals.estimates import Estimate, with_intervals
from layerkit.intervals.figures import confidence_intervals, resampled_intervals

__all__ = ["Estimate", "confidence_intervals", "resampled_intervals", "with_intervals"]

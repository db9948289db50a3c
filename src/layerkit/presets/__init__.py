"""The transforms that a backbone expects: into it for training and evaluation, and back to a picture."""

from layerkit.presets.preset import Preset
from layerkit.presets.statistics import channel_statistics
from layerkit.presets.transforms import Transform

__all__ = ["Preset", "Transform", "channel_statistics"]

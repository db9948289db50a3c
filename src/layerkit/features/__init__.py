"""A frozen backbone run once: its features, and the head that is trained on them."""

from layerkit.features.batches import FeatureBatches
from layerkit.features.frozen_head import FrozenHead, constant_logits, is_one_linear_layer
from layerkit.features.precomputing import precompute_features

__all__ = ["FeatureBatches", "FrozenHead", "constant_logits", "is_one_linear_layer", "precompute_features"]

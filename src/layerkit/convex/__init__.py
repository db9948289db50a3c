"""A linear head on fixed features as the convex problem that it is."""

from layerkit.convex.heads import is_convex, solve

__all__ = ["is_convex", "solve"]

"""The best linear head on a frozen backbone's features, found exactly."""

from layerkit.solving.heads import SolvedHead, solve_head

__all__ = ["SolvedHead", "solve_head"]

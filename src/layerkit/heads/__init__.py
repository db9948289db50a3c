"""Heads: find the layers that know the number of outputs, and replace them."""

from layerkit.heads.finding import Head, Site, find_head
from layerkit.heads.layers import MLPHead
from layerkit.heads.replacing import replace_head
from layerkit.heads.stages import Stage, backbone_stages

__all__ = ["Head", "MLPHead", "Site", "Stage", "backbone_stages", "find_head", "replace_head"]

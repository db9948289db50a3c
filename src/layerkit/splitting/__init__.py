"""Who goes where, then onto disk."""

from layerkit.splitting.folders import split_folder
from layerkit.splitting.folds import k_fold
from layerkit.splitting.manifest import read_manifest
from layerkit.splitting.pictures import is_hidden, is_picture, list_pictures
from layerkit.splitting.planning import plan_split
from layerkit.splitting.table import NearPair, Split, SplitRow

__all__ = [
    "NearPair",
    "Split",
    "SplitRow",
    "is_hidden",
    "is_picture",
    "k_fold",
    "list_pictures",
    "plan_split",
    "read_manifest",
    "split_folder",
]

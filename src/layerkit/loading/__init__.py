"""Files to batches."""

from layerkit.loading.classes import FolderDataset
from layerkit.loading.datasets import PictureDataset
from layerkit.loading.folders import Loaders, folder_loaders
from layerkit.loading.loaders import PictureLoader
from layerkit.loading.tables import table_loaders

__all__ = ["FolderDataset", "Loaders", "PictureDataset", "PictureLoader", "folder_loaders", "table_loaders"]

"""What is wrong with a folder before it is trained on."""

from layerkit.checking.folders import check_folder
from layerkit.checking.records import refuse_misplaced
from layerkit.checking.report import Finding, FolderReport

__all__ = ["Finding", "FolderReport", "check_folder", "refuse_misplaced"]

"""From a folder of pictures to a trained, saved, explained model."""

from layerkit._version import __version__
from layerkit.checking import FolderReport, check_folder
from layerkit.decoding import decode
from layerkit.errors import (
    CheckpointError,
    ExportError,
    HeadError,
    LayerkitError,
    LayerkitWarning,
    NonFiniteError,
    PictureError,
    PredictorFileError,
    SplitError,
    TargetError,
)
from layerkit.evaluating import evaluate
from layerkit.features import precompute_features
from layerkit.freezing import freeze, freeze_backbone, parameter_groups, unfreeze
from layerkit.heads import Head, MLPHead, find_head, replace_head
from layerkit.loading import FolderDataset, Loaders, folder_loaders, table_loaders
from layerkit.predicting import Prediction, Predictor, load_predictor
from layerkit.presets import Preset, channel_statistics
from layerkit.reporting import write_report
from layerkit.solving import SolvedHead, solve_head
from layerkit.splitting import Split, k_fold, plan_split, split_folder
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression
from layerkit.training import Checkpoint, History, LearningRates, Run, find_lr, fit, per_batch

__all__ = [
    "Binary",
    "Checkpoint",
    "CheckpointError",
    "ExportError",
    "FolderDataset",
    "FolderReport",
    "Head",
    "HeadError",
    "History",
    "LayerkitError",
    "LayerkitWarning",
    "LearningRates",
    "Loaders",
    "MLPHead",
    "MultiTask",
    "Multiclass",
    "Multilabel",
    "NonFiniteError",
    "PictureError",
    "Prediction",
    "Predictor",
    "PredictorFileError",
    "Preset",
    "Regression",
    "Run",
    "SolvedHead",
    "Split",
    "SplitError",
    "TargetError",
    "__version__",
    "channel_statistics",
    "check_folder",
    "decode",
    "evaluate",
    "find_head",
    "find_lr",
    "fit",
    "folder_loaders",
    "freeze",
    "freeze_backbone",
    "k_fold",
    "load_predictor",
    "parameter_groups",
    "per_batch",
    "plan_split",
    "precompute_features",
    "replace_head",
    "solve_head",
    "split_folder",
    "table_loaders",
    "unfreeze",
    "write_report",
]

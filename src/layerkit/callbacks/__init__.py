"""What a run can do besides training; any object with some of the same moments will do as well."""

from layerkit.callbacks.averaging import EMA
from layerkit.callbacks.logging import CSVLog, TensorBoard
from layerkit.callbacks.mixing import CutMix, MixUp
from layerkit.callbacks.stopping import EarlyStopping
from layerkit.callbacks.unfreezing import Unfreeze
from layerkit.training.moments import State

__all__ = ["EMA", "CSVLog", "CutMix", "EarlyStopping", "MixUp", "State", "TensorBoard", "Unfreeze"]

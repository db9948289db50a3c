"""What it takes to run it again: the settings, and what was installed."""

import dataclasses
import os
import platform
from contextlib import suppress
from typing import Any

import numpy as np
import PIL

from layerkit.errors import HeadError
from layerkit.heads.finding import unwrapped
from layerkit.loading.datasets import PictureDataset
from layerkit.predicting import Predictor
from layerkit.predicting.architectures import find_architecture
from layerkit.predicting.programs import describe_preset
from layerkit.predicting.writing import versions
from layerkit.reporting.html import Html, table
from layerkit.training import Run

_MOST_NAMES = 50


def settings_table(run: Run | None, predictor: Predictor, loader: Any) -> Html:
    """List what was chosen, as far as it is known."""
    rows = [*_of_model(predictor), *_of_loader(loader)]
    if run is not None:
        rows += _of_run(run)
    return table("Settings", ("setting", "value"), rows, words=2)


def versions_table() -> Html:
    """List the versions of what takes part."""
    installed = {
        **versions(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    return table("Versions", ("package", "version"), installed.items(), words=2)


def _of_model(predictor: Predictor) -> list[tuple[str, str]]:
    parameters = sum(parameter.numel() for parameter in predictor.model.parameters())
    settings = predictor.task.settings()
    try:
        found = predictor.architecture or find_architecture(unwrapped(predictor.model)[1])
    except HeadError:  # of no architecture that anybody else has either
        found = None
    name = type(predictor.model).__name__ if found is None else f"torchvision's {found.builder}"
    return [
        ("model", f"{name}, {parameters:,} parameters"),
        ("task", f"{type(predictor.task).__name__}({_arguments(settings)})"),
        ("preset", f"Preset({_arguments(describe_preset(predictor.preset))})"),
    ]


def _of_loader(loader: Any) -> list[tuple[str, str]]:
    dataset = getattr(loader, "dataset", None)
    found = {
        "folder": getattr(dataset, "root", None) or _folder_of(dataset),
        "batch size": getattr(getattr(loader, "batch_sampler", None), "batch_size", None),
        "seed of the data": getattr(dataset, "seed", None),
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]


def _folder_of(dataset: Any) -> str | None:
    if not isinstance(dataset, PictureDataset) or not len(dataset):
        return None
    folders = {str(path.absolute().parent) for path in dataset.paths}
    with suppress(ValueError):  # on several drives
        return os.path.normpath(os.path.commonpath(folders))
    return None


def _of_run(run: Run) -> list[tuple[str, str]]:
    phases = [row["phase"] for row in run.history]
    epochs = f"{len(phases)}, the first {phases.count('frozen')} with a frozen backbone"
    kept = {
        field.name.replace("_", " "): getattr(run, field.name)
        for field in dataclasses.fields(run)
        if field.name not in ("history", "reason", "settings")
    }
    asked = [("asked of fit()", _plain(run.settings))] if run.settings else []
    return [
        ("epochs", epochs),
        *asked,
        *((name, _plain(value)) for name, value in kept.items() if value is not None),
    ]


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return (
        ", ".join(f"{name}={one}" for name, one in value.items()) if isinstance(value, dict) else str(value)
    )


def _arguments(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in settings.items())


def _short(value: Any) -> str:
    long = isinstance(value, list) and len(value) > _MOST_NAMES
    return f"[{', '.join(map(repr, value[:3]))}, ... {len(value)} in all]" if long else repr(value)

"""Write the report: measure, draw, and put it all on one page."""

from collections.abc import Iterable
from copy import deepcopy
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, SequentialSampler

from layerkit.checking import FolderReport, check_folder
from layerkit.errors import rounded
from layerkit.evaluating import Measured, measure
from layerkit.intervals import Estimate
from layerkit.loading.classes import FolderDataset
from layerkit.loading.loaders import PictureLoader
from layerkit.plots.axes import new_axes
from layerkit.predicting import Predictor
from layerkit.predicting.ranks import write_once
from layerkit.reporting.figures import figure, figures
from layerkit.reporting.html import Html, details, element, page, table
from layerkit.reporting.parts import Sections, sections_of
from layerkit.reporting.samples import Samples
from layerkit.reporting.settings import settings_table, versions_table
from layerkit.saving import atomic_path
from layerkit.tasks import MultiTask, Task
from layerkit.training import Run

_MOST_FINDINGS = 100


def write_report(
    run: Run | None,
    predictor: Predictor,
    loader: Iterable[Any],
    path: str | Path,
    *,
    check: FolderReport | bool = True,
    title: str | None = None,
) -> None:
    """Write one HTML page that says how good a model is, and where it fails.

    Parameters
    ----------
    run : Run or None
        What `fit` gave back, for the curves; ``None`` leaves them out.
    predictor : Predictor
        The model with its task and preset.
    loader : iterable of (inputs, targets)
        Held-out pictures, such as ``data.valid`` or, better, ``data.test``; read once.
    path : str or Path
        The file, replaced in one step if it is there.
    check : FolderReport or bool
        What `check_folder` has found; ``True`` runs it where the loader reads a folder, which decodes all of
        its pictures, and ``False`` leaves it out.
    title : str, optional
        The heading.

    Raises
    ------
    ValueError
        The loader gives nothing, or its targets do not fit the task.

    Notes
    -----
    The page needs no network and no other file, and holds no script: it can be sent by mail, and opens
    anywhere. It follows the reader's choice of light or dark. Pictures are those that the model saw, cropped;
    they are in the page, so send it only to those who may see them.

    Of a loader that shuffles, single pictures are shown only if it is one of layerkit's. Under ``torchrun``
    every process must call it: all measure, and the first writes.

    Examples
    --------
    >>> write_report(run, predictor, data.valid, "report.html")  # doctest: +SKIP
    """
    if not isinstance(predictor, Predictor):
        raise TypeError(
            f"`predictor` is a {type(predictor).__name__}; expected a Predictor: Predictor(model, task, data.preset)."
        )
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"`path` is {str(path)!r}; expected a name that ends in .html, which the report is.")
    if isinstance(loader, PictureLoader) and loader.batch_sampler.shuffle:
        loader = loader.unshuffled()
    device = next((parameter.device for parameter in predictor.model.parameters()), "cpu")
    measured = measure(predictor.model, predictor.task, loader, device=device)
    write_once(path, partial(_write, Path(path), run, predictor, loader, measured, check, title))


def _write(
    path: Path,
    run: Run | None,
    predictor: Predictor,
    loader: Iterable[Any],
    measured: Measured,
    check: FolderReport | bool,
    title: str | None,
) -> None:
    sections: Sections = [("How good it is", _summary(run, measured))]
    if run is not None and len(run.history):
        sections.append(("Training", _training(run)))
    sections += _answers(predictor, loader, measured)
    found = _checked(loader, check)
    if found is not None:
        sections.append(("What the folder check found", _findings(found)))
    sections.append(("To run it again", [settings_table(run, predictor, loader), versions_table()]))
    title = title or f"{type(predictor.model).__name__}: {type(predictor.task).__name__} report"
    text = page(title, [element("p", _intro(measured, loader), class_="soft")], sections)
    with atomic_path(path) as temporary:
        # A file's name may hold bytes that are no text; they are shown as such.
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def _intro(measured: Measured, loader: Iterable[Any]) -> str:
    number = "" if measured.logits is None else f"{len(measured.logits):,} "
    root = _root_of(loader)
    of = "" if root is None else f" of {root.parent.name}/{root.name}"
    return f"Measured on {number}pictures{of} on {date.today():%d %B %Y} with layerkit."


def _root_of(loader: Iterable[Any]) -> Path | None:
    root = getattr(getattr(loader, "dataset", None), "root", None)
    return Path(root).absolute() if isinstance(root, str | Path) else None


def _summary(run: Run | None, measured: Measured) -> list[Html]:
    rows = [
        (name.replace("_", " "), rounded(value), _interval(value)) for name, value in measured.figures.items()
    ]
    content = [
        table("Loss and metrics on the pictures of this report", ("figure", "value", "95% confidence"), rows),
        element(
            "p",
            "The confidence interval says how much a figure would vary with other pictures of the same kind.",
            class_="soft",
        ),
    ]
    if run is not None:
        content.insert(0, element("p", f"The model holds the weights of {run.reason}."))
    if run is not None and run.monitor is not None:
        content.append(
            element(
                "p",
                "If these pictures also chose the best epoch, the figures are a little too good; the last word "
                "is that of a test part that nothing has looked at.",
                class_="soft",
            )
        )
    return content


def _interval(value: Estimate) -> str:
    if value.low is None or value.high is None:
        return "-"
    return f"{rounded(value.low)} to {rounded(value.high)}"


def _training(run: Run) -> list[Html]:
    last = run.history[-1]
    losses = ", ".join(f"{key} {last[key]:.3g}" for key in last if key.startswith(("train_", "valid_")))
    curves = figure(
        lambda: run.history.plot(ax=new_axes((5.2, 3.6))),
        f"Curves over {len(run.history)} epochs; after the last: {losses}. The table below holds all.",
        f"The kept weights are those of epoch {run.best_epoch}.",
    )
    keys = [key for key in last if key not in ("epoch", "images_per_second")]
    rows = [(row["epoch"], *(_cell(row.get(key)) for key in keys)) for row in run.history]
    columns = ("epoch", *(key.replace("_", " ") for key in keys))
    return [figures(curves), details("All epochs in a table", table("Each epoch", columns, rows))]


def _cell(value: Any) -> str:
    return rounded(value) if isinstance(value, float) else str("-" if value is None else value)


def _answers(predictor: Predictor, loader: Iterable[Any], measured: Measured) -> Sections:
    if measured.logits is None:
        said = "The model gives more than one row of outputs a picture, of which this page shows the figures only."
        return [("Answers", [element("p", said)])]
    task, logits, target = deepcopy(predictor.task).cpu(), measured.logits, measured.target
    samples = _samples(loader, predictor)
    if not isinstance(task, MultiTask):
        return sections_of(task, logits, target, samples)
    made: Sections = []
    parts: dict[str, Task] = dict(task.parts.items())  # type: ignore[arg-type]
    sizes = [part.out_features for part in parts.values()]
    for (name, part), share in zip(parts.items(), torch.split(logits, sizes, dim=1), strict=True):
        made += sections_of(part, share, target[name], samples, name)
    return made


def _samples(loader: Iterable[Any], predictor: Predictor) -> Samples | None:
    """Give the pictures behind the answers, where the order of the loader is known."""
    if isinstance(loader, DataLoader) and (
        isinstance(loader, PictureLoader) or isinstance(loader.sampler, SequentialSampler)
    ):
        return Samples(loader.dataset, predictor.preset)
    return None


def _checked(loader: Iterable[Any], check: FolderReport | bool) -> FolderReport | None:
    if isinstance(check, FolderReport):
        return check
    dataset = getattr(loader, "dataset", None)
    if not check or not isinstance(dataset, FolderDataset):
        return None
    parent = dataset.root.parent
    return check_folder(parent if (parent / "train").is_dir() else dataset.root)


def _findings(found: FolderReport) -> list[Html]:
    said = f"{found.num_pictures:,} pictures in {found.root} were looked at"
    if not found.rows:
        return [element("p", f"{said}, and nothing wrong was found.")]
    counts = [(kind.replace("_", " "), number) for kind, number in found.counts.items()]
    rows = [
        (row.path, row.severity, row.kind.replace("_", " "), row.detail)
        for row in found.rows[:_MOST_FINDINGS]
    ]
    every = table("Findings, the worst first", ("file", "severity", "kind", "detail"), rows, words=4)
    return [
        element("p", f"{said}."),
        table("How often each kind was found", ("kind", "number"), counts),
        details(f"{'The first ' if len(found.rows) > len(rows) else ''}{len(rows)} by name", every),
    ]

"""A trained model with all it needs to answer: pictures in, predictions out."""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Any, get_args, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from layerkit.distributed import is_writer
from layerkit.errors import NonFiniteError, PictureError, count_of, shown, warn
from layerkit.heads.families import family_of
from layerkit.heads.finding import unwrapped
from layerkit.loading.datasets import OnError
from layerkit.predicting.answers import Prediction, Predictions, answers, as_rows
from layerkit.predicting.architectures import Architecture
from layerkit.predicting.exporting import check_suffix, draw_pictures, write_program
from layerkit.predicting.modes import evaluation_mode
from layerkit.predicting.pictures import Picture, collect, path_of, read_pixels
from layerkit.predicting.programs import Program, named_answers
from layerkit.predicting.ranks import write_once
from layerkit.predicting.writing import check_name, describe_program, pack_predictor, refuse_unprepared
from layerkit.presets import Preset
from layerkit.saving import copies, write_tensors
from layerkit.tasks import Task
from layerkit.tasks.classes import shorten
from layerkit.tasks.outputs import split_output

_BATCHES_AHEAD = 1
_SECONDS_UNTIL_PROGRESS = 2.0


class Predictor:
    """Answer for pictures of any kind with a trained model.

    Parameters
    ----------
    model : torch.nn.Module
        Used where it is, never copied: move it, and the predictor answers there.
    task : Task
        What it was trained for.
    preset : Preset
        How pictures enter it: ``data.preset``.
    architecture : (str, dict), optional
        A builder of torchvision by name and its arguments, such as ``("resnet18", {"num_classes": 2})``,
        where `save` is not to find them itself.

    Notes
    -----
    Several threads may call one predictor at once, or several predictors over one model. While they answer, the
    model is in evaluation mode; then it is put back as it was, so a predictor made in the middle of training does
    no harm.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> from layerkit.heads import replace_head
    >>> from layerkit.tasks import Multiclass
    >>> task = Multiclass(["cat", "dog"])
    >>> predictor = Predictor(replace_head(resnet18(), task), task, Preset(64))
    >>> predictor(torch.zeros(3, 80, 100, dtype=torch.uint8))
    Prediction(cat 0.500)
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        preset: Preset,
        *,
        architecture: tuple[str, Mapping[str, Any]] | None = None,
    ) -> None:
        _check_kinds(model, task, preset)
        self.model = model
        self.task = task
        self.preset = preset
        self.architecture = None if architecture is None else _recipe(architecture)
        self._transform = preset.eval()

    def __repr__(self) -> str:
        return f"Predictor({type(self.model).__name__}, {self.task}, {self.preset})"

    @overload
    def __call__(
        self,
        source: bytes | Image.Image | np.ndarray[Any, Any] | Tensor,
        *,
        batch_size: int = 32,
        errors: OnError = "raise",
    ) -> Prediction: ...
    @overload
    def __call__(
        self, source: list[Any] | tuple[Any, ...], *, batch_size: int = 32, errors: OnError = "raise"
    ) -> Predictions: ...
    @overload
    def __call__(
        self, source: str | Path, *, batch_size: int = 32, errors: OnError = "raise"
    ) -> Prediction | Predictions: ...
    def __call__(
        self,
        source: Picture | list[Any] | tuple[Any, ...],
        *,
        batch_size: int = 32,
        errors: OnError = "raise",
    ) -> Prediction | Predictions:
        """Answer for one picture or for many.

        Parameters
        ----------
        source : str, Path, bytes, PIL picture, array, tensor, or a list of these
            A picture file, its contents, a picture, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W); or a
            list of such. A path may also be a folder, read in all its depth, or a pattern such as
            ``"pets/**/*.jpg"``.
        batch_size : int
            How many pictures go through the model at once.
        errors : {"raise", "skip"}
            With ``"skip"``, a picture among many that cannot be decoded is left out of the answers, and a
            warning names it; the others' ``path`` tells which they are.

        Returns
        -------
        Prediction or Predictions
            One answer for one picture; a list, in the order given, for a list, a folder (sorted by path) or a
            pattern.

        Raises
        ------
        FileNotFoundError
            There is no such file, folder, or match.
        PictureError
            A picture cannot be decoded; the message names it.
        TypeError, ValueError
            It is no picture, the folder holds none, or the model's outputs do not fit the task.
        NonFiniteError
            The model answers with numbers that are not finite.
        RuntimeError
            The task has not seen the training targets: see `Task.prepare`.

        Warns
        -----
        LayerkitWarning
            Pictures were left out.
        """
        if errors not in get_args(OnError):
            raise ValueError(
                f"`errors` is {errors!r}; expected 'raise' or 'skip'. With 'skip', pictures that cannot be read are "
                "left out, and a warning names them."
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(
                f"`batch_size` is {batch_size!r}; expected a whole number of at least 1, such as 32."
            )
        refuse_unprepared(self.task)
        sources = collect(source)
        if sources is None:
            return self._answer([source], self._pixels(source).unsqueeze(0))[0]
        return self._answer_all(sources, batch_size, errors)

    def logits(self, pixels: Tensor) -> Tensor:
        """Run the model on pictures at the crop size.

        Parameters
        ----------
        pixels : Tensor, shape (N, 3, H, W), uint8
            As the preset crops them, not normalised.

        Returns
        -------
        Tensor, shape (N, task.out_features), float32
            Raw logits, on the model's device.
        """
        like = next((p for p in self.model.parameters() if p.is_floating_point()), torch.empty(0))
        inputs = self.preset.normalize(pixels.to(like.device)).to(like.dtype)
        with evaluation_mode(self.model), torch.no_grad():
            logits, _ = split_output(self.model(inputs))
        return as_rows(logits, len(pixels), self.task)

    def save(self, path: str | Path) -> None:
        """Save all that is needed to answer again, in one safetensors file.

        Parameters
        ----------
        path : str or Path
            The file, replaced in one step if it is there. `layerkit.load_predictor` reads it.

        Raises
        ------
        ValueError
            The name ends like that of another kind of file, such as ``.pt``; the architecture that was given does not
            make this model, the task is not one of layerkit's, or the model's outputs do not fit it or are not finite.

        Warns
        -----
        LayerkitWarning
            No builder of torchvision makes this model, so loading it needs ``model=``.

        Notes
        -----
        The file holds the weights in their own dtypes, the task with what it learned from the targets, the
        preset, the versions, and the architecture: a builder of torchvision, found by structure and proven by
        building the model anew and comparing outputs. Under ``torchrun`` the first process writes, and all
        return when the file is there.
        """
        check_name(path)
        with evaluation_mode(self.model):
            tensors, header = pack_predictor(self.model, self.task, self.preset, self.architecture)
        write_once(path, partial(write_tensors, path, copies(tensors), header))

    def export(self, path: str | Path, *, pictures: Picture | list[Any] | None = None) -> None:
        """Export the whole way from pixels to answers, to be run without layerkit.

        Parameters
        ----------
        path : str or Path
            The file, replaced in one step if it is there: ``.onnx`` for ONNX, ``.pt2`` for ``torch.export``.
        pictures : str, Path, list or other source, optional
            Real pictures, as a call of the predictor takes them, on which the program must answer as the
            model does. By default six are drawn.

        Raises
        ------
        ValueError
            The name ends in another suffix.
        ExportError
            torch cannot export this model, or the exported program answers otherwise; no file is left.
        ImportError
            ONNX lacks its packages: ``pip install layerkit[export]``.

        Notes
        -----
        The program takes uint8 pixels (N, 3, H, W) at the crop size, for any N, normalises them itself, and
        gives a dict: ``probabilities`` (of a `Binary` those of the positive class, (N, 1)) or ``values`` in
        the user's units, with the part's name before it (``size_values``) for each part of a `MultiTask`.
        Resizing and cropping stay outside, since torch exports no resizing from every size. The names of the
        classes, the preset, the decision's threshold and the versions are in the metadata, as JSON.

        It computes in float32 on any machine, also where the model was trained in half precision. Before it
        is kept, the file itself is run, ``.onnx`` in onnxruntime, and its probabilities must agree to 1e-4, or
        values to 1e-4 of the targets' standard deviation.
        """
        path = Path(path)
        check_suffix(path)
        refuse_unprepared(self.task)
        sources = None if pictures is None else collect(pictures) or [pictures]
        pixels = draw_pictures(self.preset.crop) if sources is None else self._stack(sources)
        with evaluation_mode(self.model):
            program = Program(self.model, self.task, self.preset)
        half = next((p.dtype for p in self.model.parameters()), torch.float32) != torch.float32
        with torch.no_grad():
            expected = program(pixels) if half else self._read(pixels)
        metadata = describe_program(self.task, self.preset)
        write_once(path, partial(write_program, path, program, metadata, pixels, expected))

    def _read(self, pixels: Tensor) -> dict[str, Tensor]:
        """Give the task's reading of the model's answers, on the host."""
        logits = torch.cat([self.logits(batch).cpu() for batch in torch.split(pixels, 32)])
        return named_answers(self.task, deepcopy(self.task).to("cpu").activate(logits))

    def _stack(self, sources: list[Any]) -> Tensor:
        return torch.cat([_stacked(reading) for _, reading in self._read_ahead(sources, 32)])

    def _answer_all(self, sources: list[Any], batch_size: int, errors: OnError) -> Predictions:
        from tqdm import tqdm

        found = Predictions()
        unreadable: list[str] = []
        bar = tqdm(
            total=len(sources),
            unit=" pictures",
            delay=_SECONDS_UNTIL_PROGRESS,
            leave=False,
            disable=None if is_writer() else True,
        )
        with bar:
            for batch, reading in self._read_ahead(sources, batch_size):
                bar.update(len(batch))
                if errors == "skip":
                    failed = [isinstance(future.exception(), PictureError) for future in reading]
                    unreadable += map(_name_of, compress(batch, failed))
                    batch, reading = (list(compress(each, map(not_, failed))) for each in (batch, reading))
                if batch:
                    found += self._answer(batch, _stacked(reading))
        if unreadable:
            warn(
                f"{len(unreadable)} of {count_of(len(sources), 'picture')} could not be read and have no answer: "
                f"{shorten(unreadable)}. Remove or replace them."
            )
        return found

    def _answer(self, sources: list[Any], pixels: Tensor) -> list[Prediction]:
        logits = self.logits(pixels)
        if not logits.isfinite().all():
            spoiled = next(n for n, row in enumerate(logits) if not row.isfinite().all())
            values = shorten([str(value) for value in logits[spoiled].tolist()])
            raise NonFiniteError(
                f"The model answers {values} for {_name_of(sources[spoiled])}; expected finite numbers. Its weights "
                "are spoiled, or its precision is too low: train it anew, or load it from a file that was saved before."
            )
        learned = next((value for value in self.task.state_dict().values()), logits)
        return answers(self.task, logits.to(learned.device), map(path_of, sources))

    def _pixels(self, source: Any) -> Tensor:
        return read_pixels(source, self._transform)

    def _read_ahead(
        self, sources: list[Any], batch_size: int
    ) -> Iterator[tuple[list[Any], list[Future[Tensor]]]]:
        """Read the next batch in threads while the model works on this one: decoding holds no lock."""
        waiting: deque[tuple[list[Any], list[Future[Tensor]]]] = deque()
        with ThreadPoolExecutor(thread_name_prefix="layerkit-read") as pool:
            for start in range(0, len(sources), batch_size):
                batch = sources[start : start + batch_size]
                waiting.append((batch, [pool.submit(self._pixels, source) for source in batch]))
                if len(waiting) > _BATCHES_AHEAD:
                    yield waiting.popleft()
            yield from waiting


def _stacked(reading: list[Future[Tensor]]) -> Tensor:
    return torch.stack([future.result() for future in reading])


def _name_of(source: Any) -> str:
    return path_of(source) or f"a {type(source).__name__}"


def _check_kinds(model: Any, task: Any, preset: Any) -> None:
    if not isinstance(model, nn.Module) or isinstance(model, Task):
        raise TypeError(
            f"`model` is {shown(model)}; expected a torch.nn.Module with a trained head, which comes first: "
            "Predictor(model, task, preset)."
        )
    _, inner = unwrapped(model)
    known = family_of(inner)
    if known is not None and known[1].kind != "classification":
        raise TypeError(
            f"`model` is a {type(inner).__name__}, which is made for {known[1].kind}; expected a model with one "
            "row of outputs a picture, such as torchvision.models.resnet18(). Call the model itself, and keep "
            "its weights with safetensors.torch.save_model(model, path)."
        )
    if not isinstance(task, Task):
        raise TypeError(
            f"`task` is {shown(task)}; expected a task such as Multiclass(data.classes), which knows how to read "
            "the model's outputs. For a model trained with torch.nn.CrossEntropyLoss() that is Multiclass."
        )
    if not isinstance(preset, Preset):
        raise TypeError(
            f"`preset` is {shown(preset)}; expected a Preset: data.preset of the loaders it was trained on, or "
            "Preset.from_weights(ResNet18_Weights.DEFAULT)."
        )


def _recipe(architecture: Any) -> Architecture:
    try:
        name, arguments = architecture
        json.dumps(dict(arguments))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`architecture` is {architecture!r} ({error}); expected the name of a torchvision builder and "
            "a dict of plain arguments, such as ('resnet18', {'num_classes': 2})."
        ) from error
    return Architecture(name, dict(arguments))

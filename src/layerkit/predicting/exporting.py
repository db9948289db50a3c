"""The same answers from a program that needs no layerkit: torch.export and ONNX."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from layerkit.errors import ExportError, suggestion
from layerkit.predicting.programs import INPUT, Program, units_of
from layerkit.saving import atomic_path

SUFFIXES = (".onnx", ".pt2")
METADATA = "layerkit"
"""The key of the metadata in an ONNX file."""
METADATA_FILE = "layerkit.json"
"""The name of the metadata among the extra files of a ``.pt2`` file."""

_ONE_AT_A_TIME = Lock()
"""torch.export traces with state that all threads share."""

_TOLERANCE = 1e-4
_BATCH = 32

Answerer = Callable[[Tensor], dict[str, Tensor]]


def check_suffix(path: Path) -> None:
    """Refuse a file that is of neither format, and one that needs packages which are not there."""
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"`path` is {str(path)!r}; expected a name that ends in .onnx or .pt2.{suggestion(path.suffix, SUFFIXES)} "
            "ONNX runs everywhere, .pt2 in torch. To load it in layerkit again, use predictor.save(path)."
        )
    if path.suffix == ".onnx":
        try:
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"Exporting to ONNX needs the package {error.name}, which is not installed. Install it with "
                "pip install 'layerkit[export]', or export to .pt2, which needs nothing else."
            ) from error


@torch.inference_mode()
def write_program(
    path: Path, program: Program, metadata: dict[str, Any], pixels: Tensor, expected: dict[str, Tensor]
) -> None:
    """Export, run the file on the pictures, and keep it only if it answers as expected."""
    text = json.dumps(metadata)
    with atomic_path(path) as temporary:
        try:
            answerer = _write(temporary, program, pixels, text)
            answers = _answer(answerer, pixels)
        except Exception as error:  # torch, onnxscript and onnxruntime have errors of many kinds
            raise ExportError(
                f"{type(program.model).__name__} cannot be exported to {path.suffix} "
                f"({type(error).__name__}: {_first_line(error)}); expected a model whose forward() torch.export "
                "can follow. Try the other format, or a model without branches that depend on pixels."
            ) from error
        _check_answers(path, program, answers, expected)


def _write(path: Path, program: Program, pixels: Tensor, text: str) -> Answerer:
    # With a batch of one, torch.export would take that 1 for a constant.
    sample = pixels[:1].expand(2, -1, -1, -1).clone()
    with _ONE_AT_A_TIME, torch.inference_mode(False):
        exported = torch.export.export(program, (sample,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        return (_write_onnx if path.suffix == ".onnx" else _write_pt2)(path, exported, text)


def _write_pt2(path: Path, exported: torch.export.ExportedProgram, text: str) -> Answerer:
    torch.export.save(exported, path, extra_files={METADATA_FILE: text})
    loaded: Answerer = torch.export.load(path).module()
    return loaded


def _write_onnx(path: Path, exported: torch.export.ExportedProgram, text: str) -> Answerer:
    import onnxruntime

    names = list(exported.call_spec.out_spec.context)  # the keys of the dict, in the order of the outputs
    program = torch.onnx.export(exported, dynamo=True, verbose=False, input_names=[INPUT], output_names=names)
    assert program is not None
    program.model.metadata_props[METADATA] = text
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(pixels: Tensor) -> dict[str, Tensor]:
        outputs = session.run(names, {INPUT: pixels.numpy()})
        return dict(zip(names, map(torch.from_numpy, outputs), strict=True))

    return answer


def _answer(answerer: Answerer, pixels: Tensor) -> dict[str, Tensor]:
    """Run the first picture alone and the others in batches, so that two sizes of batch are tried."""
    batches = [answerer(batch) for batch in (pixels[:1], *torch.split(pixels[1:], _BATCH)) if len(batch)]
    return {name: torch.cat([answers[name] for answers in batches]) for name in batches[0]}


def _check_answers(
    path: Path, program: Program, answers: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    units = units_of(program.task)
    for name, wanted in expected.items():
        difference = (answers[name] - wanted).abs()
        allowed = _TOLERANCE * units[name] + 1e-6 * wanted.abs()  # the latter is float32's rounding
        if not bool((difference <= allowed).all()):
            row = int((difference - allowed).reshape(len(wanted), -1).amax(1).argmax())
            raise ExportError(
                f"The program exported to {path.suffix} answers {answers[name][row].tolist()} where the model "
                f"answers {wanted[row].tolist()} ({name} of picture {row}); expected the same within "
                f"{_TOLERANCE:g}. {path} was not written: try the other format, or another version of torch."
            )


def draw_pictures(size: tuple[int, int]) -> Tensor:
    """Draw pictures to compare on where none are given: noise, slopes, and plain ones (6, 3, H, W)."""
    height, width = size
    noise = torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0))
    down = torch.linspace(0, 255, height).view(1, 1, -1, 1).expand(1, 3, height, width)
    along = torch.linspace(255, 0, width).view(1, 1, 1, -1).expand(1, 3, height, width)
    plain = torch.tensor([0.0, 255.0]).view(2, 1, 1, 1).expand(2, 3, height, width)
    return torch.cat([noise.float(), down, along, plain]).to(torch.uint8)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]

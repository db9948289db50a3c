"""What is done with a saved predictor: ``layerkit evaluate``, ``predict``, ``report`` and ``export``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerkit.cli.options import add_errors
from layerkit.errors import count_of

if TYPE_CHECKING:
    from layerkit.loading.loaders import PictureLoader
    from layerkit.predicting import Predictor

_CONTROLS = {number: repr(chr(number))[1:-1] for number in (*range(32), 127)}
"""A name may hold a newline, which would begin another answer."""


def add_evaluate(commands: Any) -> None:
    """Add the command to the parser's."""
    evaluate = commands.add_parser(
        "evaluate",
        help="measure a saved predictor on held-out pictures",
        description="Print the loss and the metrics, with their 95% confidence intervals in parentheses.",
        epilog="example: layerkit evaluate pets.safetensors pets/test",
    )
    _add_predictor(evaluate)
    _add_held_out(evaluate)
    evaluate.set_defaults(run=_evaluate)


def add_predict(commands: Any) -> None:
    """Add the command to the parser's."""
    predict = commands.add_parser(
        "predict",
        help="answer for pictures",
        description="Print one line a picture: the file, the answer, and its probability.",
        epilog="example: layerkit predict pets.safetensors new/*.jpg --csv answers.csv",
    )
    _add_predictor(predict)
    predict.add_argument("sources", nargs="+", metavar="SOURCE", help="picture files, folders or globs")
    predict.add_argument("--csv", metavar="FILE", help="write the answers to a table instead")
    add_errors(predict, "leave pictures out that cannot be read, and name them")
    predict.set_defaults(run=_predict)


def add_report(commands: Any) -> None:
    """Add the command to the parser's."""
    report = commands.add_parser(
        "report",
        help="write a page that says how good a saved predictor is, and where it fails",
        description="Measure on held-out pictures, and write one HTML page that opens anywhere.",
        epilog="example: layerkit report pets.safetensors pets/test --out report.html",
    )
    _add_predictor(report)
    _add_held_out(report)
    report.add_argument("--out", default="report.html", metavar="FILE", help="the page (%(default)s)")
    report.add_argument("--title", metavar="TEXT", help="its heading (by default, the model and the task)")
    report.set_defaults(run=_report)


def add_export(commands: Any) -> None:
    """Add the command to the parser's."""
    export = commands.add_parser(
        "export",
        help="write a saved predictor as a program that needs no layerkit",
        description="Write a torch.export program (.pt2) or ONNX (.onnx), checked against the original.",
        epilog="example: layerkit export pets.safetensors pets.onnx",
    )
    _add_predictor(export)
    export.add_argument("out", help="a name that ends in .pt2 or .onnx")
    export.set_defaults(run=_export)


def _add_predictor(parser: Any) -> None:
    parser.add_argument("predictor", help="a file that layerkit train or Predictor.save wrote")


def _add_held_out(parser: Any) -> None:
    parser.add_argument("root", help="a folder of class folders, or one with test, valid or val in it")
    add_errors(parser, "put another picture in the place of one that cannot be read, and name it")


def _evaluate(given: argparse.Namespace) -> int:
    from layerkit.evaluating import evaluate

    predictor, loader = _opened(given)
    print(f"{count_of(len(loader.dataset), 'picture')} of {_held_out(Path(given.root))}")
    for name, value in evaluate(predictor.model, predictor.task, loader).items():
        print(f"{name:<20} {value!r}")
    return 0


def _predict(given: argparse.Namespace) -> int:
    from layerkit.predicting import load_predictor
    from layerkit.predicting.answers import refuse_picture
    from layerkit.predicting.pictures import collect
    from layerkit.saving import check_target

    if given.csv:
        refuse_picture(check_target(given.csv))
    predictor = load_predictor(given.predictor)
    pictures = [picture for source in given.sources for picture in collect(source) or [source]]
    answers = predictor(pictures, errors=given.errors)
    if given.csv:
        answers.to_csv(given.csv)
        print(f"{count_of(len(answers), 'answer')} written to {given.csv}")
    else:
        for answer in answers:
            print(f"{str(answer.path).translate(_CONTROLS)}\t{answer.text.translate(_CONTROLS)}")
    return 0


def _report(given: argparse.Namespace) -> int:
    from layerkit.reporting import write_report
    from layerkit.saving import check_target

    check_target(given.out)
    predictor, loader = _opened(given)
    write_report(None, predictor, loader, given.out, title=given.title)
    print(f"written to {given.out}")
    return 0


def _export(given: argparse.Namespace) -> int:
    from layerkit.predicting import load_predictor

    load_predictor(given.predictor).export(given.out)
    print(f"written to {given.out}")
    return 0


def _opened(given: argparse.Namespace) -> "tuple[Predictor, PictureLoader]":
    """Load the answerer, and the held-out pictures under its own classes."""
    from layerkit.loading import FolderDataset
    from layerkit.loading.loaders import PictureLoader
    from layerkit.predicting import load_predictor
    from layerkit.tasks import Binary, Multiclass

    predictor = load_predictor(given.predictor)
    if not isinstance(predictor.task, Binary | Multiclass):
        raise ValueError(
            f"{given.predictor} answers a {type(predictor.task).__name__}, whose targets are in a table; expected "
            "a Multiclass or a Binary, as class folders are for. In Python, evaluate() and write_report() take "
            "the loaders of table_loaders()."
        )
    dataset = FolderDataset(_held_out(Path(given.root)), predictor.preset.eval(), errors=given.errors)
    classes = predictor.task.classes
    if dataset.classes != classes:
        raise ValueError(
            f"the class folders are {', '.join(dataset.classes)}, and {given.predictor} answers "
            f"{classes if classes is None else ', '.join(classes)}; expected the same: give the folder that was "
            "split with the training pictures"
        )
    return predictor, PictureLoader(dataset, batch_size=32, shuffle=False)


def _held_out(root: Path) -> Path:
    """Take the part that training has not seen, where there are parts."""
    for name in ("test", "valid", "val", "validation"):
        if (root / name).is_dir():
            return root / name
    return root

"""`layerkit demo`: run the ten lines, show what they gain, load the predictor back, and draw its answers."""

import random
import sys
import time
import warnings
from pathlib import Path

import torch
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from layerkit import (
    Multiclass,
    Predictor,
    Preset,
    Run,
    fit,
    folder_loaders,
    load_predictor,
    replace_head,
    write_report,
)
from layerkit.decoding import decode
from layerkit.demo.lines import train
from layerkit.demo.weights import packaged_weights
from layerkit.distributed import is_writer
from layerkit.plots import save_figure, show
from layerkit.splitting import list_pictures

PICTURES = Path(__file__).parent / "pictures"


def run_demo(folder: str | Path = "layerkit-demo") -> Run:
    """Train, save and show a model on the 386 public-domain pictures that the package carries.

    Parameters
    ----------
    folder : str or Path
        Where the results go: ``curves.png``, ``predictions.png``, ``predictor.safetensors`` and
        ``report.html``, beside the split pictures and the run's checkpoint. Called again, it goes on from
        what is there.

    Returns
    -------
    Run
        That of the ten lines.
    """
    folder = Path(folder)
    started = time.perf_counter()
    with packaged_weights(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _say(
            f"training a SqueezeNet on {len(list_pictures(PICTURES))} pictures, first its head, then all of it"
        )
        run = train(PICTURES, folder)
        _say("for comparison, the same head on a backbone with random weights")
        guess = _random_backbone(folder)
    predictor = load_predictor(folder / "predictor.safetensors")
    _draw_answers(predictor, folder)
    _write_report(run, predictor, folder)
    frozen = max((row for row in run.history if row["phase"] == "frozen"), key=lambda row: -row["valid_loss"])
    tuned = run.history[run.best_epoch - 1]
    _say(
        "accuracy on the held-out pictures:\n"
        f"  {guess:.2f}  random weights, head trained\n"
        f"  {frozen['valid_accuracy']:.2f}  pretrained weights, head trained\n"
        f"  {tuned['valid_accuracy']:.2f}  pretrained weights, then all of it trained"
    )
    names = "report.html, curves.png and predictions.png, beside predictor.safetensors,"
    _say(f"in {time.perf_counter() - started:.0f} s; look at {names} in {folder.resolve()}")
    return run


def _random_backbone(folder: Path) -> float:
    """Train the same head on features of a backbone that has seen nothing; give the best accuracy."""
    data = folder_loaders(folder / "pets", weights=SqueezeNet1_1_Weights.DEFAULT, batch_size=32)
    task = Multiclass(data.classes)
    torch.manual_seed(0)  # the same ones, whether the run before was done now or some time ago
    model = replace_head(squeezenet1_1(weights=None), task)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The backbone of .* is to be frozen"
        )  # at random: that is the point
        run = fit(model, task, data.train, data.valid, epochs=5, frozen_epochs=5, progress=False)
    accuracy: float = run.history[run.best_epoch - 1]["valid_accuracy"]
    return accuracy


def _write_report(run: Run, predictor: Predictor, folder: Path) -> None:
    data = folder_loaders(folder / "pets", preset=predictor.preset, batch_size=32)
    write_report(run, predictor, data.valid, folder / "report.html")


def _draw_answers(predictor: Predictor, folder: Path) -> None:
    """Draw the answers for some held-out pictures."""
    valid = folder / "pets" / "valid"
    names = random.Random(0).sample(list_pictures(valid), 12)
    classes = [path.name for path in sorted(valid.iterdir()) if path.is_dir()]
    targets = [classes.index(name.split("/")[0]) for name in names]
    answers = predictor([valid / name for name in names])
    whole = Preset(160, resize_size=160)
    pictures = torch.stack([whole.eval()(decode(valid / name)) for name in names])
    axes = show((pictures, targets), whole, classes=classes, predictions=answers)
    save_figure(axes, folder / "predictions.png")


def _say(text: str) -> None:
    if is_writer():
        print(text, file=sys.stderr, flush=True)

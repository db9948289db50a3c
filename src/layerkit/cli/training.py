"""``layerkit train``."""

import argparse
from pathlib import Path
from typing import Any

from layerkit.augmenting import LEVELS
from layerkit.errors import suggestion
from layerkit.loading import Loaders
from layerkit.tasks import Binary, Multiclass, Task


def add_train(commands: Any) -> None:
    """Add the command to the parser's."""
    train = commands.add_parser(
        "train",
        help="train a pretrained model on a folder that is split into train and valid",
        description="Give a torchvision model a new head, train it on ROOT/train, keep the best epoch on "
        "ROOT/valid, and save the whole answerer as one file. Pretrained weights are downloaded once.",
        epilog="example: layerkit train pets --model resnet18 --epochs 8 --frozen-epochs 5 --out pets.safetensors",
    )
    train.add_argument("root", help="a folder as layerkit split writes it")
    train.add_argument("--model", default="resnet18", help="a name of torchvision's registry (%(default)s)")
    train.add_argument(
        "--weights",
        default="DEFAULT",
        help="the name of pretrained weights, such as IMAGENET1K_V1, or none to start at random (%(default)s)",
    )
    train.add_argument(
        "--binary",
        action="store_true",
        help="with two classes: one output, and the second class the positive",
    )
    train.add_argument("--epochs", type=int, default=8, help="how many in all (%(default)s)")
    train.add_argument(
        "--frozen-epochs",
        type=int,
        help="how many of them train the head alone (5, or all if there are fewer)",
    )
    train.add_argument("--batch-size", type=int, default=32, help="pictures a step (%(default)s)")
    train.add_argument("--lr", type=float, help="the learning rate of the whole model's training")
    train.add_argument("--augment", choices=LEVELS, default="standard", help="random changes (%(default)s)")
    train.add_argument(
        "--monitor", default="valid_loss", help="what decides which epoch is best (%(default)s)"
    )
    train.add_argument("--seed", type=int, default=0, help="another seed, another run (%(default)s)")
    train.add_argument("--checkpoint", metavar="FOLDER", help="keep the run's state here, and go on from it")
    train.add_argument(
        "--out", default="predictor.safetensors", metavar="FILE", help="the saved answerer (%(default)s)"
    )
    train.add_argument("--curves", metavar="FILE", help="draw the losses, as .png or .svg")
    train.set_defaults(run=_train)


def _train(given: argparse.Namespace) -> int:
    import torch
    from torchvision.models import get_model, get_model_weights

    from layerkit.heads import replace_head
    from layerkit.loading import folder_loaders
    from layerkit.predicting import Predictor
    from layerkit.presets import Preset
    from layerkit.training import fit

    preset = Preset.from_model(given.model)
    weights = None
    if given.weights.lower() != "none":
        known = get_model_weights(given.model).__members__
        if given.weights not in known:
            raise ValueError(
                f"--weights is {given.weights!r}; expected none or one of {', '.join(known)}."
                f"{suggestion(given.weights, known)}"
            )
        weights = known[given.weights]
        preset = Preset.from_weights(weights)
    data = folder_loaders(
        given.root, preset=preset, batch_size=given.batch_size, augment=given.augment, seed=given.seed
    )
    task = _task(given, data)
    with torch.random.fork_rng():
        torch.manual_seed(given.seed)
        model = replace_head(get_model(given.model, weights=weights), task)
    frozen = min(5, given.epochs) if given.frozen_epochs is None else given.frozen_epochs
    run = fit(
        model, task, data.train, data.valid, epochs=given.epochs, frozen_epochs=frozen, lr=given.lr,
        monitor=given.monitor, checkpoint=given.checkpoint, seed=given.seed,
    )  # fmt: skip
    if given.curves:
        run.history.plot(given.curves)
    Predictor(model, task, data.preset).save(given.out)
    print(f"{run.reason}\nsaved as {Path(given.out)}")
    return 0


def _task(given: argparse.Namespace, data: Loaders) -> Task:
    return Binary(data.classes) if given.binary else Multiclass(data.classes)

"""``layerkit train``."""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from torch import nn

from layerkit.augmenting import LEVELS
from layerkit.cli.options import add_errors
from layerkit.device import Precision
from layerkit.errors import suggestion
from layerkit.presets import Preset
from layerkit.tasks import Binary, Multiclass, Task

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


_DESCRIPTION = """Give a torchvision model a new head, train it on ROOT/train, keep the best
epoch on ROOT/valid, and save all that is needed to answer as one file, a
predictor. Pretrained weights are downloaded once.
"""
_EXAMPLES = """examples:
  layerkit train pets --model resnet18 --epochs 8 --out pets.safetensors
  layerkit train pets --start pets.safetensors --epochs 4 --out b.safetensors
"""


def add_train(commands: Any) -> None:
    """Add the command to the parser's."""
    train = commands.add_parser(
        "train",
        help="train a pretrained model on a folder that is split into train and valid",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("root", help="a folder as layerkit split writes it")
    train.add_argument("--model", default="resnet18", help="a name of torchvision's registry (%(default)s)")
    train.add_argument(
        "--weights",
        default="DEFAULT",
        help="the name of pretrained weights, such as IMAGENET1K_V1; none to start at random; or packaged for those "
        "of squeezenet1_1 that layerkit carries, which need no network (%(default)s)",
    )
    train.add_argument(
        "--start",
        metavar="FILE",
        help="train a saved predictor on, for more epochs or new pictures of the same classes; --model and --weights "
        "are not looked at then",
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
        help="how many of them train the head alone (5, or all if there are fewer; 0 with --weights none)",
    )
    train.add_argument(
        "--crop-size",
        type=int,
        metavar="PIXELS",
        help="of what the model sees (by default, as the weights expect)",
    )
    train.add_argument("--batch-size", type=int, default=32, help="pictures a step (%(default)s)")
    train.add_argument("--lr", type=float, help="the learning rate of the whole model's training")
    train.add_argument("--augment", choices=LEVELS, default="standard", help="random changes (%(default)s)")
    add_errors(train, "put another picture in the place of one that cannot be read, and name it")
    train.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="of the computation; bf16 is about twice as fast on processors that have it (%(default)s)",
    )
    train.add_argument(
        "--monitor", default="valid_loss", help="what decides which epoch is best (%(default)s)"
    )
    train.add_argument("--seed", type=int, default=0, help="another seed, another run (%(default)s)")
    train.add_argument("--checkpoint", metavar="FOLDER", help="keep the run's state here, and go on from it")
    train.add_argument(
        "--out", default="predictor.safetensors", metavar="FILE", help="the predictor (%(default)s)"
    )
    train.add_argument("--curves", metavar="FILE", help="draw the losses, as .png or .svg")
    train.set_defaults(run=_train)


class _Start(NamedTuple):
    """What a training begins with."""

    preset: Preset
    model_for: Callable[[Task], tuple[nn.Module, Task]]
    frozen_epochs: int  # unless others are asked for


def _train(given: argparse.Namespace) -> int:
    from layerkit.loading import folder_loaders
    from layerkit.plots.axes import check_plot_path
    from layerkit.predicting import Predictor
    from layerkit.predicting.writing import check_name
    from layerkit.saving import check_target
    from layerkit.training import fit

    check_name(given.out)
    check_target(given.out)
    if given.curves:
        check_target(given.curves)
        check_plot_path(given.curves)
    start = _from_torchvision(given) if given.start is None else _from_file(given)
    preset = start.preset
    if given.crop_size is not None:
        preset = replace(preset, crop_size=given.crop_size, resize_size=None)
    data = folder_loaders(
        given.root, preset=preset, batch_size=given.batch_size, augment=given.augment, errors=given.errors,
        seed=given.seed,
    )  # fmt: skip
    if given.binary and len(data.classes) != 2:
        raise ValueError(
            f"--binary is given, and {given.root} holds {len(data.classes)} classes; expected two. Leave --binary out."
        )
    model, task = start.model_for(Binary(data.classes) if given.binary else Multiclass(data.classes))
    frozen = start.frozen_epochs if given.frozen_epochs is None else given.frozen_epochs
    run = fit(
        model, task, data.train, data.valid, epochs=given.epochs, frozen_epochs=frozen, lr=given.lr,
        precision=given.precision, monitor=given.monitor, checkpoint=given.checkpoint, seed=given.seed,
    )  # fmt: skip
    Predictor(model, task, data.preset).save(given.out)
    if given.curves:
        run.history.plot(given.curves)
    print(f"saved as {Path(given.out)}")
    return 0


def _from_torchvision(given: argparse.Namespace) -> _Start:
    import torch

    from layerkit.demo.weights import packaged_weights
    from layerkit.heads import replace_head

    weights = _weights(given)

    def model_for(task: Task) -> tuple[nn.Module, Task]:
        with torch.random.fork_rng():
            torch.manual_seed(given.seed)
            with packaged_weights() if given.weights == "packaged" else nullcontext():
                return replace_head(_backbone(given.model, weights), task), task

    if weights is None:
        return _Start(Preset.from_model(given.model), model_for, 0)
    return _Start(Preset.from_weights(weights), model_for, min(5, given.epochs))


def _from_file(given: argparse.Namespace) -> _Start:
    from layerkit.predicting import load_predictor

    predictor = load_predictor(given.start)

    def model_for(task: Task) -> tuple[nn.Module, Task]:
        if type(task) is not type(predictor.task) or task.classes != predictor.task.classes:
            raise ValueError(
                f"{given.start} answers {predictor.task}, and the folders ask for {task}; expected the same. Give "
                "the folder that it was trained on, --binary as then, or leave --start out."
            )
        return predictor.model, predictor.task

    return _Start(predictor.preset, model_for, 0)


def _weights(given: argparse.Namespace) -> "WeightsEnum | None":
    from torchvision.models import SqueezeNet1_1_Weights, get_model_weights

    if given.weights.lower() == "none":
        return None
    if given.weights == "packaged":
        if given.model != "squeezenet1_1":
            raise ValueError(
                f"--weights packaged is given for {given.model}; expected squeezenet1_1, the one model whose weights "
                "layerkit carries: pass --model squeezenet1_1"
            )
        return SqueezeNet1_1_Weights.DEFAULT
    known: dict[str, WeightsEnum] = dict(get_model_weights(given.model).__members__)
    if given.weights not in known:
        raise ValueError(
            f"--weights is {given.weights!r}; expected none, packaged or one of {', '.join(known)}."
            f"{suggestion(given.weights, known)}"
        )
    return known[given.weights]


def _backbone(name: str, weights: "WeightsEnum | None") -> "nn.Module":
    import torch
    from torchvision.models import get_model

    try:
        model: nn.Module = get_model(name, weights=weights)
    except (OSError, RuntimeError) as error:  # no network, a slow one, or a file of another checksum
        if weights is None or (isinstance(error, RuntimeError) and "hash" not in str(error)):
            raise
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"The weights of {name} could not be downloaded from {weights.url} ({reason}); expected "
            f"a way there, or the file in {torch.hub.get_dir()}/checkpoints. Put it there by hand, or start at random "
            "with --weights none. Without a network, --model squeezenet1_1 --weights packaged has trained weights."
        ) from error
    return model

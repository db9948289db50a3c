"""How far the answers of a saved, a loaded and an exported model lie from the original's, on the demo's pictures.

    pip install layerkit[export]
    python benchmarks/agreement.py [--only resnet18 vit_b_32]

The smallest model of each of torchvision's classification families, trained from random weights for three epochs
on the demo's seven classes. All ways get the same 386 pictures. A difference is the largest between two
probabilities. Beside it stands what float32 alone makes out: how far the original lies from itself in float64.
"""

import argparse
import copy
import platform
import tempfile
import time
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from layerkit import Multiclass, Predictor, Preset, fit, load_predictor, replace_head
from layerkit.demo.running import PICTURES

SIDES = {
    "alexnet": 64,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "googlenet": 64,
    "inception_v3": 299,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 64,
    "vit_b_32": 224,
}
"""The smallest model of each family, and the side of a square picture that it takes."""

PATHS = sorted(PICTURES.glob("*.jpg"))
EPOCHS = 3


def read(side: int) -> Tensor:
    """Give all pictures as the models take them, uint8 (N, 3, side, side)."""
    cut = v2.Compose([v2.Resize(side, antialias=True), v2.CenterCrop(side)])
    return torch.stack([cut(decode_image(str(path), ImageReadMode.RGB)) for path in PATHS])


def make(name: str, side: int, pictures: Tensor) -> Predictor:
    """Train a model for a few epochs: the answers of one that nobody has trained depend on the last digits."""
    torch.manual_seed(0)
    weightless = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    labels = [path.name.split(".")[0] for path in PATHS]
    task = Multiclass(sorted(set(labels)))
    model = replace_head(torchvision.models.get_model(name, weights=None, **weightless), task)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5  # its running statistics must come up with so short a training
    preset = Preset(side, resize_size=side)
    targets = torch.tensor([task.classes.index(label) for label in labels])
    data = TensorDataset(preset.eval()(pictures), targets)
    fit(model, task, DataLoader(data, batch_size=32, shuffle=True), epochs=EPOCHS, lr=1e-3, progress=False)
    return Predictor(model, task, preset)


def probabilities(predictor: Predictor, pictures: Tensor) -> Tensor:
    return torch.tensor([list(a.probabilities.values()) for a in predictor(list(pictures), batch_size=32)])


def in_float64(predictor: Predictor, pictures: Tensor) -> Tensor:
    model = copy.deepcopy(predictor.model).double()
    batches = pictures.split(32)
    with torch.no_grad():
        return torch.cat([model(predictor.preset.eval()(batch).double()).softmax(1) for batch in batches])


def with_torch(path: Path, pictures: Tensor) -> Tensor:
    program = torch.export.load(path).module()
    with torch.no_grad():
        return torch.cat([program(batch)["probabilities"] for batch in pictures.split(32)])


def with_onnxruntime(path: Path, pictures: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = [session.run(["probabilities"], {"pixels": batch.numpy()})[0] for batch in pictures.split(32)]
    return torch.cat([torch.from_numpy(answer) for answer in answers])


def row(name: str, side: int, folder: Path) -> str:
    """Give a family's line of the table."""
    started = time.perf_counter()
    pictures = read(side)
    original = make(name, side, pictures)
    asked = probabilities(original, pictures)
    cells = [
        f"{(asked.amax(0) - asked.amin(0)).max():.2f}",
        difference(asked, in_float64(original, pictures)),
    ]
    original.save(folder / "x.safetensors")
    cells.append(difference(asked, probabilities(load_predictor(folder / "x.safetensors"), pictures)))
    for suffix, answer in ((".pt2", with_torch), (".onnx", with_onnxruntime)):
        path = folder / f"x{suffix}"
        try:
            original.export(path)
            cells.append(difference(asked, answer(path, pictures)))
        except Exception as error:
            cells.append(f"{type(error).__name__}: {str(error).splitlines()[0][:60]}")
    return f"| {name} | {side} | {' | '.join(cells)} | {time.perf_counter() - started:.0f} |"


def difference(one: Tensor, other: Tensor) -> str:
    return f"{(one - other).abs().max():.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SIDES, default=SIDES)
    options = parser.parse_args()
    print(f"{platform.platform()}, torch {torch.__version__}, torchvision {torchvision.__version__}\n")
    print("| model | side | answers spread over | in float64 | loaded | .pt2 | .onnx | seconds |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            print(row(name, SIDES[name], Path(folder)), flush=True)


if __name__ == "__main__":
    main()

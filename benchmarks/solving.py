"""The head solved exactly, beside scikit-learn, beside an optimizer on raw features, and beside `fit`'s frozen phase.

Each data set is reduced once to the features of a frozen backbone and a split into training and held-out examples;
all ways get the same. The table gives the loss on the held-out examples (in standardized units for numbers):

- `solve_head`, its penalty chosen by that loss; and by cross-validation, without the held-out examples;
- scikit-learn's `LogisticRegressionCV` or `RidgeCV` on the same standardized features;
- the naive way: AdamW at 1e-3 for 30 epochs on the raw features, a fresh `nn.Linear`, the best epoch;
- `fit(epochs=10, frozen_epochs=10)` with its default settings, the best epoch.

    pip install scikit-learn elpv-dataset
    python benchmarks/solving.py [--only demo elpv digits drawn speed]
"""

import argparse
import platform
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import log_loss
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

import layerkit
from layerkit import (
    Binary,
    Multiclass,
    Regression,
    fit,
    precompute_features,
    replace_head,
    solve_head,
    table_loaders,
)
from layerkit.demo.lines import LABEL
from layerkit.demo.weights import packaged_weights

PENALTIES = np.logspace(-4, 4, 10)  # LogisticRegressionCV's own

Parts = tuple[Tensor, Tensor, Tensor, Tensor]  # features and targets to train on, and held out


def questions(
    name: str, table: dict[str, list], root: Path, tasks: dict[str, Any]
) -> Iterator[tuple[str, Any, Parts]]:
    """Run the packaged SqueezeNet once over the pictures of a table; give the parts of each question."""
    weights = SqueezeNet1_1_Weights.DEFAULT
    data = table_loaders(
        table, root, target={target: target for target in tasks}, weights=weights, valid=0.25, batch_size=64
    )
    with packaged_weights():
        model = replace_head(squeezenet1_1(weights=weights), 1)
    train, held_out = (
        [features.flatten(1).clone(), {target: values.clone() for target, values in targets.items()}]
        for features, targets in (
            precompute_features(model, part) for part in (data.train.unshuffled(), data.valid)
        )
    )
    for target, task in tasks.items():
        yield f"{name}, {target}", task, (train[0], train[1][target], held_out[0], held_out[1][target])


def demo() -> Iterator[tuple[str, Any, Parts]]:
    """Ask of the packaged clip art which of seven classes it is, whether an animal, and how saturated."""
    pictures = Path(layerkit.demo.__file__).parent / "pictures"
    names = sorted(path.name for path in pictures.glob("*.jpg"))
    kinds = [re.fullmatch(LABEL, name)[1] for name in names]
    saturation = [
        float(np.asarray(Image.open(pictures / name).convert("HSV"))[..., 1].mean()) for name in names
    ]
    table = {
        "path": names,
        "kind": kinds,
        "animal": [int(kind in ("bird", "bug", "mammal")) for kind in kinds],
        "saturation": saturation,
    }
    tasks = {"kind": Multiclass(sorted(set(kinds))), "animal": Binary(), "saturation": Regression()}
    yield from questions("demo", table, pictures, tasks)


def elpv() -> Iterator[tuple[str, Any, Parts]]:
    """Ask of solar cells of which kind they are, whether defective, and how probably."""
    package = find_spec("elpv_dataset")
    if package is None or package.origin is None:
        sys.exit("The pictures are not here. Get them with: pip install elpv-dataset")
    folder = Path(package.origin).parent / "data"
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines()]
    table = {
        "path": [row[0] for row in rows],
        "probability": [float(row[1]) for row in rows],
        "defective": [int(float(row[1]) > 0.5) for row in rows],
        "kind": [row[2] for row in rows],
    }
    tasks = {"kind": Multiclass(["mono", "poly"]), "defective": Binary(), "probability": Regression()}
    yield from questions("elpv", table, folder, tasks)


def digits() -> Iterator[tuple[str, Any, Parts]]:
    """Take the pixels of scikit-learn's 8 x 8 digits as features."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    pixels, targets = torch.tensor(bunch.data[order]).float(), torch.tensor(bunch.target[order])
    cut = 1300
    yield "digits", Multiclass(10), (pixels[:cut], targets[:cut], pixels[cut:], targets[cut:])


def drawn() -> Iterator[tuple[str, Any, Parts]]:
    """Draw features of unlike scales with far means, as backbones give them, and several noisy targets."""
    generator = torch.Generator().manual_seed(0)
    standard = torch.randn(1200, 100, generator=generator) @ torch.randn(100, 200, generator=generator)
    scales = torch.logspace(-2, 1, 200)
    features = (standard + 10) * scales
    truth = torch.randn(200, 3, generator=generator) / 200**0.5
    targets = standard @ truth + 10 * torch.randn(1200, 3, generator=generator)
    yield "drawn, 3 numbers", Regression(3), (features[:600], targets[:600], features[600:], targets[600:])


def model_for(task: Any, width: int) -> nn.Module:
    torch.manual_seed(0)
    return replace_head(nn.Sequential(nn.Identity(), nn.Linear(width, 1)), task, where="1")


def loaders(parts: Parts) -> tuple[DataLoader, DataLoader]:
    train = DataLoader(
        TensorDataset(*parts[:2]), batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    return train, DataLoader(TensorDataset(*parts[2:]), batch_size=4096)


def with_scikit_learn(task: Any, parts: Parts) -> float:
    """Choose by scikit-learn's own cross-validation; give the loss on the held-out examples."""
    std, mean = torch.std_mean(parts[0].double(), 0, correction=0)
    train, valid = (
        (part.double() - mean).div(std.where(std > 0, 1)).numpy() for part in (parts[0], parts[2])
    )
    if isinstance(task, Regression):
        wanted, held_out = ((task.check(t).double() - task.mean) / task.std for t in (parts[1], parts[3]))
        ridge = RidgeCV(alphas=len(train) * np.logspace(-6, 3, 30)).fit(train, wanted.numpy())
        return float(((torch.tensor(ridge.predict(valid)).view_as(held_out) - held_out) ** 2).mean())
    settings = {"Cs": PENALTIES, "cv": 5, "max_iter": 1000, "scoring": "neg_log_loss"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logistic = LogisticRegressionCV(**settings).fit(train, parts[1].numpy())
    return float(log_loss(parts[3].numpy(), logistic.predict_proba(valid), labels=logistic.classes_))


def naively(task: Any, parts: Parts) -> float:
    """Train a fresh linear layer on raw features, as most scripts do."""
    torch.manual_seed(0)
    model = nn.Linear(parts[0].shape[1], task.out_features)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    best = float("inf")
    for _ in range(30):
        for inputs, target in loaders(parts)[0]:
            optimizer.zero_grad()
            task.loss(model(inputs), target).backward()
            optimizer.step()
        with torch.no_grad():
            best = min(best, float(task.loss(model(parts[2]), parts[3])))
    return best


def compare(name: str, task: Any, parts: Parts) -> None:
    """Print one row of the table."""
    train, valid = loaders(parts)
    task.prepare(parts[1])

    def solved(*loader: DataLoader) -> float:
        model = model_for(task, parts[0].shape[1])
        solve_head(model, task, train, *loader, progress=False, device="cpu")
        with torch.no_grad():
            return float(task.loss(model(parts[2]), parts[3]))

    exact, crossed = solved(valid), solved()
    model = model_for(task, parts[0].shape[1])
    run = fit(model, task, train, valid, epochs=10, frozen_epochs=10, progress=False, device="cpu")
    figures = [exact, crossed, with_scikit_learn(task, parts), naively(task, parts), run.best_value]
    cells = " | ".join(f"{figure:.4f} ({figure / exact - 1:+.1%})" for figure in figures[1:])
    size = f"{len(parts[0]):,} x {parts[0].shape[1]}"
    print(f"| {name} | {size} | {exact:.4f} | {cells} |", flush=True)


def speed() -> None:
    """Print how long the whole path takes on 2,000 x 512 features, medians of three, and once with 5 folds."""
    generator = torch.Generator().manual_seed(0)
    standard = torch.randn(4000, 512, generator=generator) * torch.logspace(0, -2, 512)
    features = standard @ torch.randn(512, 512, generator=generator)
    scores = features @ torch.randn(512, 7, generator=generator) / 40
    scores += 2 * torch.randn(4000, 7, generator=generator)
    asked = {
        "Multiclass(7)": (Multiclass(7), scores.argmax(1)),
        "Binary()": (Binary(), (scores[:, 0] > 0).long()),
        "Regression(7)": (Regression(7), scores),
    }
    for name, (task, targets) in asked.items():
        train, valid = loaders((features[:2000], targets[:2000], features[2000:], targets[2000:]))

        def seconds(*loader: DataLoader, task: Any = task, train: DataLoader = train) -> tuple[float, int]:
            model = model_for(task, 512)
            started = time.perf_counter()
            solved = solve_head(model, task, train, *loader, progress=False, device="cpu")
            return time.perf_counter() - started, len(solved.path)

        runs = [seconds(valid) for _ in range(3)]
        median = statistics.median(run[0] for run in runs)
        print(f"| {name} | {runs[0][1]} | {median:.2f} s | {seconds()[0]:.2f} s |", flush=True)


DATA: dict[str, Callable[[], Iterator[tuple[str, Any, Parts]]]] = {
    "demo": demo, "elpv": elpv, "digits": digits, "drawn": drawn,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[*DATA, "speed"], default=[*DATA, "speed"])
    only = parser.parse_args().only
    print(
        "| held-out loss | features | solve_head | by cross-validation | scikit-learn | naive | fit, 10 epochs |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in [name for name in DATA if name in only]:
        for row in DATA[name]():
            compare(*row)
    if "speed" in only:
        print("\n| 2,000 x 512 features | penalties | with `valid` | 5-fold |\n| --- | --- | --- | --- |")
        speed()
    print(
        f"\nPython {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()

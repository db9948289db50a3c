"""Three questions about one table of pictures: solar cells, sound or defective, mono- or polycrystalline.

The data are the 2,624 pictures of the ELPV data set (Deitsch et al. 2019, https://arxiv.org/abs/1807.02894,
CC BY-NC-SA 4.0). This script downloads nothing; get them with

    pip install elpv-dataset

and run

    python examples/solar_cells.py

It asks how probable a defect is (regression), whether the cell is defective (binary) and of which kind it is
(multiclass). The backbone, the SqueezeNet that layerkit carries, stays frozen: it runs once over all pictures for
each question, and only the head is trained.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from layerkit import Binary, Multiclass, Regression, evaluate, fit, replace_head, table_loaders
from layerkit.demo.weights import packaged_weights


def find_data() -> Path:
    """Give the folder that holds labels.csv and images."""
    package = find_spec("elpv_dataset")
    if package is None or package.origin is None:
        sys.exit("The pictures are not here. Get them with: pip install elpv-dataset")
    return Path(package.origin).parent / "data"


def read_table(folder: Path) -> dict[str, list]:
    """Read the columns of labels.csv, which are separated by blanks and have no names."""
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines()]
    probabilities = [float(row[1]) for row in rows]
    return {
        "path": [row[0] for row in rows],
        "probability": probabilities,
        "defective": [int(probability > 0.5) for probability in probabilities],
        "kind": [row[2] for row in rows],
    }


def answer(question: str, target: str, task, table, folder: Path, epochs: int) -> dict[str, float]:
    """Train a head for one question, and evaluate it on the held-out quarter."""
    print(f"\n{question}", file=sys.stderr)
    weights = SqueezeNet1_1_Weights.DEFAULT
    data = table_loaders(
        table, folder, target=target, weights=weights, valid=0.25, batch_size=64, augment="none"
    )
    torch.manual_seed(0)
    model = replace_head(squeezenet1_1(weights=weights), task)
    fit(model, task, data.train, data.valid, epochs=epochs, frozen_epochs=epochs)
    return evaluate(model, task, data.valid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=30)
    epochs = parser.parse_args().epochs
    folder = find_data()
    table = read_table(folder)
    with packaged_weights():
        probability = answer("How probable is a defect?", "probability", Regression(), table, folder, epochs)
        defective = answer(
            "Is it defective?", "defective", Binary(["sound", "defective"]), table, folder, epochs
        )
        kind = answer("Mono or poly?", "kind", Multiclass(["mono", "poly"]), table, folder, epochs)
    print(f"defect probability  RMSE     {probability['rmse']:.3f}")
    print(f"defective or not    AUC      {defective['auroc']:.3f}")
    print(f"mono or poly        accuracy {kind['accuracy']:.3f}")


if __name__ == "__main__":
    main()

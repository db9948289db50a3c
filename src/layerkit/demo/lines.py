"""The ten lines of the README; only the folders, the expression for the label and the backbone differ."""

from pathlib import Path

from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from layerkit import Multiclass, Predictor, Run, fit, folder_loaders, replace_head, split_folder

LABEL = r"([a-z]+)\.\d+\.jpg"


def train(pictures: Path, folder: Path) -> Run:
    """Split, load, train and save, as anybody would with pictures of their own."""
    split_folder(pictures, folder / "pets", valid=0.2, seed=0, label=LABEL)
    weights = SqueezeNet1_1_Weights.DEFAULT
    data = folder_loaders(folder / "pets", weights=weights, batch_size=32)
    task = Multiclass(data.classes)
    model = replace_head(squeezenet1_1(weights=weights), task)
    run = fit(model, task, data.train, data.valid, epochs=8, frozen_epochs=5, checkpoint=folder / "runs/pets")
    run.history.plot(folder / "curves.png")
    Predictor(model, task, data.preset).save(folder / "predictor.safetensors")
    return run

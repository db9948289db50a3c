"""Training a new head on a frozen resnet18 at 224 px, from folders of JPEGs, with validation, batches of 32.

    python photos.py FOLDER
    python frozen.py PEER --pictures FOLDER/small [--measured 2]

A peer's epochs are all alike: `measured` of them are made, and `ten_epochs` is the rest of its time and ten times
their median. layerkit makes all ten. `first_epoch` is what one epoch takes, layerkit's pass through the backbone
counted with it. All read the training pictures without augmentation, and begin with random weights, so that
nothing is downloaded: accuracies are those of random features, after as many epochs as were made.
"""

import statistics
import tempfile
import time
from functools import partial

import torch
from finetune import LOSS, MEAN, STD, accuracy, need_bf16, resnet18, usual_loaders
from measuring import Clock, Figures, measure
from torch import nn
from torchvision import models


def figures(epochs: list[float], total: float, right: float) -> Figures:
    """Put ten epochs of the usual kind together."""
    once = total - sum(epochs)
    return {
        "first_epoch": round(once + epochs[0], 3),
        "ten_epochs": round(once + 10 * statistics.median(epochs), 3),
        "accuracy": right,
    }


class Laps(list[float]):
    """Seconds between calls."""

    def start(self, *_: object) -> None:
        self.started = time.perf_counter()

    def stop(self, *_: object) -> None:
        self.append(time.perf_counter() - self.started)


def bare(pictures: str, measured: int) -> Figures:
    """Train as PyTorch's tutorial on transfer learning does."""
    clock, laps = Clock(), Laps()
    train, valid = usual_loaders(pictures, augment=False)
    model = resnet18().requires_grad_(False)
    model.fc = nn.Linear(model.fc.in_features, 2)
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(measured):
        laps.start()
        model.train()
        for inputs, targets in train:
            optimizer.zero_grad()
            loss = LOSS(model(inputs), targets)
            loss.backward()
            optimizer.step()
        right = accuracy(model, valid)
        laps.stop()
        print(f"epoch {epoch}, accuracy {right:.2f}", flush=True)
    return figures(laps, clock(), right)


def layerkit(pictures: str, measured: int, precision: str = "auto") -> Figures:
    from layerkit import Multiclass, fit, folder_loaders, replace_head

    clock = Clock()
    data = folder_loaders(pictures, weights=models.ResNet18_Weights.DEFAULT, batch_size=32)
    task = Multiclass(data.classes)
    model = replace_head(resnet18(), task)
    run = fit(
        model, task, data.train, data.valid,
        epochs=10, frozen_epochs=10, precision=precision, device="cpu", seed=0,
    )  # fmt: skip
    seconds = [row["seconds"] for row in run.history]
    total = clock()
    right = max(row["valid_accuracy"] for row in run.history)
    return {"first_epoch": round(total - sum(seconds[1:]), 3), "ten_epochs": total, "accuracy": right}


def layerkit_bf16(pictures: str, measured: int) -> Figures:
    need_bf16()
    return layerkit(pictures, measured, "bf16")


def fastai(pictures: str, measured: int) -> Figures:
    # As it does by itself: batch norm stays trainable in the frozen part, so it goes backwards through all of it.
    from fastai.callback.core import Callback
    from fastai.vision.all import (
        SGD,
        CrossEntropyLossFlat,
        ImageDataLoaders,
        Normalize,
        Resize,
        vision_learner,
    )
    from fastai.vision.all import accuracy as share_right

    torch.manual_seed(0)
    clock, laps = Clock(), Laps()
    data = ImageDataLoaders.from_folder(
        pictures, valid="valid", item_tfms=Resize(224), batch_tfms=Normalize.from_stats(MEAN, STD),
        bs=32, num_workers=2, device=torch.device("cpu"),
    )  # fmt: skip
    learner = vision_learner(
        data, models.resnet18, pretrained=False, metrics=share_right, opt_func=partial(SGD, mom=0.9),
        loss_func=CrossEntropyLossFlat(), cbs=Callback(before_epoch=laps.start, after_epoch=laps.stop),
    )  # fmt: skip
    learner.freeze()
    learner.fit(measured, 0.01)
    return figures(laps, clock(), float(learner.recorder.values[-1][-1]))


def lightning(pictures: str, measured: int) -> Figures:
    """Train as Lightning's page on transfer learning does."""
    import lightning as L
    from lightning.pytorch.callbacks import LambdaCallback

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            backbone = resnet18()
            self.features = nn.Sequential(*list(backbone.children())[:-1]).requires_grad_(False)
            self.classifier = nn.Linear(backbone.fc.in_features, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.features.eval()
            with torch.no_grad():
                features = self.features(inputs).flatten(1)
            return self.classifier(features)

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            inputs, targets = batch
            loss = LOSS(self(inputs), targets)
            self.log("train_loss", loss, prog_bar=True)
            return loss

        def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
            inputs, targets = batch
            right = (self(inputs).argmax(1) == targets).float().mean()
            self.log("valid_accuracy", right, prog_bar=True)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.classifier.parameters(), lr=0.01, momentum=0.9)

    laps = Laps()
    lap_timer = LambdaCallback(on_train_epoch_start=laps.start, on_train_epoch_end=laps.stop)
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        trainer = L.Trainer(
            max_epochs=measured, accelerator="cpu", default_root_dir=folder, callbacks=[lap_timer]
        )
        trainer.fit(Module(), *usual_loaders(pictures, augment=False))
        return figures(laps, clock(), float(trainer.callback_metrics["valid_accuracy"]))


if __name__ == "__main__":
    measure(bare, layerkit, layerkit_bf16, fastai, lightning, pictures="photos/small", measured=2)

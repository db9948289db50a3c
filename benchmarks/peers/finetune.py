"""One epoch of fine-tuning resnet18 from folders of JPEGs at 224 px, with validation, batches of 32.

    python photos.py FOLDER
    python finetune.py PEER --pictures FOLDER/small

`seconds` counts from making the loaders to the end of the validation; peers read with two worker processes. All
begin with random weights, so that nothing is downloaded: accuracies say only that training works.
"""

import os
import tempfile
from functools import partial
from pathlib import Path

import torch
from measuring import Clock, Figures, Skip, measure
from torch import nn
from torch.utils.data import DataLoader
from torchvision import models, transforms
from torchvision.datasets import ImageFolder

LOSS = nn.CrossEntropyLoss()
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def usual_loaders(pictures: str, *, augment: bool = True) -> tuple[DataLoader, DataLoader]:
    """Read as torchvision's reference scripts do: ImageFolder, Pillow, and transforms one picture at a time."""
    end = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    valid = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *end])
    train = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *end])
    return (
        DataLoader(ImageFolder(f"{pictures}/train", train if augment else valid), 32, True, num_workers=2),
        DataLoader(ImageFolder(f"{pictures}/valid", valid), 32, num_workers=2),
    )


def resnet18() -> nn.Module:
    torch.manual_seed(0)
    return models.resnet18(num_classes=2)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)


def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """Validate as everybody writes it."""
    model.eval()
    right = seen = 0
    with torch.inference_mode():
        for inputs, targets in loader:
            right += (model(inputs).argmax(1) == targets).sum().item()
            seen += len(targets)
    return right / seen


def need_bf16() -> None:
    """Skip where the processor computes bf16 by way of fp32, slower than fp32 itself."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or not {"avx512_bf16", "amx_bf16", "bf16"} & set(cpuinfo.read_text().split()):
        raise Skip("the processor is not known to have bf16")


def bare(pictures: str) -> Figures:
    clock = Clock()
    train, valid = usual_loaders(pictures)
    model = resnet18()
    optimizer = sgd(model)
    model.train()
    total = 0.0
    for step, (inputs, targets) in enumerate(train, 1):
        optimizer.zero_grad()
        loss = LOSS(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item()
        print(f"step {step} of {len(train)}, loss {total / step:.3f}", flush=True)
    return {"accuracy": accuracy(model, valid), "seconds": clock()}


def layerkit(pictures: str, precision: str = "auto") -> Figures:
    from layerkit import Multiclass, fit, folder_loaders, replace_head

    clock = Clock()
    data = folder_loaders(pictures, weights=models.ResNet18_Weights.DEFAULT, batch_size=32)
    task = Multiclass(data.classes)
    model = replace_head(resnet18(), task, head=nn.Linear)
    run = fit(
        model, task, data.train, data.valid,
        epochs=1, optimizer=sgd(model), precision=precision, device="cpu", seed=0,
    )  # fmt: skip
    return {"seconds": clock(), "accuracy": run.history[-1]["valid_accuracy"]}


def layerkit_bf16(pictures: str) -> Figures:
    need_bf16()
    return layerkit(pictures, "bf16")


def fastai(pictures: str) -> Figures:
    from fastai.vision.all import (
        SGD,
        CrossEntropyLossFlat,
        FlipItem,
        ImageDataLoaders,
        Normalize,
        RandomResizedCrop,
        vision_learner,
    )
    from fastai.vision.all import accuracy as share_right

    torch.manual_seed(0)
    clock = Clock()
    data = ImageDataLoaders.from_folder(
        pictures, valid="valid", item_tfms=[RandomResizedCrop(224), FlipItem()],
        batch_tfms=Normalize.from_stats(MEAN, STD), bs=32, num_workers=2, device=torch.device("cpu"),
    )  # fmt: skip
    learner = vision_learner(
        data, models.resnet18, pretrained=False, metrics=share_right,
        opt_func=partial(SGD, mom=0.9), loss_func=CrossEntropyLossFlat(), wd=1e-4,
    )  # fmt: skip
    learner.fit(1, 0.01)
    return {"seconds": clock(), "accuracy": float(learner.recorder.values[-1][-1])}


def keras(pictures: str) -> Figures:
    # Its own reader of folders needs tensorflow or grain, so it gets the bare loop's loaders.
    import keras

    clock = Clock()
    train, valid = usual_loaders(pictures)
    wrapped = keras.layers.TorchModuleWrapper(resnet18())
    model = keras.Sequential([keras.Input((3, 224, 224)), wrapped])
    model.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(train, validation_data=valid, epochs=1).history
    return {"seconds": clock(), "accuracy": history["val_accuracy"][-1]}


def lightning(pictures: str) -> Figures:
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = resnet18()

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            inputs, targets = batch
            loss = LOSS(self.network(inputs), targets)
            self.log("train_loss", loss, prog_bar=True)
            return loss

        def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
            inputs, targets = batch
            outputs = self.network(inputs)
            self.log("valid_loss", LOSS(outputs, targets))
            self.log("valid_accuracy", (outputs.argmax(1) == targets).float().mean(), prog_bar=True)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return sgd(self)

    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        trainer = L.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder)
        trainer.fit(Module(), *usual_loaders(pictures))
        return {"seconds": clock(), "accuracy": float(trainer.callback_metrics["valid_accuracy"])}


ULTRALYTICS_MODEL = """
nc: 2
backbone:
  - [-1, 1, TorchVision, [512, resnet18, None, True, 2]]
head:
  - [-1, 1, Classify, [nc]]
"""


def ultralytics(pictures: str) -> Figures:
    # Its own augmentation and wider head, a second validation, and all processors but one, as it does by itself.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["YOLO_CONFIG_DIR"] = folder
        from ultralytics import YOLO

        description = Path(folder, "resnet18-cls.yaml")
        description.write_text(ULTRALYTICS_MODEL)
        torch.manual_seed(0)
        clock = Clock()
        results = YOLO(str(description), task="classify").train(
            data=pictures, epochs=1, imgsz=224, batch=32, nbs=32, workers=2, optimizer="SGD", lr0=0.01,
            momentum=0.9, weight_decay=1e-4, device="cpu", pretrained=False, project=folder, name="run",
        )  # fmt: skip
        return {"seconds": clock(), "accuracy": float(results.top1)}


if __name__ == "__main__":
    measure(bare, layerkit, layerkit_bf16, fastai, keras, lightning, ultralytics, pictures="photos/small")

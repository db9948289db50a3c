"""Calls as a user would write them: mypy checks this file in strict mode, and nothing runs it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import ResNet18_Weights, resnet18

from layerkit import (
    Binary,
    History,
    Loaders,
    MLPHead,
    Multiclass,
    Prediction,
    Predictor,
    Preset,
    Regression,
    Run,
    Split,
    evaluate,
    find_head,
    fit,
    folder_loaders,
    freeze_backbone,
    load_predictor,
    per_batch,
    plan_split,
    replace_head,
    split_folder,
    table_loaders,
)

# The ten lines, with the types that a user's editor shows.
split: Split = split_folder("PetImages", "pets", valid=0.2, seed=0)
weights = ResNet18_Weights.DEFAULT
data: Loaders = folder_loaders("pets", weights=weights, batch_size=32)
task = Multiclass(data.classes)
model = replace_head(resnet18(weights=weights), task)
run: Run = fit(model, task, data.train, data.valid, epochs=8, frozen_epochs=5, checkpoint="runs/pets")
run.history.plot("curves.png")
predictor = Predictor(model, task, data.preset)
predictor.save("pets.safetensors")

# Labels from a pattern, or from a function of the relative path; counts or fractions.
by_pattern: Split = plan_split(Path("all"), valid=200, test=0.1, label=r"(cat|dog)\.\d+\.jpg")
by_function: Split = plan_split("all", label=lambda path: path.partition(".")[0], group=r"(\d+)_")

# Tables, other tasks, other heads.
prices: Loaders = table_loaders("prices.csv", "pictures", path="file", target="price", preset=Preset(224))
price = Regression(names=["price"], loss="huber")
defect = Binary(["good", "bad"], pos_weight="balanced")
replace_head(resnet18(), defect, head=MLPHead(hidden=(64,), activation="gelu"))
path: str = find_head(model).sites[0].path

# An own optimizer and schedule, an own loop, an own loss.
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
history: History = fit(
    model, task, data.train, data.valid, epochs=2, optimizer=optimizer, schedule=StepLR(optimizer, 1)
).history
fit(model, task, data.train, epochs=2, optimizer=torch.optim.AdamW, schedule="one-cycle")
fit(model, task, data.train, epochs=2, schedule=per_batch(lambda optimizer: StepLR(optimizer, 100)))
freeze_backbone(model)
own = DataLoader(TensorDataset(torch.zeros(8, 4), torch.zeros(8, 1)))
fit(nn.Linear(4, 1), nn.MSELoss(), own, own, epochs=3, lr=0.1)

# Answers.
measured: Mapping[str, float] = evaluate(model, task, data.valid)
first: Prediction = load_predictor("pets.safetensors")(torch.zeros(3, 300, 400, dtype=torch.uint8))
label: str | tuple[str, ...] | None = first.label

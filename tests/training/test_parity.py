"""`fit` ends with the same bits as the classic hand-written loop."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from layerkit import Multiclass, fit


def make_model() -> nn.Module:
    """Build a small network with batch norm and dropout, which draw and remember."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(24, 3),
    )


def make_loaders() -> tuple[DataLoader, DataLoader]:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(90, 3, 8, 8, generator=generator)
    targets = (inputs.mean((1, 2, 3)) * 20).round().long().clamp(-1, 1) + 1
    train = TensorDataset(inputs[:65], targets[:65])
    valid = TensorDataset(inputs[65:], targets[65:])
    return DataLoader(train, batch_size=16, shuffle=True), DataLoader(valid, batch_size=10)


OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "LBFGS": lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=4),
}


def classic_loop(model, train, valid, optimizer, scheduler, epochs, monitor):
    """Train as the lesson does, written out by hand; give the best weights and each epoch's figures."""
    criterion = nn.CrossEntropyLoss()
    best_weights = copy.deepcopy(model.state_dict())
    best_accuracy, best_loss = -1.0, float("inf")
    rows = []
    for _ in range(epochs):
        model.train()
        for inputs, labels in train:

            def closure(inputs=inputs, labels=labels):
                optimizer.zero_grad()
                loss = criterion(model(inputs), labels)
                loss.backward()
                return loss

            if isinstance(optimizer, torch.optim.LBFGS):
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
        scheduler.step()
        model.eval()
        running_loss, running_corrects, count = 0.0, 0, 0
        with torch.no_grad():
            for inputs, labels in valid:
                outputs = model(inputs)
                running_loss += criterion(outputs, labels).item() * inputs.size(0)
                running_corrects += (outputs.argmax(1) == labels).sum().item()
                count += inputs.size(0)
        loss, accuracy = running_loss / count, running_corrects / count
        rows.append((loss, accuracy))
        better = accuracy > best_accuracy if monitor == "valid_accuracy" else loss < best_loss
        if better:
            best_accuracy, best_loss = accuracy, loss
            best_weights = copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)
    return rows


@pytest.mark.parametrize("monitor", ["valid_loss", "valid_accuracy"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_same_bits_as_the_classic_loop(optimizer, monitor):
    """Weights, batch-norm statistics, figures and the global generator all end in the same bits."""
    torch.manual_seed(5)
    start = make_model()
    ends, generators, figures = [], [], []
    for way in ("classic", "layerkit"):
        model = copy.deepcopy(start)
        train, valid = make_loaders()
        made = OPTIMIZERS[optimizer](model.parameters())
        scheduler = StepLR(made, step_size=2, gamma=0.5)
        torch.manual_seed(11)
        if way == "classic":
            figures.append(classic_loop(model, train, valid, made, scheduler, 6, monitor))
        else:
            run = fit(
                model,
                Multiclass(3),
                train,
                valid,
                epochs=6,
                optimizer=made,
                schedule=scheduler,
                monitor=monitor,
                precision="fp32",
                channels_last=False,
                seed=None,
                device="cpu",
                progress=False,
            )
            figures.append([(row["valid_loss"], row["valid_accuracy"]) for row in run.history])
        ends.append(model.state_dict())
        generators.append(torch.get_rng_state())
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name
    assert torch.equal(*generators)
    for (loss, accuracy), (own_loss, own_accuracy) in zip(*figures, strict=True):
        assert own_loss == loss
        assert own_accuracy == pytest.approx(accuracy, abs=1e-6)


def test_a_plain_loss_trains_as_a_task_does():
    """Passing `nn.CrossEntropyLoss()` itself gives the bits that `Multiclass` gives."""
    torch.manual_seed(5)
    start = make_model()
    ends = []
    for task in (nn.CrossEntropyLoss(), Multiclass(3)):
        model = copy.deepcopy(start)
        train, valid = make_loaders()
        torch.manual_seed(11)
        fit(model, task, train, valid, epochs=2, optimizer=torch.optim.SGD, lr=0.05, progress=False)
        ends.append(model.state_dict())
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name

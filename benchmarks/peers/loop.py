"""The loop's own cost: a tiny network on batches in memory, one thread, each peer's progress and logging as usual.

    python loop.py PEER [--steps 150] [--turns 4]

`ms_step` is the mean time from one forward pass to the next, the first ones left out; `processor_ms_step` the same
of the processor's time. Each peer takes turns with the bare loop in the same process, bare first and last, since
machines are faster at one moment than at the next: `added_us` is the median difference between a turn and the mean
of the bare turns beside it. All use one torch DataLoader, or their own where they take only tensors.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial, wraps
from itertools import pairwise

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch
from measuring import Figures, measure
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

WARM = 20
BATCH = 32
LOSS = nn.CrossEntropyLoss()


class Tiny(nn.Sequential):
    """A network that notes when each of its forward passes begins."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(16, 2),
        )  # fmt: skip
        self.began: list[tuple[float, float]] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.began.append((time.perf_counter(), time.process_time()))
        return super().forward(inputs)


def tensors(steps: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(steps * BATCH, 3, 16, 16, generator=generator)
    return TensorDataset(inputs, torch.randint(0, 2, (len(inputs),), generator=generator))


def batches(steps: int) -> DataLoader:
    return DataLoader(tensors(steps), batch_size=BATCH, shuffle=True)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def figures(model: Tiny, steps: int) -> Figures:
    """Give the time of a step; a peer may have made forward passes of its own before the first."""
    first, last = model.began[-steps:][WARM], model.began[-1]
    counted = (steps - 1 - WARM) / 1e3
    return {
        "ms_step": round((last[0] - first[0]) / counted, 4),
        "processor_ms_step": round((last[1] - first[1]) / counted, 4),
    }


def beside_bare(peer: Callable[[int], Figures]) -> Callable[[int, int], Figures]:
    """Make the function that lets a peer and the bare loop take turns."""

    @wraps(peer)
    def take_turns(steps: int, turns: int) -> Figures:
        bare_turns, own = [bare(steps)], []
        for _ in range(turns):
            own.append(peer(steps))
            bare_turns.append(bare(steps))
        found = {}
        for key, added in (("ms_step", "added_us"), ("processor_ms_step", "added_processor_us")):
            mine = [turn[key] for turn in own]
            beside = [(before[key] + after[key]) / 2 for before, after in pairwise(bare_turns)]
            found[key], found[f"bare_{key}"] = statistics.median(mine), statistics.median(beside)
            found[added] = 1e3 * statistics.median(a - b for a, b in zip(mine, beside, strict=True))
        return {key: round(value, 4) for key, value in found.items()}

    return take_turns


def bare(steps: int) -> Figures:
    data, model = batches(steps), Tiny()
    optimizer = sgd(model)
    model.train()
    total = 0.0
    for step, (inputs, targets) in enumerate(data, 1):
        optimizer.zero_grad()
        loss = LOSS(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item()
        if step % 50 == 0:
            print(f"step {step}, loss {total / step:.4f}")
    return figures(model, steps)


def layerkit(steps: int) -> Figures:
    from layerkit import Multiclass, fit

    data, model = batches(steps), Tiny()
    fit(model, Multiclass(2), data, epochs=1, optimizer=sgd(model), device="cpu")
    return figures(model, steps)


def accelerate(steps: int) -> Figures:
    from accelerate import Accelerator
    from tqdm.auto import tqdm

    data, network = batches(steps), Tiny()
    accelerator = Accelerator(cpu=True)
    model, optimizer, data = accelerator.prepare(network, sgd(network), data)
    model.train()
    for inputs, targets in tqdm(data):
        optimizer.zero_grad()
        loss = LOSS(model(inputs), targets)
        accelerator.backward(loss)
        optimizer.step()
    return figures(network, steps)


def fastai(steps: int) -> Figures:
    from fastai.callback.progress import ProgressCallback  # noqa: F401  puts itself among the defaults
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import SGD

    data, model = DataLoaders(batches(steps), [], device=torch.device("cpu")), Tiny()
    learner = Learner(data, model, loss_func=LOSS, opt_func=partial(SGD, mom=0.9), lr=0.01)
    learner.fit(1)
    return figures(model, steps)


def ignite(steps: int) -> Figures:
    from ignite.engine import create_supervised_trainer
    from ignite.handlers.tqdm_logger import ProgressBar

    data, model = batches(steps), Tiny()
    trainer = create_supervised_trainer(model, sgd(model), LOSS, device="cpu")
    ProgressBar().attach(trainer, output_transform=lambda loss: {"loss": loss})
    trainer.run(data, max_epochs=1)
    return figures(model, steps)


def keras(steps: int) -> Figures:
    import keras

    data, network = batches(steps), Tiny()
    model = keras.Sequential([keras.Input((3, 16, 16)), keras.layers.TorchModuleWrapper(network)])
    model.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(data, epochs=1)
    return figures(network, steps)


def lightning(steps: int) -> Figures:
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = Tiny()

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            inputs, targets = batch
            loss = LOSS(self.network(inputs), targets)
            self.log("train_loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return sgd(self)

    data, module = batches(steps), Module()
    with tempfile.TemporaryDirectory() as folder:
        L.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder).fit(module, data)
        return figures(module.network, steps)


def poutyne(steps: int) -> Figures:
    from poutyne import Model

    data, network = batches(steps), Tiny()
    model = Model(network, sgd(network), "cross_entropy")
    model.fit_generator(data, epochs=1)
    return figures(network, steps)


def pytorch_accelerated(steps: int) -> Figures:
    from pytorch_accelerated import Trainer

    data, model = tensors(steps), Tiny()
    trainer = Trainer(model, LOSS, sgd(model))
    trainer.train(
        data,
        num_epochs=1,
        per_device_batch_size=BATCH,
        train_dataloader_kwargs={"shuffle": True, "num_workers": 0, "pin_memory": False, "drop_last": False},
    )
    return figures(model, steps)


def skorch(steps: int) -> Figures:
    from skorch import NeuralNetClassifier

    inputs, targets = tensors(steps).tensors
    net = NeuralNetClassifier(
        Tiny(), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.SGD, lr=0.01, optimizer__momentum=0.9,
        max_epochs=1, batch_size=BATCH, iterator_train__shuffle=True, train_split=None, device="cpu",
    )  # fmt: skip
    net.fit(inputs, targets)
    return figures(net.module_, steps)


PEERS = (bare, layerkit, accelerate, fastai, ignite, keras, lightning, poutyne, pytorch_accelerated, skorch)

if __name__ == "__main__":
    measure(*map(beside_bare, PEERS), steps=150, turns=4)

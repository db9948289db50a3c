"""A batch that does not fit the memory is taken in pieces, and the step is the one that it would have been."""

import pytest
import torch
from torch import nn

from layerkit import LayerkitWarning, Multiclass, fit
from layerkit.training import memory

torch.manual_seed(0)
DATA = [(torch.randn(10, 4), torch.arange(10) % 2)] * 2


class Hungry(nn.Sequential):
    """Has room for so many samples only, which it finds out when its buffers and the generator have moved."""

    room = 100

    def forward(self, inputs):
        output = super().forward(inputs)
        if self.training and len(inputs) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return output


@pytest.fixture
def _watching(monkeypatch):
    """Have a CPU watched as an accelerator is."""
    before = memory.Pieces.__init__

    def watch(self, *arguments, **options):
        before(self, *arguments, **options)
        self.is_watching = True

    monkeypatch.setattr(memory.Pieces, "__init__", watch)


def trained(room, *layers):
    torch.manual_seed(0)
    model = Hungry(*layers, nn.Linear(4, 2))
    model.room = room
    fit(model, Multiclass(2), DATA, DATA, epochs=2, seed=0, optimizer=torch.optim.SGD, lr=0.1, progress=False)
    return model


@pytest.mark.usefixtures("_watching")
def test_pieces_give_the_whole_batchs_gradient():
    """The weights are those of a run with room enough, to float precision."""
    whole = trained(100)
    with pytest.warns(LayerkitWarning, match="batch of 10 pictures does not fit.*2 pieces"):
        halves = trained(5)
    assert torch.allclose(whole[-1].weight, halves[-1].weight, atol=1e-6)


@pytest.mark.usefixtures("_watching")
@pytest.mark.filterwarnings("ignore::layerkit.LayerkitWarning")
def test_what_the_failed_attempt_moved_is_put_back():
    """Batch norm counts each piece once, and none of the attempts that failed."""
    model = trained(4, nn.BatchNorm1d(4))
    assert (
        int(model[0].num_batches_tracked) == 4 * 4
    )  # room for 4: pieces of 2, 3, 2 and 3 in each of four steps


@pytest.mark.usefixtures("_watching")
@pytest.mark.filterwarnings("ignore::layerkit.LayerkitWarning")
def test_without_room_for_one_picture_it_stops():
    """There is nothing left to halve."""
    with pytest.raises(torch.OutOfMemoryError):
        trained(0)


def test_several_processes_name_a_batch_size(monkeypatch):
    """One cannot take its batch in pieces while the others wait."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    pieces = memory.Pieces(nn.Linear(1, 1), torch.device("cpu"))
    with pytest.raises(torch.OutOfMemoryError, match="Try batch_size=16"):
        pieces.halve(torch.OutOfMemoryError("full"), 8)

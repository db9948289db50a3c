"""Train a backbone from its end to its beginning, one stage after another."""

from collections.abc import Sequence

from layerkit.freezing import freeze_backbone, unfreeze_backbone
from layerkit.training.moments import State


class Unfreeze:
    """Let one more stage of the backbone learn in each of the given epochs, from the head backwards.

    Parameters
    ----------
    at : sequence of int
        Epochs, counted from 1 over the whole run as in the history. The head learns from the start; the last
        stage from the first of these epochs on, the one before it from the second on, and so forth. What is
        not reached stays frozen.

    Notes
    -----
    A stage is what ``layerkit.freezing.unfreeze_backbone`` counts as one: ``layer4`` of a ResNet, a block of a vision
    transformer. What an earlier `layerkit.freeze` holds is set by this callback from now on.

    References
    ----------
    Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.3,
    https://arxiv.org/abs/1801.06146

    Examples
    --------
    >>> gradual = Unfreeze(at=[3, 5])
    """

    def __init__(self, at: Sequence[int]) -> None:
        self.at = tuple(at)
        if not self.at or any(isinstance(e, bool) or not isinstance(e, int) or e < 1 for e in self.at):
            raise ValueError(
                f"`at` is {at!r}; expected the epochs, counted from 1, in which one more stage begins to learn: "
                "at=[3, 5]."
            )

    def on_fit_start(self, state: State) -> None:
        """Open all that will ever learn, so that the optimizer knows of it."""
        self._open(state, len(self.at))

    def on_epoch_start(self, state: State) -> None:
        """Hold what is not to learn yet."""
        if state.phase == "full":
            self._open(state, sum(epoch <= state.epoch for epoch in self.at))

    on_epoch_resume = on_epoch_start

    def _open(self, state: State, stages: int) -> None:
        unfreeze_backbone(freeze_backbone(state.model), stages=stages)

"""What every task has in common: from a model's raw output and a batch's targets to one loss."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from layerkit.errors import TargetError
from layerkit.tasks.classes import warn_of_untrained
from layerkit.tasks.endings import last_activations
from layerkit.tasks.outputs import split_output
from layerkit.tasks.targets import as_finite, as_tensor

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Task(nn.Module, ABC):
    """Tie together a head's size, its loss, the check of its targets, its activation and its metrics.

    What a task learns from the training targets lives in its buffers: it moves with ``task.to(device)``, is
    checkpointed and is saved with the task, never inside the model.

    Notes
    -----
    For a task of your own, derive from the one that comes closest, or from `Task` with `out_features` and
    `criterion` at the least. Where a loss alone will do, `fit` takes any callable in place of a task.
    """

    out_features: int
    """How many outputs the head has."""

    classes: list[str] | dict[str, list[str] | None] | None = None
    """The names of the classes, where there are some."""

    refused_endings: tuple[str, ...] = ("softmax", "sigmoid")
    """What a model for this task may not end in, since the loss takes raw logits."""

    answers_pixels = True
    """Whether it takes the outputs of segmentation models, (N, out_features, H, W), and targets (N, H, W)."""

    adds_up = False
    """Whether the loss is a sum over the batch, and not a mean: then it cannot be taken in pieces."""

    _may_wait = True
    _ending_hint = ""

    @property
    def needs_targets(self) -> bool:
        """Whether `prepare` must see the training targets before the first loss.

        A buffer that waits for them holds NaN.
        """
        if self._may_wait:  # once filled it is not looked at again, which would wait for the device
            self._may_wait = any(bool(buffer.isnan().any()) for buffer in self.buffers())
        return self._may_wait

    def prepare(self, targets: Any) -> str | None:
        """Learn what the task needs from all training targets; `fit` does it by itself.

        Parameters
        ----------
        targets : Tensor or sequence
            The targets of the whole training set.

        Returns
        -------
        str or None
            What was found, in words.

        Raises
        ------
        TargetError
            They do not fit the task, or nothing can be learnt from them.
        """
        return None

    def examine(self, targets: Any) -> None:
        """Look at all training targets for what no batch can show; `fit` does it where they are at hand.

        Parameters
        ----------
        targets : Tensor or sequence
            The targets of the whole training set.

        Raises
        ------
        TargetError
            They do not fit the task, or nothing can be learnt from them.

        Warns
        -----
        LayerkitWarning
            A class has no picture.
        """
        warn_of_untrained(self.absent(targets))

    def absent(self, targets: Any) -> list[str]:
        """Name the classes that none of these targets has, in quotes.

        Parameters
        ----------
        targets : Tensor or sequence
            Those of a whole part of the data.

        Returns
        -------
        list of str
            Empty for numbers.
        """
        return []

    def check(self, target: Any) -> Any:
        """Check a batch's targets, and give them the dtype and the shape that `criterion` takes.

        Parameters
        ----------
        target : Tensor
            A batch's targets, as the loader gives them.

        Returns
        -------
        Tensor
            By default float32, of the shape that came in.

        Raises
        ------
        TargetError
            They do not fit the task. The values of targets on an accelerator are not looked at, which would
            wait for the device: check them on the host, as `fit` does.
        """
        return as_finite(as_tensor(target, self))

    @abstractmethod
    def criterion(self, logits: Tensor, target: Any) -> Tensor:
        """Compare float32 logits (N, out_features, ...) with checked targets; give the mean, a scalar."""

    def terms(self, logits: Tensor, target: Any) -> Tensor:
        """Give what `criterion` sums, where each term is a mean of its own: (num_terms,), or a scalar for one.

        Only a task whose loss has several such means overrides this, with `num_terms` and `weight_of`.
        """
        return self.criterion(logits, target)

    def loss(self, output: Any, target: Any) -> Tensor:
        """Compare a model's raw output with the targets.

        Parameters
        ----------
        output : Tensor, or the outputs of a torchvision model
            Raw logits (N, out_features), or (N,) for one output; (N, out_features, H, W) for segmentation.
            The auxiliary outputs of Inception, GoogLeNet and segmentation models are weighted as in their
            training; under ``torch.no_grad()`` they are left out.
        target : Tensor
            As `check` takes them.

        Returns
        -------
        Tensor, scalar

        Raises
        ------
        TargetError
            The targets do not fit the task or the output.
        ValueError
            The output went through an activation that the loss applies itself: see `check_ending`.
        RuntimeError
            The task needs the training targets first: see `prepare`.
        """
        self.check_ending(output)
        return self.checked_loss(output, self.check(target))

    def check_ending(self, output: Any) -> None:
        """Refuse a model's raw output that went through an activation which the loss applies itself.

        Parameters
        ----------
        output : Tensor, or the outputs of a torchvision model
            With the history that autograd keeps of it: without gradients, or from a compiled model, nothing is
            found.

        Raises
        ------
        ValueError
            The last operation was one of ``refused_endings``.
        """
        if torch.compiler.is_compiling():
            return
        logits, auxiliary = split_output(output)
        for part in (logits, *(extra for _, extra in auxiliary)):
            for task, ending in self._concerned(last_activations(part)):
                if ending in task.refused_endings:
                    raise ValueError(
                        f"The model ends in a {ending}; expected raw outputs of any sign, since "
                        f"{type(task).__name__} applies to them what it needs. Remove the {ending} from the end of "
                        "the model; task.activate(logits) gives what people read. A fresh end for any torchvision "
                        f"model: replace_head(model, task).{task._ending_hint}"
                    )

    def checked_loss(self, output: Any, target: Any, shares: Tensor | None = None) -> Tensor:
        """Do as `loss` does with targets that `check` gave, whose values are not looked at again.

        Of a piece of a batch, `shares` says how much of the batch's mean it makes up, (num_terms,) or a scalar.
        """
        terms = self.checked_terms(output, target)
        if shares is not None:
            terms = terms * shares
        return terms.sum() if terms.ndim else terms

    def checked_terms(self, output: Any, target: Any) -> Tensor:
        """Give the terms that `checked_loss` sums, of all outputs, auxiliary ones included."""
        if self.needs_targets:
            raise RuntimeError(
                f"{self} has not seen the training targets yet; expected task.prepare(targets) before the "
                "first loss. fit() does it by itself; in a loop of your own, call it once."
            )
        logits, auxiliary = split_output(output)
        terms = self._compare(logits, target)
        for weight, extra in auxiliary:
            terms = terms + weight * self._compare(extra, target)
        if terms.ndim and terms.shape != (self.num_terms,):
            raise ValueError(
                f"The loss has the shape {tuple(terms.shape)}; expected one number, the mean over the batch. Of a loss "
                "of torch, leave reduction='mean'; in a criterion of your own, end with .mean()."
            )
        return terms

    @property
    def num_terms(self) -> int:
        """How many means the loss is a sum of."""
        return 1

    @property
    def counts_evenly(self) -> bool:
        """Whether every term is divided by the number of samples; else `weight_of` says by what."""
        return True

    def weight_of(self, target: Any) -> Tensor:
        """Say how much checked targets count in means over several batches: what each term is divided by."""
        return torch.tensor(float(len(target)), device=target.device)

    def activate(self, logits: Tensor) -> Any:
        """Turn logits into what people read: probabilities, or values in the user's units."""
        return logits

    def decide(self, logits: Tensor) -> Any:
        """Turn logits into one answer a picture: a class index, or values in the user's units."""
        return self.activate(logits)

    def metrics(self) -> "MetricCollection":
        """Make the default metrics; their ``update`` takes what `metric_inputs` gives."""
        from torchmetrics import MetricCollection

        return MetricCollection({})

    def metric_inputs(self, logits: Tensor, target: Any) -> tuple[Any, Any]:
        """Turn logits and checked targets into what torchmetrics compares."""
        return self.activate(logits), target

    def constant_logits(self, targets: Any) -> Tensor:
        """Give the logits (out_features,) of the constant answer that fits checked targets best."""
        return torch.zeros(self.out_features)

    def settings(self) -> dict[str, Any]:
        """Give the constructor's arguments as JSON has them: ``type(task)(**task.settings())`` is its like.

        What was learned from targets is not among them, but in ``task.state_dict()``.
        """
        return {}

    def _compare(self, logits: Tensor, target: Any) -> Tensor:
        if not logits.ndim:
            raise TargetError(
                "The model's output is a single number without a dimension for the batch, as squeeze() gives for a "
                "batch of one; expected (N,) or (N, 1). Write squeeze(1) in its forward()."
            )
        logits = (logits if logits.ndim > 1 else logits.unsqueeze(1)).float()
        if logits.shape[1] != self.out_features:
            raise TargetError(
                f"The model gives {logits.shape[1]} outputs a picture; expected {self.out_features} for {self} (the "
                f"outputs' shape is {tuple(logits.shape)}). Give it the right head, auxiliary ones included: "
                "replace_head(model, task). If that was done, another layer gives the output: name it with where=."
            )
        if not len(logits):
            raise TargetError(
                "The batch is empty, and has no mean loss; expected one picture at least. Check the dataset and its "
                "collate_fn."
            )
        self._check_fit(logits, target)
        return self.terms(logits, target)

    def _concerned(self, endings: list[str | None]) -> list[tuple["Task", str | None]]:
        """Say which task meets which of a model's endings."""
        return [(self, ending) for ending in endings]

    def _check_fit(self, logits: Tensor, target: Any) -> None:
        """Refuse whatever would broadcast: each logit has its target, or each row of logits."""
        if target.shape != logits.shape[:1] + logits.shape[2:] and target.shape != logits.shape:
            raise TargetError(
                f"The model's outputs have the shape {tuple(logits.shape)} and the targets "
                f"{tuple(target.shape)}; expected one target for each output of {self}. Check what the "
                "loader and the model's forward() give."
            )

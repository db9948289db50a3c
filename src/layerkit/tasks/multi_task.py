"""Several questions about one picture."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from layerkit.errors import TargetError, suggestion
from layerkit.tasks.base import Task
from layerkit.tasks.binary import Binary
from layerkit.tasks.classes import positive_numbers, shorten
from layerkit.tasks.multiclass import Multiclass
from layerkit.tasks.multilabel import Multilabel
from layerkit.tasks.regression import Regression

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

_KINDS: dict[str, type[Task]] = {kind.__name__: kind for kind in (Binary, Multiclass, Multilabel, Regression)}


class MultiTask(Task):
    """Ask several questions about one picture: one backbone, one head whose outputs are shared out, one loss.

    Parameters
    ----------
    parts : dict of str to Task
        The questions by name. Their outputs follow one another in the head's.
    loss_weights : None, dict of str to float, or "uncertainty"
        How the parts' losses are summed: all alike, by these weights, or by weights that are learned beside
        the model from how far each part can be known at all.

    Notes
    -----
    Targets are a dict of the same names, each as its part takes them. `activate` and `decide` give such a
    dict. Each part's metrics are called ``<part>_<metric>``, its loss ``<part>_loss``.

    With ``"uncertainty"`` a part's loss L counts as ``exp(-s) * L + s / 2``, where s is learned and stands
    for the logarithm of the variance; for `Regression` half of the first term, which makes it a Gaussian
    likelihood. These parameters are the task's: an optimizer made by hand needs ``task.parameters()`` too.

    References
    ----------
    Kendall, Gal and Cipolla 2018, Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry
    and Semantics, https://arxiv.org/abs/1705.07115

    Examples
    --------
    >>> task = MultiTask({"place": Regression(4, standardize=False), "pedestrian": Binary()})
    >>> task.out_features
    5
    >>> answers = task.decide(torch.zeros(2, 5))
    >>> answers["place"].shape, answers["pedestrian"].shape
    (torch.Size([2, 4]), torch.Size([2]))
    """

    classes: dict[str, list[str] | None]
    log_variances: nn.Parameter | None  # one for each part
    answers_pixels = False

    def __init__(
        self,
        parts: Mapping[str, Task],
        *,
        loss_weights: Mapping[str, float] | Literal["uncertainty"] | None = None,
    ) -> None:
        super().__init__()
        self.parts = _as_modules(parts)
        self.out_features = sum(part.out_features for part in self._tasks().values())
        self.classes = {name: part.classes for name, part in self._tasks().items()}  # type: ignore[misc]
        endings = (ending for part in self._tasks().values() for ending in part.refused_endings)
        self.refused_endings = tuple(dict.fromkeys(endings))
        names = list(self.parts)
        if isinstance(loss_weights, str) and loss_weights != "uncertainty":
            raise ValueError(
                f"`loss_weights` is {loss_weights!r}; expected 'uncertainty', a number for each part, or "
                f"None.{suggestion(loss_weights, ['uncertainty'])} 'uncertainty' learns them."
            )
        learned = loss_weights == "uncertainty"
        self.register_parameter("log_variances", nn.Parameter(torch.zeros(len(names))) if learned else None)
        if loss_weights is None or isinstance(loss_weights, str):
            loss_weights = dict.fromkeys(names, 1.0)
        numbers = positive_numbers("loss_weights", loss_weights, names)
        self.loss_weights = dict(zip(names, numbers, strict=True))

    def settings(self) -> dict[str, Any]:
        """Give the constructor's arguments as JSON has them."""
        parts = {
            name: {"task": type(part).__name__, **part.settings()} for name, part in self._tasks().items()
        }
        return {
            "parts": parts,
            "loss_weights": self.loss_weights if self.log_variances is None else "uncertainty",
        }

    def prepare(self, targets: Any) -> str | None:
        """Prepare each part with its targets; where one cannot be, all stay as they were."""
        targets = self._named(targets)
        before = {name: value.clone() for name, value in self.state_dict().items()}
        try:
            found = {name: part.prepare(targets[name]) for name, part in self._tasks().items()}
        except ValueError:
            self.load_state_dict(before)
            raise
        return "; ".join(f"{name}: {words}" for name, words in found.items() if words) or None

    def examine(self, targets: Any) -> None:
        """Look at each part's targets."""
        targets = self._named(targets)
        for name, part in self._tasks().items():
            with _naming(name):
                part.examine(targets[name])

    def absent(self, targets: Any) -> list[str]:
        """Name the classes that each part lacks."""
        targets = self._named(targets)
        parts = self._tasks().items()
        return [f"{name}: {absent}" for name, part in parts for absent in part.absent(targets[name])]

    def check(self, target: Any) -> dict[str, Any]:
        """Check each part's targets."""
        target = self._named(target)
        checked = {}
        for name, part in self._tasks().items():
            with _naming(name):
                checked[name] = part.check(target[name])
        return checked

    def criterion(self, logits: Tensor, target: Mapping[str, Any]) -> Tensor:
        """Give the weighted sum of the parts' losses."""
        return self._weighted_losses(logits, target).sum()

    def terms(self, logits: Tensor, target: Mapping[str, Any]) -> Tensor:
        """Give the weighted loss of each part and, where the weights are learned, the price of these."""
        return (self._weighted_losses if self._sums_parts else self.criterion)(logits, target)

    @property
    def _sums_parts(self) -> bool:
        """Whether `criterion` is this one; of a user's own nobody knows what it sums."""
        return type(self).criterion is MultiTask.criterion

    def _weighted_losses(self, logits: Tensor, target: Mapping[str, Any]) -> Tensor:
        losses = self.part_losses(logits, target)
        if self.log_variances is None:
            return torch.stack([self.loss_weights[name] * loss for name, loss in losses.items()])
        halves = [0.5 if isinstance(part, Regression) else 1.0 for part in self._tasks().values()]
        scaled = torch.stack([half * loss for half, loss in zip(halves, losses.values(), strict=True)])
        return torch.cat(
            [self.log_variances.neg().exp() * scaled, self.log_variances.sum(0, keepdim=True) / 2]
        )

    @property
    def num_terms(self) -> int:
        """One for each part, and one for learned weights."""
        return len(self.parts) + (self.log_variances is not None) if self._sums_parts else 1

    @property
    def counts_evenly(self) -> bool:
        """Whether all parts do."""
        return not self._sums_parts or all(part.counts_evenly for part in self._tasks().values())

    def weight_of(self, target: Mapping[str, Any]) -> Tensor:
        """Say what each part's loss is divided by; the price of learned weights counts by samples."""
        weights = [part.weight_of(target[name]) for name, part in self._tasks().items()]
        if self.log_variances is not None:
            weights.append(super().weight_of(next(iter(target.values()))))
        return torch.stack(weights)

    def part_losses(self, logits: Tensor, target: Mapping[str, Any]) -> dict[str, Tensor]:
        """Give each part's loss of checked targets, unweighted."""
        shares = self._share_out(logits)
        return {name: part.checked_loss(shares[name], target[name]) for name, part in self._tasks().items()}

    def activate(self, logits: Tensor) -> dict[str, Any]:
        """Give a dict of each part's probabilities or values."""
        shares = self._share_out(logits)
        return {name: part.activate(shares[name]) for name, part in self._tasks().items()}

    def decide(self, logits: Tensor) -> dict[str, Any]:
        """Give a dict of each part's answers."""
        shares = self._share_out(logits)
        return {name: part.decide(shares[name]) for name, part in self._tasks().items()}

    def metrics(self) -> "MetricCollection":
        """Make ``<part>_<metric>`` of each part's metrics, and ``<part>_loss``."""
        from torchmetrics import MeanMetric, MetricCollection

        from layerkit.tasks.part_metrics import PartMetric

        made: dict[str, Any] = {}
        for name, part in self._tasks().items():
            made[f"{name}_loss"] = PartMetric(MeanMetric(), _loss_of(name), higher_is_better=False)
            for metric_name, metric in part.metrics().items():
                made[f"{name}_{metric_name}"] = PartMetric(
                    metric, name, higher_is_better=metric.higher_is_better
                )
        return MetricCollection(made, compute_groups=False)

    def metric_inputs(
        self, logits: Tensor, target: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give dicts of what each part's metrics compare; to ``<part>.loss`` the loss and its weight."""
        shares = self._share_out(logits)
        losses = self.part_losses(logits, target)
        answers, targets = {}, {}
        for name, part in self._tasks().items():
            answers[name], targets[name] = part.metric_inputs(shares[name], target[name])
            counted = len(logits) if part.counts_evenly else part.weight_of(target[name])
            answers[_loss_of(name)], targets[_loss_of(name)] = losses[name], counted
        return answers, targets

    def constant_logits(self, targets: Mapping[str, Any]) -> Tensor:
        """Give the parts' best constant logits, one after another."""
        return torch.cat([part.constant_logits(targets[name]) for name, part in self._tasks().items()])

    def _tasks(self) -> dict[str, Task]:
        return dict(self.parts.items())  # type: ignore[arg-type]

    def _share_out(self, logits: Tensor) -> dict[str, Tensor]:
        sizes = [part.out_features for part in self._tasks().values()]
        return dict(zip(self.parts, torch.split(logits, sizes, dim=1), strict=True))

    def _named(self, targets: Any) -> Mapping[str, Any]:
        if isinstance(targets, Mapping) and set(targets) == set(self.parts):
            return targets
        seen = f"a dict of {shorten(list(map(str, targets)))}" if isinstance(targets, Mapping) else "no dict"
        raise TargetError(
            f"The targets are {seen}; expected a dict with {shorten(list(self.parts))} for MultiTask. "
            "table_loaders(..., target={name: column}) gives one; a dataset of your own may return one "
            "beside each picture."
        )

    def _concerned(self, endings: list[str | None]) -> list[tuple[Task, str | None]]:
        """Hold an ending of all outputs against each part; of several pieces nobody knows whose they are."""
        parts = list(self._tasks().values())
        if len(endings) == 1:
            return [(part, endings[0]) for part in parts]
        return [
            (parts[0], ending) for ending in endings if all(ending in part.refused_endings for part in parts)
        ]

    def _check_fit(self, logits: Tensor, target: Any) -> None:
        """Leave it to each part."""


@contextmanager
def _naming(part: str) -> Iterator[None]:
    try:
        yield
    except TargetError as error:
        raise TargetError(f"In {part!r}: {error}") from error


def _loss_of(part: str) -> str:
    return f"{part}.loss"  # with a point, which no part's name has


def _as_modules(parts: Mapping[str, Any]) -> nn.ModuleDict:
    """Take the parts, also as `MultiTask.settings` gives them."""
    if not isinstance(parts, Mapping) or not parts:
        raise TypeError(f"`parts` is {parts!r}; expected tasks by name, such as {{'pedestrian': Binary()}}.")
    modules = nn.ModuleDict()
    for name, part in parts.items():
        if isinstance(part, Mapping) and part.get("task") in _KINDS:
            part = _KINDS[part["task"]](**{key: value for key, value in part.items() if key != "task"})
        if not isinstance(part, Task) or isinstance(part, MultiTask):
            raise TypeError(
                f"The part {name!r} is {part!r}; expected one of layerkit's tasks, such as Binary(), and no "
                "MultiTask within another. Put all parts side by side."
            )
        try:
            modules.add_module(name, part)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"A part is called {name!r}, which torch takes for no module's name ({error}); expected a "
                "plain word. Rename it."
            ) from error
    return modules

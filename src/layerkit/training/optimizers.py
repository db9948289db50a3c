"""The optimizer: layerkit's choice, the user's own, or one made from a class or a factory."""

import inspect
import math
import warnings
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from layerkit.errors import CheckpointError, HeadError, LayerkitWarning, warn
from layerkit.heads import find_head

OptimizerLike = Optimizer | Callable[..., Optimizer] | None

FROZEN_LR = 4e-3
"""For AdamW on the standardized features of a frozen backbone, whatever the backbone: they all have one scale."""

SOLVED_LR = 4e-4
"""The same for a head that starts from its exact optimum: enough to take up what dropout asks for, and to keep it."""

FULL_LR = 2e-4
"""For AdamW on pretrained weights: a fifth of its usual rate, so that they are kept."""

HEAD_FACTOR = 10.0
"""How much faster a head learns that starts at zero; one that was solved or trained before is to be kept."""


def check_rate(lr: Any) -> float | None:
    """Give the learning rate as Python's own number, or refuse what is none."""
    if lr is None:
        return None
    if isinstance(lr, bool) or not isinstance(lr, Real) or not 0 < float(lr) < math.inf:
        raise ValueError(
            f"`lr` is {lr!r}; expected a number above zero. 1e-4 is usual for fine-tuning with AdamW."
        )
    return float(lr)


def make_optimizer(
    optimizer: OptimizerLike,
    model: nn.Module,
    task: nn.Module,
    lr: float | None,
    *,
    follows_frozen: bool = False,
) -> Optimizer:
    """Make the optimizer of the whole model, or check the one that was made already.

    Raises
    ------
    ValueError
        It holds parameters of another model, lacks the task's, or the learning rate is given twice.
    """
    parameters = [p for module in (model, task) for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(
            "The model has no trainable parameter; expected at least its head to require gradients. Use "
            "layerkit.unfreeze(model) or replace_head(model, task)."
        )
    if optimizer is None:
        return _default_optimizer(model, task, FULL_LR if lr is None else lr, follows_frozen=follows_frozen)
    if isinstance(optimizer, Optimizer):
        if lr is not None:
            raise ValueError(
                f"`lr` is {lr} and `optimizer` has rates of its own; expected one of the two. Leave lr out, or "
                f"pass the class instead: optimizer=torch.optim.{type(optimizer).__name__}."
            )
        _check_parameters(optimizer, model, task)
        return optimizer
    if not callable(optimizer):
        raise TypeError(
            f"`optimizer` is {optimizer!r}; expected a torch optimizer, its class, or a factory. Pass "
            "optimizer=torch.optim.SGD, with lr=0.01 beside it."
        )
    try:
        made = optimizer(parameters) if lr is None else _with_rate(optimizer, parameters, lr)
    except ValueError as error:
        if not isinstance(optimizer, type):
            raise
        raise ValueError(
            f"{optimizer.__name__} refuses this model's parameters or settings ({error}); expected ones that it "
            "takes. Muon takes matrices only: choose AdamW or SGD, or pass a factory that makes an optimizer of "
            "some of the parameters."
        ) from error
    if not isinstance(made, Optimizer):
        raise TypeError(
            f"`optimizer` gave a {type(made).__name__}; expected a torch optimizer. Pass one, its class, or a "
            "factory: lambda parameters: torch.optim.SGD(parameters, lr=0.01)."
        )
    return made


def check_pairing(
    optimizer: Optimizer, model: nn.Module, *, scaled: bool, skips_nonfinite: bool, clips: bool
) -> None:
    """Refuse what an optimizer cannot do, before anything is trained.

    Raises
    ------
    ValueError
        It evaluates the loss by itself and so can neither be scaled nor leave a step out; or it needs sparse
        gradients that the model does not give.
    """
    name = type(optimizer).__name__
    if needs_closure(optimizer) and scaled:
        raise ValueError(
            f"{name} evaluates the loss several times a step, which torch's gradient scaler does not allow; "
            "expected another precision than fp16. Pass precision='fp32' or 'bf16'."
        )
    if needs_closure(optimizer) and skips_nonfinite:
        raise ValueError(
            f"{name} evaluates the loss several times a step and changes the weights in between, so that a step "
            "cannot be left out; expected nonfinite='raise' with it."
        )
    if isinstance(optimizer, torch.optim.SparseAdam):
        sparse = {id(m.weight) for m in model.modules() if getattr(m, "sparse", False)}
        dense = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in sparse]
        if dense or clips:
            what = f"{dense[0]} has dense ones" if dense else "clip_norm would make them dense"
            raise ValueError(
                f"SparseAdam takes sparse gradients only, and {what}; expected embeddings made with sparse=True "
                "and nothing else. Use AdamW."
            )


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take back an optimizer's state, laid out as its parameters are: fused steps go by position in memory.

    Raises
    ------
    CheckpointError
        It is that of other parameters.
    """
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        held, saved = (
            [len(g["params"]) for g in groups] for groups in (optimizer.param_groups, state["param_groups"])
        )
        raise CheckpointError(
            f"The checkpoint's optimizer holds {saved} parameters in its groups, and this one {held}; expected the "
            "same. Freeze what was frozen then, or pass another folder as checkpoint= to begin a new run."
        ) from error
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        saved, values = state["state"].get(number, {}), optimizer.state.get(parameter, {})
        for name, value in values.items():
            before = saved.get(name)
            if isinstance(value, Tensor) and isinstance(before, Tensor):
                like = parameter if value.ndim and value.shape == parameter.shape else value
                # Torch has cast it to the parameter's dtype, which need not be its own.
                values[name] = torch.empty_like(like, dtype=before.dtype).copy_(before)


def needs_closure(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer evaluates the loss by itself, several times a step, as LBFGS does."""
    parameter = inspect.signature(type(optimizer).step).parameters.get("closure")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _with_rate(optimizer: Any, parameters: list[nn.Parameter], lr: float) -> Any:
    if isinstance(optimizer, type):
        return optimizer(parameters, lr=lr)
    raise ValueError(
        f"`lr` is {lr} and `optimizer` is a factory; expected one of the two. Set the rate inside the factory."
    )


def _default_optimizer(model: nn.Module, task: nn.Module, lr: float, *, follows_frozen: bool) -> Optimizer:
    # The groups do not depend on the weights, so that a run that goes on finds its own.
    head = _head_parameters(model)
    is_new = not follows_frozen and not all(bool(parameter.any()) for parameter in head if parameter.ndim > 1)
    groups: list[dict[str, Any]] = [
        {"params": []},
        {"params": [], "lr": lr * (HEAD_FACTOR if is_new else 1.0)},
    ]
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter in head]["params"].append(parameter)
    own = [parameter for parameter in task.parameters() if parameter.requires_grad]
    groups.append({"params": own, "lr": lr * HEAD_FACTOR, "weight_decay": 0.0})
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, weight_decay=0.01)


def _head_parameters(model: nn.Module) -> set[nn.Parameter]:
    with warnings.catch_warnings():  # a guessed head is good enough here: only its rate depends on it
        warnings.simplefilter("ignore", LayerkitWarning)
        try:
            sites = find_head(model).sites
        except HeadError:
            return set()
    return {parameter for site in sites for parameter in site.module.parameters()}


def _check_parameters(optimizer: Optimizer, model: nn.Module, task: nn.Module) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    known = {id(p) for module in (model, task) for p in module.parameters()}
    if held - known:
        raise ValueError(
            f"`optimizer` holds {len(held - known)} parameters that are not the model's; expected the model's own. "
            "It was probably made before replace_head(): make it afterwards, or pass the class."
        )
    if any(p.requires_grad and id(p) not in held for p in task.parameters()):
        raise ValueError(
            "`optimizer` lacks the task's own parameters; expected them beside the model's, since they are learnt "
            "too. Pass [*model.parameters(), *task.parameters()] to it."
        )
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if missing:
        warn(
            f"`optimizer` lacks {len(missing)} trainable parameters of the model, {missing[0]} first: they stay as "
            "they are. If that is meant, freeze them with layerkit.freeze(); otherwise give it model.parameters()."
        )

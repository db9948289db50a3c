"""The layers that heads are made of: torch's own for the plain ones, MLPHead, and a stand after pooling."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

from torch import nn

HeadFactory = Callable[[int, int], nn.Module]
PlainLayer = partial[nn.Module]
Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu"]

_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

# What stands before and after a head of (N, C) features in the place of each convolution.
_POOLS: dict[Any, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    nn.Conv1d: (nn.AdaptiveAvgPool1d, (1,)),
    nn.Conv2d: (nn.AdaptiveAvgPool2d, (1, 1)),
    nn.Conv3d: (nn.AdaptiveAvgPool3d, (1, 1, 1)),
}


class MLPHead:
    """Make multilayer heads: a factory of (in_features, out_features), to be passed as ``head=``.

    Each call returns a plain ``nn.Sequential``: for each hidden width a linear layer, the activation and a
    dropout, then the last linear layer, which starts at zero.

    Parameters
    ----------
    hidden : sequence of int, default (256,)
        The widths of the hidden layers; empty for a single linear layer.
    activation : {"relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu"}, default "relu"
        What stands between the layers.
    dropout : float, default 0.2
        The probability of dropping a hidden unit, from 0 to 1; 0 leaves the dropout out.

    Raises
    ------
    ValueError
        If a width is below 1, the activation is unknown, or `dropout` is outside 0 to 1.

    Notes
    -----
    With the last layer at zero, the first outputs are zero whatever the features, as for a plain head.
    The hidden layers keep torch's own initialisation.

    Examples
    --------
    >>> from layerkit.heads import MLPHead
    >>> MLPHead(hidden=(64,), activation="gelu", dropout=0.1)(512, 3)
    Sequential(
      (0): Linear(in_features=512, out_features=64, bias=True)
      (1): GELU(approximate='none')
      (2): Dropout(p=0.1, inplace=False)
      (3): Linear(in_features=64, out_features=3, bias=True)
    )
    """

    def __init__(
        self, hidden: tuple[int, ...] = (256,), activation: Activation = "relu", dropout: float = 0.2
    ) -> None:
        if isinstance(hidden, int) or any(not isinstance(width, int) or width < 1 for width in hidden):
            raise ValueError(
                f"`hidden` is {hidden!r}; expected widths of 1 or more. "
                "For one hidden layer of 256 units, pass hidden=(256,)."
            )
        if activation not in _ACTIVATIONS:
            raise ValueError(
                f"`activation` is {activation!r}; expected one of {', '.join(get_args(Activation))}. "
                'For the usual choice, pass activation="relu".'
            )
        if not 0 <= dropout <= 1:
            raise ValueError(
                f"`dropout` is {dropout!r}; expected a probability from 0 to 1. "
                "To drop a fifth of the hidden units, pass dropout=0.2."
            )
        self.hidden = tuple(hidden)
        self.activation = activation
        self.dropout = dropout

    def __call__(self, in_features: int, out_features: int) -> nn.Module:
        """Return a new head of these sizes."""
        modules: list[nn.Module] = []
        for width in self.hidden:
            modules += [nn.Linear(in_features, width), _ACTIVATIONS[self.activation]()]
            if self.dropout:
                modules.append(nn.Dropout(self.dropout))
            in_features = width
        modules.append(zero_start(nn.Linear(in_features, out_features)))
        return nn.Sequential(*modules)

    def __repr__(self) -> str:
        return f"MLPHead(hidden={self.hidden}, activation={self.activation!r}, dropout={self.dropout})"


def zero_start(layer: nn.Module) -> nn.Module:
    """Set a layer's own parameters to zero, in place."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def plain_layer(module: nn.Module) -> PlainLayer | None:
    """Return the factory of torch layers like `module` with other sizes; None if it is no such layer."""
    bias = getattr(module, "bias", None) is not None
    if isinstance(module, nn.Linear):
        return partial(nn.Linear, bias=bias)  # type: ignore[return-value]
    for conv in _POOLS:
        if isinstance(module, conv) and module.groups == 1:
            return partial(
                conv,
                kernel_size=module.kernel_size,
                stride=module.stride,
                padding=module.padding,
                dilation=module.dilation,
                padding_mode=module.padding_mode,
                bias=bias,
            )
    return None


def after_pooling(plain: PlainLayer, head: nn.Module, out_features: int) -> nn.Module:
    """Wrap a head of (N, C) features so that it can stand where a 1x1 convolution of feature maps stood.

    The result is shaped (N, K, 1, 1), so the mean that the model takes afterwards changes nothing.
    """
    pool, ones = _POOLS[plain.func]
    parts: dict[str, nn.Module] = {
        "pool": pool(1),
        "flatten": nn.Flatten(),
        "head": head,
        "unflatten": nn.Unflatten(1, (out_features, *ones)),
    }
    return nn.Sequential(OrderedDict(parts))


def is_convolution(plain: PlainLayer) -> bool:
    """Tell whether a plain layer takes feature maps instead of (N, features)."""
    return plain.func in _POOLS

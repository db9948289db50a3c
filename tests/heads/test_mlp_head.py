"""MLPHead makes plain multilayer heads."""

import pickle

import pytest
import torch
from torch import nn

from layerkit.heads import MLPHead


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", torch.relu),
        ("leaky_relu", nn.functional.leaky_relu),
        ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid),
        ("gelu", nn.functional.gelu),
        ("silu", nn.functional.silu),
    ],
)
def test_outputs_are_those_of_the_layers_by_hand(activation, function):
    """Two hidden layers and an output layer, with the activation between them."""
    torch.manual_seed(0)
    head = MLPHead((5, 4), activation=activation, dropout=0.0)(3, 2)
    linear = [module for module in head if isinstance(module, nn.Linear)]
    nn.init.normal_(linear[2].weight)
    x = torch.randn(7, 3)

    by_hand = linear[2](function(linear[1](function(linear[0](x)))))
    torch.testing.assert_close(head(x), by_hand)


def test_the_first_outputs_are_zero():
    """The last layer starts at zero, the hidden ones do not."""
    head = MLPHead((8,))(3, 2)
    assert torch.equal(head(torch.randn(4, 3)), torch.zeros(4, 2))
    assert head[0].weight.std() > 0


def test_dropout_stands_after_each_hidden_layer():
    """There are as many dropouts as hidden layers, and none without a probability."""
    assert [m.p for m in MLPHead((8, 8), dropout=0.3)(3, 2) if isinstance(m, nn.Dropout)] == [0.3, 0.3]
    assert not any(isinstance(m, nn.Dropout) for m in MLPHead((8,), dropout=0.0)(3, 2))


def test_no_hidden_layer_is_a_linear_head():
    """With no widths there is the output layer alone."""
    assert len(MLPHead(())(3, 2)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": (0,)}, r"`hidden` is \(0,\); expected widths of 1 or more"),
        ({"hidden": 256}, r"`hidden` is 256; expected widths.*pass hidden=\(256,\)"),
        ({"hidden": (1.5,)}, "expected widths"),
        ({"activation": "relUU"}, "'relUU'; expected one of relu, leaky_relu"),
        ({"dropout": 1.5}, "`dropout` is 1.5; expected a probability"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    """Each message says what would do."""
    with pytest.raises(ValueError, match=message):
        MLPHead(**arguments)


def test_factories_are_values():
    """A factory says what it makes, and survives a pickle."""
    factory = pickle.loads(pickle.dumps(MLPHead((4,), "tanh", 0.1)))
    assert repr(factory) == "MLPHead(hidden=(4,), activation='tanh', dropout=0.1)"

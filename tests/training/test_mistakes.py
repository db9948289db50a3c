"""Mistakes that show only when training begins; the classic fifteen are in tests/test_mistakes.py."""

import warnings

import pytest
import torch
from torch import nn
from torchvision import models

from layerkit import LayerkitWarning, Multiclass, fit, replace_head, solve_head
from layerkit.demo import packaged_weights
from layerkit.training.mistakes import check_backbone

NAMES = [
    "convnext_tiny", "densenet121", "efficientnet_b0", "maxvit_t", "mnasnet0_5", "mobilenet_v3_small",
    "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_v2_t", "vgg11", "vit_b_32",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_are_found_and_trained_ones_are_not(name):
    """With a new head too; a single trained layer is enough."""
    model = replace_head(models.get_model(name, weights=None), Multiclass(3))
    with pytest.warns(LayerkitWarning, match=r"is to be frozen, and its weights are random.*weights="):
        check_backbone(model)
    trained = next(
        module
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
        or (name in ("squeezenet1_1", "vgg11") and isinstance(module, nn.Conv2d))
    )
    nn.init.constant_(trained.bias, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_backbone(model)


def test_norms_that_begin_at_zero_are_as_they_were_made_too():
    """So does the last one of each block of many ResNets."""
    model = replace_head(models.resnet18(zero_init_residual=True), Multiclass(3))
    with pytest.warns(LayerkitWarning, match="its weights are random"):
        check_backbone(model)


def test_a_layer_whose_name_begins_as_the_heads_belongs_to_the_body():
    """A trained fc1 is no part of the head fc."""
    model = nn.Sequential()
    model.fc1 = nn.Linear(4, 4)
    model.body = nn.Linear(4, 4)
    nn.init.zeros_(model.body.bias)
    model.fc = nn.Linear(4, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_backbone(replace_head(model, Multiclass(3), where="fc"))


def test_the_packaged_weights_raise_no_alarm(recwarn):
    """They are trained."""
    with packaged_weights():
        check_backbone(replace_head(models.squeezenet1_1(weights="DEFAULT"), Multiclass(3)))
    assert not recwarn.list


@pytest.mark.parametrize(
    "layer", [nn.Linear(4, 2), nn.Linear(4, 2, bias=False), nn.BatchNorm1d(4, affine=False)]
)
def test_what_cannot_be_told_is_not_warned_of(layer):
    """Biases at random, or none at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_backbone(replace_head(nn.Sequential(layer, nn.Linear(4, 2)), Multiclass(3), where="1"))


@pytest.mark.filterwarnings("default::layerkit.LayerkitWarning")
def test_it_is_said_where_a_backbone_is_frozen():
    """By fit and by solve_head, at the user's line, and not where nothing is frozen."""
    task = Multiclass(2)
    model = replace_head(models.squeezenet1_1(), task)
    loader = [(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))]
    for train in (
        lambda: fit(model, task, loader, epochs=1, frozen_epochs=1, progress=False),
        lambda: solve_head(model, task, loader, loader, progress=False),
    ):
        with pytest.warns(LayerkitWarning, match="its weights are random") as caught:
            train()
        assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, task, loader, epochs=1, progress=False)

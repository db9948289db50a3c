"""The builder of every classifier is found, and a recipe that is not right is not believed."""

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import get_model, list_models

from layerkit.heads import MLPHead, find_head, replace_head
from layerkit.predicting.architectures import (
    Architecture,
    assign,
    describe_as,
    find_architecture,
    fixed_pattern,
    prove,
)
from layerkit.predicting.layers import WithoutWeights, describe, differences, restore

CLASSIFIERS = list_models(module=models)
QUANTIZABLE = list_models(module=models.quantization)


def shapes(model):
    """Return the keys and shapes of a state dict."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def build(name, **arguments):
    """Build a model without values."""
    if name.endswith(("googlenet", "inception_v3")):
        arguments["init_weights"] = False
    with WithoutWeights():
        return get_model(name, weights=None, **arguments)


def test_there_are_as_many_classifiers_as_the_design_counts():
    """A torchvision with other models shows here first."""
    assert (len(CLASSIFIERS), len(QUANTIZABLE)) >= (80, 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS + QUANTIZABLE)
def test_every_classifier_is_found(name):
    """With a new head, the builder and the class count come out, and no layer but SqueezeNet's lost ReLU."""
    model = build(name)
    replace_head(model, 7)

    recipe = find_architecture(model)

    assert recipe.builder == name
    assert recipe.arguments["num_classes"] == 7
    assert recipe.layers.keys() == ({"classifier.2"} if name.startswith("squeezenet") else set())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("googlenet", {"transform_input": True, "aux_logits": False}),
        ("inception_v3", {"transform_input": True}),
        ("vit_b_32", {"image_size": 64}),
        ("mnasnet0_5", {"dropout": 0.5}),
        ("swin_v2_t", {}),
    ],
)
def test_settings_that_no_state_dict_shows_are_found(name, arguments):
    """What pretrained weights or the user changed in the builder's arguments is in the recipe, and holds."""
    torch.manual_seed(0)
    model = replace_head(get_model(name, weights=None, **arguments, **quiet(name)), 3, head=nn.Linear).eval()
    size = arguments.get("image_size", 75)

    recipe = find_architecture(model)

    assert recipe.builder == name
    with torch.inference_mode():
        inputs = fixed_pattern((size, size), torch.empty(0))
        assert prove(recipe, model, inputs) is None
        torch.testing.assert_close(assign(recipe.build(), model.state_dict())(inputs), model(inputs))


def quiet(name):
    """Keep two builders from warning."""
    return {"init_weights": False} if name in ("googlenet", "inception_v3") else {}


@pytest.mark.parametrize("start", ["zero", "random"])
def test_a_setting_that_the_recipe_lacks_is_not_believed(start):
    """The proof sees another transform_input, even behind a head that answers zero to everything."""
    torch.manual_seed(0)
    head = None if start == "zero" else nn.Linear
    model = get_model("googlenet", init_weights=False, aux_logits=False, transform_input=True)
    replace_head(model, 3, head=head).eval()
    wrong = Architecture("googlenet", {"init_weights": False, "aux_logits": False, "num_classes": 3})

    with torch.inference_mode():
        assert prove(wrong, model, fixed_pattern((64, 64), torch.empty(0))) == "it gives other outputs"


def test_other_layers_anywhere_are_recorded():
    """A ResNet for small pictures and a head of several layers are rebuilt, and their outputs agree."""
    torch.manual_seed(0)
    model = models.resnet18()
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    replace_head(model, 3, head=MLPHead((16,), "gelu")).eval()
    nn.init.normal_(model.fc[-1].weight)

    recipe = find_architecture(model)

    assert recipe.builder == "resnet18"
    assert recipe.layers.keys() == {"conv1", "maxpool", "fc"}
    with torch.inference_mode():
        assert prove(recipe, model, fixed_pattern((32, 32), torch.empty(0))) is None


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18"])
def test_a_rebuilt_head_can_be_replaced_like_the_first(name):
    """After the way through a recipe, replace_head gives what it gives on torchvision's own model."""
    model = replace_head(build(name), 3, head=MLPHead((16,)))

    rebuilt = replace_head(find_architecture(model).build(), 5)

    assert shapes(rebuilt) == shapes(replace_head(build(name), 5))
    assert find_head(rebuilt).sites[0].out_features == 5


def test_what_no_builder_makes_is_not_found():
    """A foreign model, a subclass and a head with code of its own have no recipe."""

    class Own(models.ResNet):
        pass

    class OwnHead(nn.Linear):
        pass

    with WithoutWeights():
        own = Own(models.resnet.BasicBlock, [2, 2, 2, 2])
        with_own_head = models.resnet18()
        with_own_head.fc = OwnHead(512, 2)

    assert find_architecture(nn.Linear(2, 2)) is None
    assert find_architecture(own) is None
    assert find_architecture(with_own_head) is None


def test_no_recipe_leads_to_a_download_or_to_other_code():
    """Detectors, whose builders load backbones, pretrained weights and unlisted layers are refused."""
    with pytest.raises(ValueError, match="no classifier of torchvision"):
        Architecture("fasterrcnn_resnet50_fpn")
    with pytest.raises(ValueError, match="weights"):
        Architecture("resnet18", {"weights": "DEFAULT"})
    with pytest.raises(ValueError, match="'DataParallel' is not one that layerkit saves"):
        Architecture("resnet18", {}, {"fc": {"layer": "DataParallel", "arguments": {}}}).build()


def test_a_given_recipe_is_completed_by_the_layers_that_differ():
    """Named arguments are taken as they are, and the head is recorded beside them."""
    recipe = describe_as("resnet18", replace_head(build("resnet18"), 3), {})

    assert recipe.arguments == {}
    assert recipe.layers["fc"]["arguments"] == {"in_features": 512, "out_features": 3, "bias": True}
    assert describe_as("resnet34", build("resnet18"), {}) is None


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(3, 2, bias=False),
        nn.Conv2d(4, 2, 3, stride=2, padding="valid", groups=2),
        nn.BatchNorm1d(3, eps=0.1, affine=False),
        nn.LayerNorm((3, 2)),
        nn.GroupNorm(2, 4),
        nn.Dropout(0.3),
        nn.LeakyReLU(0.2),
        nn.GELU("tanh"),
        nn.PReLU(3),
        nn.AdaptiveAvgPool2d((2, None)),
        nn.MaxPool2d(3, 2, 1),
        nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(3, 4), nn.SiLU()), nn.Unflatten(1, (2, 2))),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_come_back_as_they_were(layer):
    """A described layer is built again with the same settings and shapes."""
    again = restore(describe(layer))

    assert repr(again) == repr(layer)
    assert shapes(again) == shapes(layer)
    assert not list(differences(again, layer))


def test_a_layer_that_only_has_a_known_name_is_not_described():
    """A class of the user's that is called Linear is not taken for torch's."""
    own = type("Linear", (nn.Linear,), {})

    assert describe(own(2, 2)) is None
    assert describe(nn.Sequential(own(2, 2))) is None


def test_synchronised_batch_norm_answers_as_the_plain_one():
    """A model converted for several GPUs is still torchvision's."""
    model = nn.SyncBatchNorm.convert_sync_batchnorm(build("resnet18"))

    assert find_architecture(model).layers == {}

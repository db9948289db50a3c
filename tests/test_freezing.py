"""Frozen parts hold still, whoever calls train(); deeper parts take smaller steps."""

import copy
import gc
import importlib.util
import io
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import (
    densenet121,
    googlenet,
    list_models,
    mobilenet_v3_small,
    resnet18,
    squeezenet1_1,
    vgg11,
    vit_b_32,
)

from layerkit.errors import HeadError
from layerkit.freezing import (
    freeze,
    freeze_backbone,
    is_frozen,
    parameter_groups,
    unfreeze,
    unfreeze_backbone,
)
from layerkit.heads import MLPHead, backbone_stages, find_head, replace_head

WITH_HEAD = [name for name in list_models() if not name.startswith("raft")]


@pytest.fixture(scope="module")
def build():
    """Load the builder that the page of all heads is made with."""
    path = Path(__file__).parents[1] / "docs" / "heads_table.py"
    spec = importlib.util.spec_from_file_location("heads_table", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.build


class Net(nn.Module):
    """A small model with what must hold still: batch norm, dropout, a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(4))
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.neck = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.neck(self.body(x * self.token)))


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def state(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("copied", [lambda model: model, copy.deepcopy, through_a_file])
@pytest.mark.parametrize(
    "train", [lambda m: m.train(), lambda m: m.body.train(), lambda m: m.body[1].train()]
)
def test_frozen_parts_hold_still(copied, train):
    """Parameters and statistics stay, and dropout is off, after train() on the model, the part or a layer."""
    torch.manual_seed(0)
    model = Net()
    model.train()
    freeze(model.body)
    model = copied(model)
    train(model)
    before, x = state(model.body), torch.randn(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)

    F.mse_loss(model(x), torch.ones(8, 2)).backward()
    optimizer.step()

    assert not any(module.training for module in model.body.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.body.state_dict().items())
    assert torch.equal(model.body(x), model.body(x))
    assert model.neck[1].num_batches_tracked == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, through_a_file])
def test_copies_are_frozen_and_unfrozen_on_their_own(copied):
    """Unfreezing a copy leaves the original frozen, and the other way round."""
    model = freeze(Net())
    other = unfreeze(copied(model))

    assert all(map(is_frozen, model.modules()))
    assert not any(map(is_frozen, other.modules()))
    other.train()
    assert all(module.training for module in other.modules())
    assert not any(module.training for module in model.modules())


def test_train_and_eval_still_return_the_module():
    """``model = model.train()`` works on a frozen model, in copies too."""
    model = freeze(Net())
    copied = copy.deepcopy(model)
    assert model.train() is model
    assert copied.eval() is copied


def test_nothing_else_shows():
    """The class and the state dict are as they were, so checkpoints go both ways."""
    model = Net()
    keys = list(model.state_dict())
    assert type(freeze(model)) is Net
    assert list(model.state_dict()) == keys
    Net().load_state_dict(model.state_dict())


def test_unfreezing_restores_what_was():
    """A parameter that was off before stays off, and the mode is the one asked for in the meantime."""
    model = Net().eval()
    model.body[0].bias.requires_grad_(False)
    before = trainable(model)

    freeze(freeze(model.body))
    freeze(model)
    assert trainable(model) == set()
    model.train()
    unfreeze(model)

    assert trainable(model) == before
    assert all(module.training for module in model.modules())


def test_a_part_of_a_frozen_part_can_be_unfrozen():
    """A thawed layer trains, and follows train(), inside a container that stays frozen."""
    model = freeze(Net().eval())
    unfreeze(model.body[1])
    assert not model.body[1].training
    model.train()

    assert trainable(model) == {"body.1.weight", "body.1.bias"}
    assert [module.training for module in model.body] == [False, True, False]


def test_unfreezing_what_is_not_frozen_changes_nothing():
    """What the user switched off by hand stays off."""
    model = Net()
    model.body.requires_grad_(False)
    unfreeze(model)
    assert trainable(model) == {name for name in trainable(Net()) if not name.startswith("body")}


def test_gradients_of_an_earlier_batch_are_dropped():
    """An optimizer finds nothing to step on in a part that was frozen after a backward pass."""
    model = Net()
    model(torch.randn(4, 4)).sum().backward()
    freeze(model.body)

    assert all(p.grad is None for p in model.body.parameters())
    assert model.head.weight.grad is not None


def test_a_frozen_model_is_freed_at_once():
    """Freezing makes no reference cycle, so memory comes back without the garbage collector."""
    gc.disable()
    try:
        model = freeze(Net())
        gone = weakref.ref(model.body[0])
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_a_new_head_on_a_frozen_model_trains():
    """replace_head gives a trainable head, whatever was frozen around or in its place."""
    model = replace_head(freeze(vgg11()), 3)
    model.train()

    assert trainable(model) == {"classifier.6.weight", "classifier.6.bias"}
    assert model.classifier[6].training
    assert not model.classifier[5].training


def test_frozen_models_compile_and_export():
    """torch.compile and torch.export take a frozen model, with the same outputs."""
    model = freeze(Net())
    x = torch.randn(3, 4)
    exported = torch.export.export(model, (x,)).module()
    compiled = torch.compile(model, backend="eager", fullgraph=True)

    torch.testing.assert_close(exported(x), model(x))
    torch.testing.assert_close(compiled(x), model(x))
    assert compiled.train().training in (True, False)
    assert not model.body[1].training


@pytest.mark.parametrize(
    ("builder", "dropout"),
    [
        (resnet18, None),
        (vgg11, "classifier.5"),
        (squeezenet1_1, "classifier.0"),
        (vit_b_32, None),
        (mobilenet_v3_small, "classifier.2"),
        (densenet121, None),
    ],
)
@pytest.mark.parametrize("head", [None, MLPHead((4,))])
@pytest.mark.parametrize("frozen_before", [False, True])
def test_only_the_head_of_a_frozen_backbone_is_alive(builder, dropout, head, frozen_before):
    """All but the head and its dropout is frozen, a class token and neighbours in the classifier included."""
    with torch.device("meta"):
        model = replace_head(builder(), 3, head=head)
    if frozen_before:
        freeze(model)
    site = find_head(model).sites[0]
    freeze_backbone(model).train()

    assert {name.startswith(site.path) for name in trainable(model)} == {True}
    assert trainable(model) == {f"{site.path}.{name}" for name, _ in site.module.named_parameters()}
    alive = {name for name, module in model.named_modules() if module.training}
    ancestors = {"", site.path.rpartition(".")[0]}
    inside = {name for name in alive if f"{name}.".startswith(f"{site.path}.")}
    assert alive - inside == ancestors | ({dropout} if dropout else set())
    assert site.path in inside


def test_auxiliary_heads_belong_to_the_head():
    """A frozen GoogLeNet still gives its auxiliary outputs in training, and trains their last layers."""
    model = freeze_backbone(replace_head(googlenet(init_weights=False), 3)).train()

    assert trainable(model) == {
        f"{layer}.{p}" for layer in ("fc", "aux1.fc2", "aux2.fc2") for p in ("weight", "bias")
    }
    assert model(torch.randn(2, 3, 32, 32)).aux_logits1.shape == (2, 3)


@pytest.mark.parametrize("name", WITH_HEAD)
def test_every_family_has_its_parameters_in_groups(build, name):
    """Each trainable parameter is in one group, steps shrink with depth, frozen ones are left out."""
    with torch.device("meta"):
        model = replace_head(build(name), 7)
    groups = parameter_groups(model, 1.0, decay=0.5, weight_decay=0.1)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    head = {id(p) for site in find_head(model).sites for p in site.module.parameters() if p.requires_grad}

    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert {p for p in grouped if rate[p] == 1.0} == head
    # One step for each stage, half of the next one's; the first parameter has the smallest.
    rates = [
        {rate[id(p)] for path in s.modules for p in model.get_submodule(path).parameters() if id(p) in rate}
        for s in backbone_stages(model)
    ]
    assert rates == [{0.5 ** (len(rates) - i)} for i in range(len(rates))]
    assert rate[id(next(p for p in model.parameters() if p.requires_grad))] == min(rate.values())
    assert 4 <= len(rates) <= 40

    freeze_backbone(model)
    assert {id(p) for group in parameter_groups(model, 1.0) for p in group["params"]} == head


@pytest.mark.parametrize("name", WITH_HEAD)
def test_norms_and_biases_have_no_weight_decay(build, name):
    """Weight decay falls on the weights of all linear layers and convolutions, and on no norm and no bias."""
    with torch.device("meta"):
        model = build(name)
    groups = parameter_groups(model, 0.1, weight_decay=0.3)
    decayed = {id(p) for group in groups if group["weight_decay"] == 0.3 for p in group["params"]}
    spared = {id(p) for group in groups if group["weight_decay"] == 0.0 for p in group["params"]}
    norms = [module for module in model.modules() if "Norm" in type(module).__name__]
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)]

    assert {id(layer.weight) for layer in layers if layer.weight.requires_grad} <= decayed
    assert {id(p) for norm in norms for p in norm.parameters(recurse=False) if p.requires_grad} <= spared
    assert {
        id(p) for key, p in model.named_parameters() if key.endswith("bias") and p.requires_grad
    } <= spared
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}


def test_groups_go_into_an_optimizer():
    """An optimizer takes the groups, and its own weight decay where none was given."""
    model = resnet18()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), weight_decay=0.05)

    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}
    assert [round(group["lr"], 6) for group in optimizer.param_groups[::2]] == [
        round(0.1 * 0.7**depth, 6) for depth in range(6)
    ]


def test_shared_parameters_are_grouped_once():
    """A weight that two layers share is in one group."""
    model = Net()
    model.neck[0].weight = model.body[0].weight
    groups = parameter_groups(model, 0.1, where="head")
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0}, "`lr` is 0; expected a number above 0"),
        ({"lr": float("nan")}, "`lr` is nan"),
        ({"lr": 1, "decay": 1.5}, "`decay` is 1.5; expected a factor above 0 and up to 1"),
        ({"lr": 1, "weight_decay": -1}, "`weight_decay` is -1; expected 0 or more"),
    ],
)
def test_impossible_rates_are_refused(arguments, message):
    """Each message says what would do."""
    with pytest.raises(ValueError, match=message):
        parameter_groups(Net(), **arguments)


def test_stages_are_unfrozen_from_the_head_down():
    """Gradual unfreezing thaws the last stages first, and all of them at the end, class tokens included."""
    with torch.device("meta"):
        model = freeze_backbone(vit_b_32())
    names = [stage.name for stage in backbone_stages(model)]
    assert names[0] == "conv_proj"
    assert names[-1] == "encoder.layers.encoder_layer_11"

    unfreeze_backbone(model, stages=2)
    thawed = trainable(model)
    assert any(name.startswith("encoder.layers.encoder_layer_10.") for name in thawed)
    assert "encoder.ln.weight" in thawed
    assert not any(name.startswith("encoder.layers.encoder_layer_9.") for name in thawed)
    model.train()
    assert model.encoder.layers.encoder_layer_11.training
    assert not model.encoder.layers.encoder_layer_9.training

    assert trainable(unfreeze_backbone(model)) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(("stages", "count"), [(0, 2), (1, 17), (99, 62), (None, 62)])
def test_any_number_of_stages_can_be_asked_for(stages, count):
    """Zero leaves the head alone, and more than there are is all."""
    with torch.device("meta"):
        model = freeze_backbone(resnet18())
    assert len(trainable(unfreeze_backbone(model, stages=stages))) == count


def test_a_negative_number_of_stages_is_refused():
    """There is nothing below zero stages."""
    with pytest.raises(ValueError, match="`stages` is -1; expected how many stages"):
        unfreeze_backbone(resnet18(), stages=-1)


def test_stages_look_past_wrappers():
    """A compiled model has the stages of the model inside."""
    with torch.device("meta"):
        stages = backbone_stages(torch.compile(resnet18()))
    assert [stage.name for stage in stages] == [
        f"_orig_mod.{n}" for n in ("conv1", "layer1", "layer2", "layer3", "layer4")
    ]


def test_a_model_without_a_head_is_refused():
    """Nothing is frozen where no head is found."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    with pytest.raises(HeadError, match="No linear layer was found"):
        freeze_backbone(model)
    assert trainable(model) == {"0.weight", "0.bias"}

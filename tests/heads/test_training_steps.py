"""Real training steps on every family, with every task that it can have."""

import pytest
import torch
from torch import nn
from torchvision.models import maxvit
from torchvision.models.video import mvit

from layerkit.features import FrozenHead, precompute_features
from layerkit.heads import find_head, replace_head
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression
from layerkit.tasks.outputs import split_output

# The smallest model of each family, and a small picture or clip that it takes.
SMALL = {
    "alexnet": (3, 64, 64),
    "convnext_tiny": (3, 32, 32),
    "densenet121": (3, 32, 32),
    "efficientnet_b0": (3, 32, 32),
    "googlenet": (3, 32, 32),
    "inception_v3": (3, 299, 299),  # its auxiliary head takes no less
    "maxvit_t": (3, 32, 32),
    "mnasnet0_5": (3, 32, 32),
    "mobilenet_v2": (3, 32, 32),
    "mobilenet_v3_small": (3, 32, 32),
    "regnet_y_400mf": (3, 32, 32),
    "resnet18": (3, 32, 32),
    "shufflenet_v2_x0_5": (3, 32, 32),
    "squeezenet1_1": (3, 64, 64),
    "swin_t": (3, 32, 32),
    "swin_v2_t": (3, 32, 32),
    "vgg11": (3, 32, 32),
    "vit_b_32": (3, 32, 32),
    "quantized_googlenet": (3, 32, 32),
    "quantized_inception_v3": (3, 75, 75),
    "quantized_mobilenet_v2": (3, 32, 32),
    "quantized_mobilenet_v3_large": (3, 32, 32),
    "quantized_resnet18": (3, 32, 32),
    "quantized_shufflenet_v2_x0_5": (3, 32, 32),
    "mc3_18": (3, 2, 16, 16),
    "mvit_v1_b": (3, 4, 32, 32),
    "s3d": (3, 16, 64, 64),
    "swin3d_t": (3, 2, 32, 32),
}
OPTIONS = {"vit_b_32": {"image_size": 32}, "quantized_inception_v3": {"aux_logits": False}}
# These builders write 224 pixels into the model and take no other size from outside.
SIZES = {
    "maxvit_t": (maxvit, "_maxvit", {"input_size": (32, 32), "partition_size": 1}),
    "mvit_v1_b": (mvit, "_mvit", {"spatial_size": (32, 32), "temporal_size": 4}),
}
TASKS = {
    "regression": (Regression(2, standardize=False), torch.tensor([[-1.0, -3.0], [-2.0, 0.5]])),
    "binary": (Binary(), torch.tensor([1, 0])),
    "multiclass": (Multiclass(3), torch.tensor([2, 0])),
    "multilabel": (Multilabel(3), torch.tensor([[1, 0, 1], [0, 0, 1]])),
    "several": (
        MultiTask({"depth": Regression(standardize=False), "kind": Multiclass(3)}),
        {"depth": torch.tensor([-1.0, -2.0]), "kind": torch.tensor([1, 2])},
    ),
}
SEGMENTATION = ["deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large"]
DETECTORS = [
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fcos_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
]


def smaller(build, sizes):
    return lambda **arguments: build(**{**arguments, **sizes})


@pytest.fixture(scope="module", params=SMALL)
def small(heads_table, request):
    """Build a model of each family and a batch, once for all tasks, so that heads are replaced again too."""
    name = request.param
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        if name in SIZES:
            module, builder, sizes = SIZES[name]
            patch.setattr(module, builder, smaller(getattr(module, builder), sizes))
        model = heads_table.build(name, **OPTIONS.get(name, {}))
    if name == "s3d":
        model.avgpool = nn.Identity()  # it takes no picture below 224 pixels
    return model, torch.randn(2, *SMALL[name])  # two, since batch norm needs two values a channel in training


def step(model, task, pictures, target):
    """Take a step on a batch, and give the function of its loss and what that was before."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def loss():
        torch.manual_seed(1)  # the same units are dropped before and after
        return task.loss(model.train()(pictures), target)

    before = loss()
    before.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss, before.item()


def moving(model):
    """Name the parameters that have a gradient, one that is finite and not zero."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name for name, gradient in gradients.items() if gradient.isfinite().all() and gradient.any()}


def head_weights(model):
    return {f"{site.path}.weight" for site in find_head(model).sites}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_step_lowers_the_loss(small, name):
    """From a head at zero, one step on the whole model brings the loss of the batch down."""
    (model, pictures), (task, target) = small, TASKS[name]
    loss, before = step(replace_head(model, task), task, pictures, target)

    assert loss().item() < before


@pytest.mark.slow
def test_the_second_step_reaches_the_first_layer(small):
    """A head at zero passes no gradient on; after one step every head and the first layer have theirs."""
    (model, pictures), (task, target) = small, TASKS["regression"]
    loss, _ = step(replace_head(model, task), task, pictures, target)
    loss().backward()

    first = next(name for name, parameter in model.named_parameters() if parameter.dim() > 1)
    assert {first, *head_weights(model)} <= moving(model)


@pytest.mark.slow
def test_the_head_on_features_answers_like_the_whole_model(small):
    """What the frozen phase trains, the head on features that were gathered once, gives the model's own answers."""
    model, pictures = small
    model = replace_head(model, 3, head=nn.Linear).eval()
    with torch.no_grad():
        expected, _ = split_output(model(pictures))
    features, _ = precompute_features(model, [(pictures, torch.zeros(len(pictures)))])
    head = FrozenHead(model, features).eval()

    scale = expected.abs().max().item()
    torch.testing.assert_close(head(head.standardize(features)), expected, rtol=0, atol=5e-4 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("task", [Multiclass(3, ignore_index=255), Binary()], ids=["multiclass", "binary"])
@pytest.mark.parametrize("name", SEGMENTATION)
def test_a_step_of_segmentation_lowers_the_loss(heads_table, name, task):
    """Targets are one class a pixel, (N, H, W); every head moves, auxiliary ones and LRASPP's two included."""
    torch.manual_seed(0)
    options = {} if name.startswith("lraspp") else {"aux_loss": True}
    model = replace_head(heads_table.build(name, **options), task)
    target = torch.randint(0, task.out_features + (task.out_features == 1), (2, 32, 32))
    if isinstance(task, Multiclass):
        target[:, :4] = 255  # no class: the border of an object
    loss, before = step(model, task, torch.randn(2, 3, 32, 32), target)
    after = loss()
    after.backward()

    assert after.item() < before
    assert len(head_weights(model)) == 2
    assert head_weights(model) <= moving(model)


def detection_target(name):
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([2])}
    if name.startswith("mask"):
        target["masks"] = torch.zeros(1, 64, 64, dtype=torch.uint8)
        target["masks"][:, 8:40, 8:40] = 1
    if name.startswith("keypoint"):
        target["keypoints"] = torch.tensor([[[20.0, 20.0, 1.0]] * 17])
    return target


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_a_step_of_each_detector(heads_table, name):
    """Losses are finite, the new predictor gets gradients, and labels are in the new range."""
    torch.manual_seed(0)
    sizes = {} if name.startswith("ssd") else {"min_size": 64, "max_size": 64}
    if "rcnn" in name:
        sizes |= {
            "box_batch_size_per_image": 8,
            "rpn_post_nms_top_n_train": 20,
            "rpn_post_nms_top_n_test": 20,
        }
    model = replace_head(heads_table.build(name, **sizes), 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    count = 1 if name == "ssd300_vgg16" else 2  # without batch norm, one will do of its large pictures
    pictures, targets = [torch.rand(3, 64, 64)] * count, [detection_target(name)] * count

    losses = model(pictures, targets)
    sum(losses.values()).backward()
    optimizer.step()

    assert all(torch.isfinite(loss) for loss in losses.values())
    for site in find_head(model).sites:
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in site.module.parameters())
    model.eval()
    with torch.no_grad():
        found = model([torch.rand(3, 64, 64)])[0]
    assert set(found["labels"].tolist()) <= {0, 1, 2}


def filled(model, seed):
    """Give a model of the meta device memory on the CPU, with values of its own."""
    generator = torch.Generator().manual_seed(seed)
    model = model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.copy_(torch.rand((), generator=generator).mul(100).expand_as(value))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, *SEGMENTATION, *DETECTORS])
def test_a_saved_checkpoint_of_torchvisions_own_builder_loads(heads_table, name, tmp_path):
    """A file of the builder's model goes into the replaced one, strictly, and the values go back again."""
    with torch.device("meta"):
        replaced, own = replace_head(heads_table.build(name), 3), heads_table.build(name, num_classes=3)
    replaced, own = filled(replaced, seed=0), filled(own, seed=1)
    expected = {key: value.flatten()[0].clone() for key, value in own.state_dict().items()}

    torch.save(own.state_dict(), tmp_path / "own.pt")
    replaced.load_state_dict(torch.load(tmp_path / "own.pt", weights_only=True, mmap=True))
    filled(own, seed=2).load_state_dict(replaced.state_dict())

    assert all((value == expected[key]).all() for key, value in own.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "retinanet_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"]
)
def test_a_loaded_checkpoint_answers_as_the_builders_own_model(heads_table, name):
    """What no state dict shows, counts of classes above all, is as the builder has it too."""
    torch.manual_seed(0)
    size = {} if name == "resnet18" else {"min_size": 64}
    own = heads_table.build(name, num_classes=3, **size).eval()
    replaced = replace_head(heads_table.build(name, **size), 3).eval()
    replaced.load_state_dict(own.state_dict())
    pictures = torch.rand(1, 3, 64, 64)

    with torch.no_grad():
        ours, theirs = replaced(pictures), own(pictures)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

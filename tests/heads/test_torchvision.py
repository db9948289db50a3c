"""Every model of torchvision's registry takes a new head."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import list_models

from layerkit.errors import HeadError
from layerkit.heads import find_head, replace_head
from layerkit.heads.families import FAMILIES, REFUSED

MODELS = list_models()
# The smallest of each family, and an input it takes.
SMALLEST = {
    "alexnet": (2, 3, 64, 64),
    "convnext_tiny": (2, 3, 32, 32),
    "densenet121": (2, 3, 32, 32),
    "efficientnet_b0": (2, 3, 32, 32),
    "googlenet": (2, 3, 32, 32),
    "inception_v3": (2, 3, 75, 75),
    "maxvit_t": (2, 3, 224, 224),
    "mnasnet0_5": (2, 3, 32, 32),
    "mobilenet_v2": (2, 3, 32, 32),
    "mobilenet_v3_small": (2, 3, 32, 32),
    "regnet_y_400mf": (2, 3, 32, 32),
    "resnet18": (2, 3, 32, 32),
    "shufflenet_v2_x0_5": (2, 3, 32, 32),
    "squeezenet1_1": (2, 3, 64, 64),
    "swin_t": (2, 3, 32, 32),
    "swin_v2_t": (2, 3, 64, 64),
    "vgg11": (2, 3, 32, 32),
    "vit_b_32": (2, 3, 224, 224),
    "quantized_googlenet": (2, 3, 32, 32),
    "quantized_inception_v3": (2, 3, 75, 75),
    "quantized_mobilenet_v2": (2, 3, 32, 32),
    "quantized_mobilenet_v3_large": (2, 3, 32, 32),
    "quantized_resnet18": (2, 3, 32, 32),
    "quantized_shufflenet_v2_x0_5": (2, 3, 32, 32),
    "mc3_18": (2, 3, 2, 16, 16),
    "mvit_v1_b": (1, 3, 16, 224, 224),
    "s3d": (1, 3, 16, 64, 64),
    "swin3d_t": (2, 3, 2, 32, 32),
}
DETECTORS = [
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fcos_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
]


def test_the_registry_is_the_one_that_the_table_was_made_for():
    """A torchvision with other models shows here first."""
    assert len(MODELS) >= 121
    assert set(REFUSED) == {"RAFT"}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_the_state_dict_of_its_own_builder(heads_table, name):
    """Replacing the head gives the keys and shapes of torchvision's builder with that many classes."""
    row = heads_table.row(name)

    if name.startswith("raft"):
        assert row.status.startswith("refused: RAFT estimates optical flow")
    else:
        assert row.status == "passed"
        assert row.family in FAMILIES


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large"])
def test_auxiliary_classifiers_of_segmentation_are_replaced(heads_table, name):
    """A segmentation model built with aux_loss has its auxiliary classifier replaced too."""
    with torch.device("meta"):
        model = replace_head(heads_table.build(name, aux_loss=True), 3)
        expected = heads_table.build(name, aux_loss=True, num_classes=3)

    assert heads_table.shapes(model) == heads_table.shapes(expected)
    assert [(site.path, site.auxiliary) for site in find_head(model).sites] == [
        ("classifier.4", False),
        ("aux_classifier.4", True),
    ]


@pytest.mark.parametrize(
    "name", ["googlenet", "inception_v3", "quantized_googlenet", "quantized_inception_v3"]
)
def test_auxiliary_heads_may_be_missing(heads_table, name):
    """A model built without auxiliary heads has one site."""
    with torch.device("meta"):
        model = replace_head(heads_table.build(name, aux_logits=False), 3)

    assert [site.path for site in find_head(model).sites] == ["fc"]


@pytest.mark.parametrize(
    ("name", "dropout"),
    [
        ("alexnet", None),
        ("efficientnet_b0", "classifier.0"),
        ("googlenet", "dropout"),
        ("inception_v3", "dropout"),
        ("mobilenet_v3_small", "classifier.2"),
        ("mvit_v1_b", "head.0"),
        ("resnet18", None),
        ("s3d", "classifier.0"),
        ("squeezenet1_1", "classifier.0"),
        ("vgg11", "classifier.5"),
        ("vit_b_32", None),
        ("fcn_resnet50", "classifier.3"),
    ],
)
def test_the_dropout_before_the_head_is_found(heads_table, name, dropout):
    """A dropout that stands directly before the replaced layer is named."""
    with torch.device("meta"):
        assert find_head(heads_table.build(name)).sites[0].dropout == dropout


def test_only_two_families_pool_after_their_head(heads_table):
    """SqueezeNet and S3D average the outputs of a 1x1 convolution; nothing else does."""
    assert {name for name, row in FAMILIES.items() if row.pools_after} == {"SqueezeNet", "S3D"}


def outputs(model, batch):
    result = model(batch)
    return [result] if isinstance(result, torch.Tensor) else [part for part in result if part is not None]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_real_step_moves_the_outputs_to_negative_targets(heads_table, name):
    """A new head starts at zero, and one step of regression towards -1 lowers the loss."""
    torch.manual_seed(0)
    model = replace_head(heads_table.build(name), 1).eval()
    if name == "s3d":
        model.avgpool = nn.Identity()  # it takes no picture below 224 pixels
    batch = torch.randn(SMALLEST[name])
    model.requires_grad_(False)
    head = find_head(model).sites[0].module.requires_grad_(True)

    out = model(batch)
    assert torch.equal(out, torch.zeros(len(batch), 1))
    loss = F.mse_loss(out, torch.full_like(out, -1.0))
    loss.backward()
    torch.optim.SGD(head.parameters(), lr=1e-3).step()

    with torch.no_grad():
        out = model(batch)
    assert F.mse_loss(out, torch.full_like(out, -1.0)) < loss


@pytest.mark.parametrize(("name", "size", "count"), [("googlenet", 32, 3), ("inception_v3", 299, 2)])
def test_auxiliary_outputs_have_the_new_width(heads_table, name, size, count):
    """In training, every output has as many columns as the task asks for."""
    model = replace_head(heads_table.build(name), 3).train()

    assert [tuple(out.shape) for out in outputs(model, torch.randn(2, 3, size, size))] == [(2, 3)] * count


@pytest.mark.parametrize(
    "name", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]
)
def test_segmentation_answers_at_every_pixel(heads_table, name):
    """A segmentation model keeps its form of output, with the new number of channels, at zero."""
    model = replace_head(heads_table.build(name), 3).eval()

    with torch.no_grad():
        out = model(torch.randn(1, 3, 32, 32))["out"]

    assert torch.equal(out, torch.zeros(1, 3, 32, 32))


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
def test_a_real_step_of_each_detector(heads_table, name):
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
    pictures, targets = [torch.rand(3, 64, 64)] * 2, [detection_target(name)] * 2

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


@pytest.mark.parametrize(
    ("name", "bias"),
    [("retinanet_resnet50_fpn", -4.59512), ("fcos_resnet50_fpn", -4.59512), ("ssd300_vgg16", 0.0)],
)
def test_one_stage_detectors_keep_their_prior_and_their_tower(heads_table, name, bias):
    """The biases hold the prior of torchvision's own start, and the layers that know no classes stay."""
    model = heads_table.build(name)
    old = find_head(model).sites[0].module
    replace_head(model, 3)
    new = find_head(model).sites[0].module

    layers = new.module_list if hasattr(new, "module_list") else [new.cls_logits]
    for layer in layers:
        torch.testing.assert_close(layer.bias, torch.full_like(layer.bias, bias))
        assert layer.weight.std() > 0
    if hasattr(new, "conv"):
        assert new.conv is old.conv


def test_keypoints_are_kept(heads_table):
    """A keypoint detector keeps its keypoint predictor and the number of keypoints."""
    with torch.device("meta"):
        model = heads_table.build("keypointrcnn_resnet50_fpn", num_keypoints=5)
    predictor = model.roi_heads.keypoint_predictor

    assert replace_head(model, 4).roi_heads.keypoint_predictor is predictor
    assert predictor.out_channels == 5


class Task:
    out_features = 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((Task(),), {}), "computes its own losses. Pass the number of classes"),
        (((3,), {"head": nn.Linear}), "Leave `head` out"),
        (((1,), {}), "For one kind of object, pass 2"),
        (((3,), {"where": "rpn.head.cls_logits"}), "Replace them by hand"),
    ],
)
def test_detectors_take_a_number_only(heads_table, arguments, message):
    """Tasks, other heads, other places and the background alone are refused, and nothing has changed."""
    with torch.device("meta"):
        model = heads_table.build("fasterrcnn_resnet50_fpn")
    before = heads_table.shapes(model)

    with pytest.raises(HeadError, match=message):
        replace_head(model, *arguments[0], **arguments[1])
    assert heads_table.shapes(model) == before


@pytest.mark.parametrize("name", ["resnet18", "ssdlite320_mobilenet_v3_large", "googlenet", "squeezenet1_1"])
def test_checkpoints_of_torchvisions_own_builder_load_both_ways(heads_table, name):
    """A state dict goes from the builder's model to the replaced one and back, strictly."""
    model = replace_head(heads_table.build(name), 3)
    own = heads_table.build(name, num_classes=3)

    own.load_state_dict(model.state_dict())
    model.load_state_dict(own.state_dict())


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_quantized_body_is_refused(heads_table):
    """A body that is already quantized cannot be trained, and the error says so."""
    model = heads_table.build("quantized_shufflenet_v2_x0_5")
    replace_head(model, 2)  # in floating point still, though it holds what quantizing will need
    model.conv5 = torch.ao.nn.quantized.Conv2d(192, 1024, 1)

    with pytest.raises(HeadError, match=r"already quantized .*quantize=False"):
        replace_head(model, 1)

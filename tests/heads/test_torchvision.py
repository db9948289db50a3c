"""Every model of torchvision's registry takes a new head."""

import pytest
import torch
from torch import nn
from torchvision.models import list_models

from layerkit.errors import HeadError
from layerkit.heads import find_head, replace_head
from layerkit.heads.families import FAMILIES, REFUSED

MODELS = list_models()


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


def test_the_page_of_all_heads_is_what_these_tests_see(heads_table):
    """The docs list every builder with the result that it has here."""
    rows = [heads_table.row(name) for name in MODELS]
    written = heads_table.PAGE.read_text(encoding="utf-8")

    assert written == heads_table.page(rows), "run `python docs/heads_table.py` to write the page anew"


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


def test_a_quantizable_body_in_floating_point_is_taken(heads_table):
    """It holds what quantizing will need, and is not quantized yet."""
    with torch.device("meta"):
        assert replace_head(heads_table.build("quantized_shufflenet_v2_x0_5"), 2).fc.out_features == 2


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="needs fbgemm")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch.*")
def test_a_quantized_body_is_refused(heads_table):
    """A body that is already quantized cannot be trained, and the error says so."""
    model = heads_table.build("quantized_shufflenet_v2_x0_5", quantize=True)

    with pytest.raises(HeadError, match=r"already quantized .*quantize=False"):
        replace_head(model, 2)

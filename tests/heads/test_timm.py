"""timm's models take a new head where timm says that their classifiers are."""

import pytest
import torch
from torch import nn

from layerkit.heads import MLPHead, find_head, replace_head
from layerkit.tasks import Multiclass

timm = pytest.importorskip("timm")

MODELS = [
    "beit_base_patch16_224",
    "caformer_s18",
    "cait_xxs24_224",
    "coat_tiny",
    "convit_tiny",
    "convnextv2_atto",
    "crossvit_tiny_240",
    "cspresnet50",
    "deit_tiny_distilled_patch16_224",
    "densenet121",
    "dla34",
    "dpn68",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientnet_b0",
    "eva02_tiny_patch14_336",
    "ghostnet_050",
    "hrnet_w18_small",
    "inception_v4",
    "levit_128s",
    "levit_384_s8",
    "levit_conv_128s",
    "levit_conv_384_s8",
    "mixer_s32_224",
    "mobilenetv3_small_050",
    "nfnet_f0",
    "pit_ti_distilled_224",
    "poolformer_s12",
    "regnetx_002",
    "repvit_m0_9",
    "resnetv2_50",
    "swin_tiny_patch4_window7_224",
    "tiny_vit_5m_224",
    "vgg11",
    "vit_tiny_patch16_224",
    "volo_d1_224",
    "xcit_nano_12_p16_224",
]


def build(name, **kwargs):
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, **kwargs)


def shapes(model):
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", MODELS)
def test_timm_models_have_the_state_dict_of_their_own_builder(name):
    """Replacing the head, twice, gives the keys and shapes of timm's own builder, dual heads included."""
    model = replace_head(replace_head(build(name), 3), 7)

    assert shapes(model) == shapes(build(name, num_classes=7))
    assert model.num_classes == 7
    assert find_head(model).kind == "classification"


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("crossvit_tiny_240", ["head.0", "head.1"]),
        ("deit_tiny_distilled_patch16_224", ["head", "head_dist"]),
        ("efficientformer_l1", ["head", "head_dist"]),
        ("levit_128s", ["head.linear", "head_dist.linear"]),
        ("volo_d1_224", ["head", "aux_head"]),
    ],
)
def test_distilled_and_dual_models_have_several_main_heads(name, paths):
    """All heads of a distilled model make its answer, so all are main ones."""
    sites = find_head(build(name)).sites
    assert [(site.path, site.auxiliary) for site in sites] == [(path, False) for path in paths]


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "levit_128s", "crossvit_tiny_240"])
def test_a_step_lowers_the_loss_of_dual_heads(name):
    """In evaluation mode timm gives the mean of both answers, in training too unless it is told otherwise."""
    torch.manual_seed(0)
    task = Multiclass(3)
    model = replace_head(timm.create_model(name, pretrained=False), task).train()
    size = 240 if name.startswith("crossvit") else 224
    pictures, target = torch.randn(2, 3, size, size), torch.tensor([0, 2])
    before = task.loss(model(pictures), target)
    before.backward()
    torch.optim.SGD(model.parameters(), lr=1e-4).step()

    assert task.loss(model(pictures), target) < before
    assert all(site.module.weight.grad.any() for site in find_head(model).sites)


@pytest.mark.parametrize(
    ("name", "dropout"), [("vit_tiny_patch16_224", "head_drop"), ("convnextv2_atto", "head.drop")]
)
def test_the_dropout_before_the_head_is_found(name, dropout):
    """timm's names for the dropout before its classifier are known."""
    assert find_head(build(name)).sites[0].dropout == dropout


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnetv2_50", "deit_tiny_distilled_patch16_224"])
def test_own_heads_run_on_timm_models(name):
    """An own head takes the place of linear layers and of convolutions, and is replaced whole again."""
    size = 224 if name.startswith("deit") else 32
    model = replace_head(timm.create_model(name, pretrained=False), 3, head=MLPHead((8,))).eval()
    assert model(torch.randn(2, 3, size, size)).shape == (2, 3)

    plain = replace_head(model, 5)
    assert shapes(plain) == shapes(build(name, num_classes=5))


def test_a_headless_timm_model_says_what_is_missing():
    """Without a classifier nothing tells how many features would enter one."""
    with pytest.raises(LookupError, match="is Identity; expected a linear layer"):
        replace_head(build("resnetv2_50", num_classes=0), 3)
    assert isinstance(build("resnetv2_50", num_classes=0).head.fc, nn.Identity)


@pytest.mark.filterwarnings("ignore:.*its last linear layer")
@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "repvit_m0_9", "levit_384_s8"])
def test_a_distilled_model_inside_another_module_keeps_both_heads_alike(name):
    """The one that is guessed brings the other along."""
    model = nn.Sequential(build(name))
    replace_head(model, 7)
    assert {site.out_features for site in find_head(model).sites} == {7}
    assert len(find_head(model).sites) == 2
    with torch.device("meta"):
        assert model.eval()(torch.zeros(2, 3, 224, 224)).shape == (2, 7)

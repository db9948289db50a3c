"""replace_head keeps what was there, works twice, and changes nothing when it fails."""

import copy
import pickle
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import googlenet, inception_v3, maxvit_t, mobilenet_v3_small, resnet18, squeezenet1_1
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large
from torchvision.models.video import s3d

from layerkit.errors import HeadError, LayerkitError, LayerkitWarning
from layerkit.freezing import freeze_backbone, parameter_groups
from layerkit.heads import MLPHead, backbone_stages, find_head, replace_head
from layerkit.tasks import Multiclass, Multilabel, MultiTask, Regression


class Task:
    out_features = 3


class Net(nn.Module):
    """A classifier that layerkit does not know."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.attention = nn.MultiheadAttention(8, 2)
        self.score = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 10))

    def forward(self, x):
        return self.score(self.features(x))


def tiny():
    """A ResNet on the meta device: its structure, without the cost."""
    with torch.device("meta"):
        return resnet18()


def snapshot(model):
    return {name: id(module) for name, module in model.named_modules()}


def test_the_same_object_comes_back():
    """The model is changed in place and returned."""
    model = tiny()
    assert replace_head(model, Task()) is model
    assert model.fc.out_features == 3


@pytest.mark.parametrize("task", [0, -1])
def test_too_few_outputs_are_refused(task):
    """A head has at least one output."""
    with pytest.raises(ValueError, match=f"{task} outputs; expected 1 or more"):
        replace_head(tiny(), task)


@pytest.mark.parametrize("task", [True, 2.0, "3", None])
def test_other_things_than_tasks_and_numbers_are_refused(task):
    """A bool, a fraction, a string or nothing is no number of outputs."""
    with pytest.raises(TypeError, match="For three outputs, pass 3"):
        replace_head(tiny(), task)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_and_training_flag_are_kept(dtype):
    """The new layer is of the old one's dtype and mode, and the rest is not touched."""
    model = resnet18().to(dtype).eval()
    model.layer1.requires_grad_(False)
    replace_head(model, 3)

    assert model.fc.weight.dtype is dtype
    assert not model.fc.training
    assert all(p.requires_grad for p in model.fc.parameters())
    assert not any(p.requires_grad for p in model.layer1.parameters())
    assert all(p.requires_grad for p in model.layer2.parameters())


def test_the_meta_device_is_kept():
    """A model without memory gets a head without memory, own heads included."""
    assert replace_head(tiny(), 3).fc.weight.is_meta
    assert replace_head(tiny(), 3, head=MLPHead()).fc[0].weight.is_meta


def test_the_default_device_does_not_matter():
    """A head goes where the old one was, whatever torch's default device is."""
    model = resnet18()
    with torch.device("meta"):
        replace_head(model, 3, head=nn.Linear)
    assert model.fc.weight.device.type == "cpu"


@pytest.mark.parametrize(
    ("build", "shape", "memory_format"),
    [
        (squeezenet1_1, (3, 512, 1, 1), torch.channels_last),
        (squeezenet1_1, (3, 512, 1, 1), torch.contiguous_format),
        (s3d, (3, 1024, 1, 1, 1), torch.channels_last_3d),
        (s3d, (3, 1024, 1, 1, 1), torch.contiguous_format),
    ],
)
def test_the_memory_format_is_kept(build, shape, memory_format):
    """A 1x1 convolution has the strides of its neighbours."""
    with torch.device("meta"):
        model = build()
        expected = torch.empty(shape).to(memory_format=memory_format)
    replace_head(model.to(memory_format=memory_format), 3)

    assert model.classifier[1].weight.stride() == expected.stride()


def test_the_order_of_modules_is_kept():
    """The new layer stands where the old one stood."""
    model = mobilenet_v3_small()
    names = [name for name, _ in model.named_modules()]
    assert [name for name, _ in replace_head(model, 3).named_modules()] == names


def lraspp():
    return lraspp_mobilenet_v3_large(weights_backbone=None)


@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (resnet18, partial(nn.Linear, 512)),
        (maxvit_t, partial(nn.Linear, 512, bias=False)),
        (squeezenet1_1, partial(nn.Conv2d, 512, kernel_size=1)),
        (s3d, partial(nn.Conv3d, 1024, kernel_size=1)),
        (lraspp, partial(nn.Conv2d, 128, kernel_size=1)),
    ],
)
def test_torchs_own_start_is_had_with_linear(build, layer):
    """head=nn.Linear gives the layer that the site has, as torch initialises it, value for value."""
    torch.manual_seed(0)
    expected = layer(out_features=3) if layer.func is nn.Linear else layer(out_channels=3)
    with torch.device("meta"):
        model = build()
    site = find_head(model).sites[0]
    site.module.to_empty(device="cpu")
    torch.manual_seed(0)
    new = find_head(replace_head(model, 3, head=nn.Linear)).sites[0].module

    assert type(new) is type(expected)
    assert new.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in new.state_dict().items())
    assert new.weight.any()


def test_linear_on_a_segmentation_head_is_a_convolution():
    """head=nn.Linear works where the head answers at every pixel, and own heads are refused there."""
    with torch.device("meta"):
        model = lraspp_mobilenet_v3_large(weights_backbone=None)
    assert isinstance(replace_head(model, 3, head=nn.Linear).classifier.low_classifier, nn.Conv2d)

    before = snapshot(model)
    with pytest.raises(HeadError, match="answers at every position"):
        replace_head(model, 4, head=MLPHead())
    assert snapshot(model) == before


def test_squeezenet_can_answer_below_zero():
    """SqueezeNet's last ReLU, which forbids negative outputs, is gone, and its keys are not."""
    model = replace_head(squeezenet1_1(), 2, head=nn.Linear).eval()
    nn.init.constant_(model.classifier[1].bias, -100.0)

    assert isinstance(model.classifier[2], nn.Identity)
    assert (model(torch.randn(2, 3, 64, 64)) < 0).all()
    assert model.num_classes == 2


@pytest.mark.parametrize("build", [resnet18, squeezenet1_1, maxvit_t, s3d])
def test_replacing_twice_replaces_all_of_an_own_head(build):
    """A plain head after an own one has the keys of the first plain head, and the features that entered."""
    with torch.device("meta"):
        model, expected = build(), build(num_classes=5)
    before = find_head(model).sites[0]
    replace_head(model, 3, head=MLPHead((16,)))
    between = find_head(model).sites[0]
    replace_head(model, 4, head=MLPHead((8,)))
    replace_head(model, 5)

    assert (between.path, between.in_features, between.out_features) == (before.path, before.in_features, 3)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in expected.state_dict().items()
    }


@pytest.mark.parametrize(("build", "shape"), [(squeezenet1_1, (2, 3, 64, 64)), (s3d, (2, 3, 16, 64, 64))])
def test_own_heads_stand_after_pooling(build, shape):
    """On SqueezeNet and S3D an own head takes (N, features), as on every other model."""
    seen = []

    class Own(nn.Linear):
        def forward(self, x):
            seen.append(x.shape)
            return super().forward(x)

    model = replace_head(build(), 3, head=Own).eval()
    model.avgpool = nn.Identity()  # S3D's own takes no picture below 224 pixels; SqueezeNet has none
    with torch.no_grad():
        out = model(torch.randn(shape))

    assert out.shape == (shape[0], 3)
    assert seen == [(shape[0], find_head(model).sites[0].in_features)]


def test_own_heads_are_made_once_for_each_site():
    """The factory is called for the main head and for each auxiliary one."""
    calls = []

    def factory(in_features, out_features):
        calls.append((in_features, out_features))
        return nn.Linear(in_features, out_features)

    replace_head(googlenet(init_weights=False), 3, head=factory)
    assert calls == [(1024, 3)] * 3


@pytest.mark.parametrize("round_trip", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("where", [None, "score"])
def test_heads_are_found_in_copies(round_trip, where):
    """A deep copy and a pickle know where their head is, and how many features enter it."""
    model = Net()
    replace_head(model, 3, head=MLPHead((4,)), where="score")
    copied = round_trip(model)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_head(copied, where=where) == find_head(model, where=where)
        replace_head(copied, 6, where=where)
    assert copied.score.weight.shape == (6, 8)


def test_an_unknown_model_has_its_last_linear_layer_guessed_and_named():
    """The guess is said, attention's own projections are no heads, and afterwards nothing is guessed."""
    model = Net()
    with pytest.warns(LayerkitWarning, match=r"'score\.1'.*where='score\.1'"):
        replace_head(model, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replace_head(model, 4)

    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 4)
    assert find_head(model).sites[0].dropout == "score.0"


@pytest.mark.parametrize("call", [find_head, lambda m: replace_head(m, 3), freeze_backbone, backbone_stages])
def test_the_guess_is_said_once_at_the_line_of_the_caller(call):
    """The warning points into the user's file, whichever function of layerkit had to guess."""
    with pytest.warns(LayerkitWarning, match="was taken for the head") as caught:
        call(Net())
    assert [warning.filename for warning in caught] == [__file__]


def test_parameter_groups_guess_once():
    """They need the head and the stages before it, and the one guess serves for both."""
    with pytest.warns(LayerkitWarning, match="was taken for the head") as caught:
        parameter_groups(Net(), 0.1)
    assert [warning.filename for warning in caught] == [__file__]


def test_hand_made_heads_are_replaced_whole():
    """A head that the user put there by hand counts as one, whatever it is made of."""
    model = resnet18()
    model.fc = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))
    site = find_head(model).sites[0]

    assert (site.path, site.in_features, site.out_features) == ("fc", 512, 10)
    assert replace_head(model, 3).fc.weight.shape == (3, 512)


def test_where_of_a_known_head_is_that_head():
    """Naming the main site of a known family takes its auxiliary sites too."""
    with torch.device("meta"):
        model = inception_v3(init_weights=False)
    before = find_head(model)
    assert find_head(model, where="fc") == before

    replace_head(model, 3, where="fc")
    assert [site.path for site in find_head(model).sites] == [site.path for site in before.sites]
    assert find_head(model).sites[1].auxiliary


def test_another_place_in_a_known_family_is_remembered_until_it_is_gone():
    """An explicit where= rules until the plain head is asked for, or the place exists no more."""
    with torch.device("meta"):
        model = resnet18()
        model.extra = nn.Linear(1000, 10)
        replace_head(model, 3, where="extra")
        assert find_head(model).sites[0].path == "extra"
        del model.extra
        assert find_head(model).sites[0].path == "fc"


def test_builders_are_no_models():
    """Passing the function instead of its result is a mistake that the message mends."""
    with pytest.raises(TypeError, match=r"call it: resnet18\(\), not resnet18"):
        replace_head(resnet18, 3)


@pytest.mark.parametrize(
    ("model", "where", "message"),
    [
        (Net, "scor.1", r"Did you mean 'score\.1'\?"),
        (Net, "zzz", r"Its last linear layers: '"),
        (Net, "", r"expected the path of one"),
        (Net, "score.0", r"'score\.0' is Dropout; expected a linear layer or a convolution"),
        (lambda: nn.Sequential(nn.ReLU()), None, r"No linear layer was found.*where="),
        (lambda: nn.Linear(3, 2), None, r"No linear layer was found inside Linear"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "0", r"Run one batch through the model first"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_heads_that_are_not_there(model, where, message):
    """Each failure is a layerkit error and a LookupError, and says what to do."""
    with pytest.raises(HeadError, match=message) as caught:
        find_head(model(), where=where)
    assert isinstance(caught.value, LayerkitError | LookupError)


def fails_second():
    made = []

    def factory(in_features, out_features):
        if made:
            raise RuntimeError("no second head")
        made.append(nn.Linear(in_features, out_features))
        return made[0]

    return factory


@pytest.mark.parametrize(
    ("head", "error", "message"),
    [
        (fails_second(), RuntimeError, "no second head"),
        (lambda i, o: (i, o), TypeError, "made a tuple"),
        (nn.Linear(3, 2), TypeError, "is the module Linear.*each site needs its own"),
    ],
)
def test_a_failing_head_changes_nothing(head, error, message):
    """When one of several heads cannot be made, none is replaced."""
    with torch.device("meta"):
        model = googlenet(init_weights=False)
    before = snapshot(model)

    with pytest.raises(error, match=message):
        replace_head(model, 3, head=head)
    assert snapshot(model) == before


def test_wrapped_models_are_looked_into():
    """A compiled or data-parallel model has the head of the model inside."""
    inner = tiny()
    compiled = torch.compile(inner)
    assert find_head(compiled).sites[0].path == "_orig_mod.fc"
    assert find_head(nn.DataParallel(inner)).family == "ResNet"

    replace_head(compiled, 3)
    assert inner.fc.out_features == 3


def test_a_replaced_model_exports():
    """The marks on a model and its own head do not disturb torch.export."""
    model = replace_head(squeezenet1_1(), 3, head=MLPHead((8,))).eval()
    batch = torch.randn(2, 3, 64, 64)
    exported = torch.export.export(model, (batch,)).module()

    torch.testing.assert_close(exported(batch), model(batch))


def test_a_guess_can_be_said_to_a_caller_without_a_name():
    """Code that runs from a notebook's cell or exec() may have no module name."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with pytest.warns(LayerkitWarning, match="taken for the head"):
        exec("find_head(model)", {"find_head": find_head, "model": model})


def test_a_count_that_the_model_computes_is_left_alone():
    """A property without a setter is no reason to fail halfway."""

    class Computed(nn.Module):
        num_classes = property(lambda self: 10)

        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 10)

    assert replace_head(Computed(), 3, where="fc").fc.out_features == 3


def test_a_layer_of_two_names_is_replaced_under_both():
    """Whichever of them the forward pass goes through."""
    model = nn.Module()
    model.fc = nn.Linear(6, 10)
    model.alias = model.fc
    replace_head(model, 3, where="fc")
    assert model.alias is model.fc
    assert model.fc.out_features == 3


def test_a_container_of_heads_is_no_head():
    """Replaced by one layer it would leave the forward pass without its parts."""
    model = nn.Module()
    model.heads = nn.ModuleDict({"a": nn.Linear(6, 2), "b": nn.Linear(6, 3)})
    with pytest.raises(HeadError, match=r"`where` is 'heads', a ModuleDict.*such as 'heads\.a'"):
        replace_head(model, 3, where="heads")
    assert list(model.heads) == ["a", "b"]


@pytest.mark.parametrize("training", [True, False])
def test_what_stands_for_squeezenets_relu_has_its_mode(training):
    """An evaluated model stays so in all its parts."""
    model = replace_head(squeezenet1_1().train(training), 3)
    assert {module.training for module in model.modules()} == {training}


class Wrapped(nn.Module):
    """A torchvision model inside a module of the user's."""

    def __init__(self, body, head=None):
        super().__init__()
        self.body = body
        if head is not None:
            self.head = head


@pytest.mark.parametrize(
    ("builder", "places"),
    [
        (partial(googlenet, init_weights=False), ["body.fc", "body.aux1.fc2", "body.aux2.fc2"]),
        (partial(inception_v3, init_weights=False), ["body.fc", "body.AuxLogits.fc"]),
        (squeezenet1_1, ["body.classifier.1"]),
        (
            partial(lraspp_mobilenet_v3_large, weights_backbone=None),
            ["body.classifier.high_classifier", "body.classifier.low_classifier"],
        ),
    ],
)
@pytest.mark.parametrize("said", [False, True])
def test_a_torchvision_model_inside_another_module_keeps_its_row(builder, places, said):
    """Auxiliary heads go along, and SqueezeNet's ReLU; once replaced, the head is found again without a word."""
    with torch.device("meta"):
        model = Wrapped(builder())
        if said:
            replace_head(model, 3, where=places[0])
        else:
            with pytest.warns(LayerkitWarning, match="the head of the torchvision model inside it"):
                replace_head(model, 3)
    sites = find_head(model).sites
    assert [(site.path, site.out_features) for site in sites] == [(place, 3) for place in places]
    assert [site.auxiliary for site in sites] == ["aux" in place.lower() for place in places]
    if builder is squeezenet1_1:
        assert isinstance(model.body.classifier[2], nn.Identity)
    with torch.device("meta"):
        replace_head(model, 5)
    assert {site.out_features for site in find_head(model).sites} == {5}


@pytest.mark.filterwarnings("ignore:.*its last linear layer, 'head'")
def test_a_head_after_a_torchvision_model_comes_before_the_models_own():
    """The last of all is taken, as ever."""
    with torch.device("meta"):
        assert [site.path for site in find_head(Wrapped(resnet18(), nn.Linear(1000, 4))).sites] == ["head"]
        headless = Wrapped(resnet18(), nn.Linear(512, 4))
        headless.body.fc = nn.Identity()
        assert [site.path for site in find_head(headless).sites] == ["head"]


@pytest.mark.filterwarnings("ignore:.*its last linear layer")
def test_a_head_in_another_place_than_torchvisions_is_still_the_last_linear_layer():
    """Whoever has replaced the whole classifier by one layer has its place nowhere in the table."""
    with torch.device("meta"):
        model = Wrapped(mobilenet_v3_small(), nn.Identity())
        model.body.classifier = nn.Linear(576, 5)
    assert [site.path for site in find_head(model).sites] == ["body.classifier"]


@pytest.mark.parametrize("task", [Regression(), Multilabel(3), MultiTask({"a": Multiclass(2)})])
def test_segmentation_refuses_what_answers_for_a_picture(task):
    """Before anything is changed."""
    with torch.device("meta"):
        model = lraspp_mobilenet_v3_large(weights_backbone=None)
    before = model.classifier.high_classifier
    with pytest.raises(HeadError, match="answers for each pixel, and got the task"):
        replace_head(model, task)
    assert model.classifier.high_classifier is before


@pytest.mark.parametrize(
    ("builder", "where", "task", "words"),
    [
        (fasterrcnn_mobilenet_v3_large_fpn, "roi_heads.box_predictor.cls_score", 4, "are not torchvision's"),
        (fasterrcnn_mobilenet_v3_large_fpn, "roi_heads.box_predictor", Multiclass(4), "is a detector"),
        (lraspp_mobilenet_v3_large, "classifier.low_classifier", Regression(), "answers for each pixel"),
    ],
)
def test_what_is_refused_is_refused_inside_another_module_too(builder, where, task, words):
    """Also where one of several layers of a predictor is named."""
    with torch.device("meta"):
        model = Wrapped(builder(weights_backbone=None))
    before = model.body.get_submodule(where)
    with pytest.raises(HeadError, match=words):
        replace_head(model, task, where=f"body.{where}")
    assert model.body.get_submodule(where) is before

"""Pictures of every kind in, one answer each out."""

import io
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import get_model

from layerkit.errors import LayerkitWarning, NonFiniteError, PictureError
from layerkit.predicting import Prediction, Predictions, Predictor
from layerkit.presets import Preset
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression, Task

PRESET = Preset(8, resize_size=8)


def tiny_model(outputs):
    """Build a model whose answer depends on the picture, on dropout and on batch norm's mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(144, outputs)
    )


def predictor_of(task):
    """Make a predictor for a task."""
    return Predictor(tiny_model(task.out_features), task, PRESET)


@pytest.fixture
def picture():
    """Give pixels (H, W, 3) of the crop size, so that no resizing blurs the comparison."""
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Make a folder of five pictures in two subfolders, and a file that is none."""
    rng = np.random.default_rng(1)
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/5.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(path)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def expected_logits(model, picture):
    """Compute the answer by hand: scale, normalise, run in evaluation mode."""
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (PRESET.mean, PRESET.std))
    with torch.no_grad():
        return model.eval()(((pixels - mean) / std).float())


def test_every_kind_of_input_gives_the_same_answer(picture, tmp_path):
    """A path, bytes, a PIL picture, an array and a tensor of the same pixels are answered alike."""
    path = tmp_path / "x.png"
    Image.fromarray(picture).save(path)
    predictor = predictor_of(Multiclass(["cat", "dog"]))
    expected = expected_logits(predictor.model, picture).softmax(1)[0].tolist()
    tensor = torch.from_numpy(picture).permute(2, 0, 1)

    for source in (str(path), path, path.read_bytes(), Image.fromarray(picture), picture, tensor):
        answer = predictor(source)
        assert list(answer.probabilities.values()) == pytest.approx(expected, abs=1e-6)
        assert answer.path == (str(path) if isinstance(source, str | Path) else None)


def test_a_pil_picture_is_turned_upright_as_its_file_is():
    """The EXIF orientation counts whether a file is given or the picture that Pillow opened."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    predictor = predictor_of(Multiclass(["cat", "dog"]))

    assert predictor(Image.open(file)) == predictor(file.getvalue())
    assert predictor(pixels) != predictor(file.getvalue())


def test_many_pictures_give_a_list_in_order(folder):
    """A folder, a pattern and a list give one answer each, whatever the batch size."""
    predictor = predictor_of(Multiclass(["cat", "dog"]))
    names = [str(folder / name) for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/5.png")]

    for answers in (
        predictor(folder, batch_size=2),
        predictor(str(folder / "*" / "*.png"), batch_size=1),
        predictor(str(folder / "**")),
        predictor(names),
    ):
        assert isinstance(answers, Predictions)
        assert [answer.path for answer in answers] == names
        singles = [predictor(name).probability for name in names]
        assert [answer.probability for answer in answers] == pytest.approx(singles, abs=1e-6)
    assert predictor([]) == []
    assert len(predictor(str(folder / "a" / "1*"))) == 1


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(folder):
    """Brackets in a name that exists are no pattern."""
    (folder / "a" / "1.png").rename(folder / "x[1].png")

    assert isinstance(predictor_of(Binary())(folder / "x[1].png"), Prediction)


def test_binary_decides_at_its_threshold(picture):
    """The label is the positive class from the threshold on, and the probability is that of the label."""
    for threshold in (0.01, 0.99):
        predictor = predictor_of(Binary(["no", "yes"], threshold=threshold))
        positive = expected_logits(predictor.model, picture).sigmoid().item()
        answer = predictor(picture)
        assert 0.01 < positive < 0.99
        assert answer.label == ("yes" if threshold == 0.01 else "no")
        assert answer.probability == pytest.approx(positive if threshold == 0.01 else 1 - positive)
        assert answer.probabilities == pytest.approx({"no": 1 - positive, "yes": positive})


def test_regression_answers_in_the_users_units(picture):
    """Values are what the standardized outputs mean in the training targets' units."""
    task = Regression(2, names=["age", "price"])
    task.prepare(torch.tensor([[10.0, 1e6], [20.0, 3e6], [60.0, 8e6]]))
    predictor = predictor_of(task)
    targets = np.array([[10.0, 1e6], [20.0, 3e6], [60.0, 8e6]])
    logits = expected_logits(predictor.model, picture).numpy()[0]

    answer = predictor(picture)

    assert answer.values == pytest.approx(tuple(logits * targets.std(0) + targets.mean(0)), rel=1e-5)
    assert answer.label is None
    assert answer.row().keys() == {"path", "age", "price"}
    assert repr(answer).startswith("Prediction(age ")


def test_multilabel_names_every_label_that_applies(picture):
    """The label is a tuple, perhaps an empty one, and each label has its probability."""
    predictor = predictor_of(Multilabel(["beach", "dog", "snow"]))
    chances = expected_logits(predictor.model, picture).sigmoid()[0].tolist()

    answer = predictor(picture)

    expected = tuple(n for n, p in zip(["beach", "dog", "snow"], chances, strict=True) if p > 0.5)
    assert answer.label == expected
    assert list(answer.probabilities.values()) == pytest.approx(chances, abs=1e-6)
    assert answer.row()["label"] == "|".join(expected)


def test_the_parts_of_a_multi_task_are_predictions(picture):
    """Each part answers as its own task does, from its share of the outputs."""
    task = MultiTask({"size": Regression(standardize=False), "kind": Multiclass(["cat", "dog"])})
    predictor = predictor_of(task)
    logits = expected_logits(predictor.model, picture)[0]

    answer = predictor(picture)

    assert answer.parts["size"].values == pytest.approx((logits[0].item(),), abs=1e-6)
    assert answer.parts["kind"].probability == pytest.approx(logits[1:].softmax(0).max().item(), abs=1e-6)
    assert list(answer.row())[:3] == ["path", "size_value", "kind_label"]


def test_answers_are_a_table(folder, tmp_path):
    """The CSV file and the data frame hold one row a picture and a column for each class."""
    pandas = pytest.importorskip("pandas")
    answers = predictor_of(Multiclass(["cat", "dog"]))(folder)

    answers.to_csv(tmp_path / "answers.csv")

    table = pandas.read_csv(tmp_path / "answers.csv")
    assert list(table) == ["path", "label", "probability", "probability_cat", "probability_dog"]
    pandas.testing.assert_frame_equal(table, pandas.DataFrame(answers.rows()))


def test_the_model_is_put_back_as_it_was(picture):
    """A predictor made in the middle of training answers in evaluation mode and changes nothing."""
    predictor = predictor_of(Multiclass(["cat", "dog"]))
    expected = predictor(picture)
    predictor.model.train()
    predictor.model[1].eval()
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}

    assert predictor(picture) == expected
    assert predictor.model.training
    assert not predictor.model[1].training
    for name, value in predictor.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_threads_share_a_predictor(picture):
    """Eight threads at once get the answers that one alone gets, with a model left in training mode."""
    predictor = predictor_of(Multiclass(["cat", "dog"]))
    expected = predictor(picture)
    predictor.model.train()
    answers = []

    def ask():
        answers.extend(predictor(picture) for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [expected] * 160
    assert predictor.model.training


def test_predictors_share_a_model(picture):
    """The first to ask is answered while the second waits in the model, which stays in evaluation mode for it."""
    first = predictor_of(Multiclass(["cat", "dog"]))
    second = Predictor(first.model, first.task, first.preset)
    first.model.train()
    first_is_in, second_is_in, first_is_done = (threading.Event() for _ in range(3))
    training_after = []

    def hold(model, inputs, output):
        if threading.current_thread().name == "first":
            first_is_in.set()
            assert second_is_in.wait(30)
        else:
            second_is_in.set()
            assert first_is_done.wait(30)
            training_after.append(model.training)

    first.model.register_forward_hook(hold)
    asking = [threading.Thread(target=first, args=(picture,), name="first")]
    asking += [threading.Thread(target=second, args=(picture,))]
    asking[0].start()
    assert first_is_in.wait(30)
    asking[1].start()
    asking[0].join(30)
    first_is_done.set()
    asking[1].join(30)

    assert training_after == [False]
    assert first.model.training


def test_half_precision_models_answer(picture):
    """Inputs take the model's dtype, and answers come back in float."""
    predictor = predictor_of(Multiclass(["cat", "dog"]))
    expected = predictor(picture).probability
    predictor.model.to(torch.bfloat16)

    assert predictor(picture).probability == pytest.approx(expected, abs=0.02)


def test_a_model_that_squeezes_its_output_and_a_task_of_the_users_own(picture):
    """Logits (N,) are taken for one output, and an unknown task's readings come as values."""

    class Squeezed(nn.Sequential):
        def forward(self, x):
            return super().forward(x).squeeze(1)

    class Twice(Task):
        out_features = 1

        def criterion(self, logits, target):
            return (logits - target).square().mean()

        def activate(self, logits):
            return 2 * logits

    model = Squeezed(*tiny_model(1))
    logit = expected_logits(model, picture).item()

    assert Predictor(model, Twice(), PRESET)(picture).values == pytest.approx((2 * logit,), abs=1e-6)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("missing.png", FileNotFoundError, "no picture missing.png; expected a file, a folder, or a pattern"),
        (np.zeros((8, 8, 3), np.float32), ValueError, "expected a uint8 array"),
        (np.zeros((2, 8, 8, 3), np.uint8), ValueError, r"pass list\(batch\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), ValueError, r"expected a uint8 tensor \(3, H, W\)"),
        (b"no picture", PictureError, "10 bytes given"),
        (3, TypeError, "The picture is a int; expected a path"),
        ([np.zeros((8, 8, 3), np.uint8), 3], TypeError, "The picture is a int"),
    ],
)
def test_what_is_no_picture_gets_one_clear_error(source, error, message, tmp_path, monkeypatch):
    """Missing files, wrong shapes, dtypes and kinds are named with what was expected."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(error, match=message):
        predictor_of(Binary())(source)


def test_an_empty_folder_and_a_wrong_batch_size_are_errors(tmp_path):
    """Neither passes in silence."""
    with pytest.raises(ValueError, match="holds no picture"):
        predictor_of(Binary())(tmp_path)
    with pytest.raises(ValueError, match="`batch_size` is 0"):
        predictor_of(Binary())(tmp_path, batch_size=0)


def test_a_broken_picture_is_named_without_a_word_of_loaders(tmp_path):
    """Who predicts has no loaders; the remedy is another picture."""
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture at all")
    with pytest.raises(PictureError, match=r"broken\.png: cannot be decoded.*Remove or replace it\.$"):
        predictor_of(Binary())([path])


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_skip_answers_for_the_others(tmp_path, batch_size):
    """They get the answers that they get alone, in their order, and the others are named."""
    predictor = predictor_of(Multiclass(3))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for path, picture in zip(paths, pixels, strict=True):
        Image.fromarray(picture).save(path)
    for broken in (paths[0], paths[3]):
        broken.write_bytes(b"no picture at all")
    with pytest.warns(LayerkitWarning, match=r"2 of 6 pictures could not be read.*0\.png.*3\.png") as caught:
        found = predictor([*paths, pixels[0]], batch_size=batch_size, errors="skip")
    assert len(caught) == 1
    assert [answer.path for answer in found] == [str(paths[1]), str(paths[2]), str(paths[4]), None]
    for answer, source in zip(found, [paths[1], paths[2], paths[4], pixels[0]], strict=True):
        assert answer.label == predictor(source).label
    with pytest.warns(LayerkitWarning, match="1 of 1 picture could not be read"):
        assert predictor([paths[0]], errors="skip") == []
    with pytest.raises(PictureError):
        predictor(paths[0], errors="skip")
    with pytest.raises(ValueError, match="`errors` is 'ignore'"):
        predictor(paths, errors="ignore")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("r3d_18", "video"),
        ("lraspp_mobilenet_v3_large", "segmentation"),
        ("ssdlite320_mobilenet_v3_large", "detection"),
    ],
)
def test_models_that_do_not_answer_for_a_picture_are_refused(name, kind):
    """Video, segmentation and detection are named, and the way out."""
    options = {} if kind == "video" else {"weights_backbone": None}
    with torch.device("meta"):
        model = get_model(name, weights=None, **options)
    with pytest.raises(
        TypeError, match=rf"which is made for {kind}; expected a model with one row of outputs"
    ):
        Predictor(model, Binary(), PRESET)


def test_wrong_arguments_are_refused_at_once(picture):
    """The model, the task, the preset, the architecture and the head are checked where they are given."""
    model, task = tiny_model(2), Multiclass(["cat", "dog"])
    with pytest.raises(TypeError, match="`model` is 'resnet18'; expected a torch"):
        Predictor("resnet18", task, PRESET)
    with pytest.raises(TypeError, match="that is Multiclass"):
        Predictor(model, nn.CrossEntropyLoss(), PRESET)
    with pytest.raises(TypeError, match=r"expected a Preset: data\.preset"):
        Predictor(model, task, 224)
    with pytest.raises(ValueError, match="Did you mean 'resnet18'"):
        Predictor(model, task, PRESET, architecture=("resnet81", {}))
    with pytest.raises(TypeError, match="a dict of plain arguments"):
        Predictor(model, task, PRESET, architecture=("resnet18", {"norm_layer": nn.BatchNorm2d}))
    with pytest.raises(TypeError, match="a dict of plain arguments"):
        Predictor(model, task, PRESET, architecture="resnet18")
    with pytest.raises(ValueError, match=r"expected none, since the weights are those of the model"):
        Predictor(model, task, PRESET, architecture=("resnet18", {"weights": "DEFAULT"}))
    with pytest.raises(ValueError, match=r"\(1, 2\); expected \(1, 3\).*replace_head"):
        Predictor(model, Multiclass(3), PRESET)(picture)


def test_answers_that_are_no_numbers_are_an_error(picture):
    """Spoiled weights and an unprepared task would answer NaN; the picture is named."""
    model = tiny_model(2)
    predictor = Predictor(model, Multiclass(["cat", "dog"]), PRESET)
    next(model.parameters()).data.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="answers nan, nan for a ndarray; expected finite"):
        predictor(picture)
    with pytest.raises(RuntimeError, match="has not seen the training targets yet"):
        Predictor(tiny_model(1), Regression(), PRESET)(picture)


def test_a_cut_picture_of_pillows_is_left_out_too(picture):
    """It is decoded when it is first asked for pixels; then errors="skip" holds for it as for a file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)).save(file, "JPEG")
    cut = Image.open(io.BytesIO(file.getvalue()[:2000]))
    predictor = predictor_of(Multiclass(["cat", "dog"]))
    with pytest.raises(PictureError, match="cannot be decoded"):
        predictor([cut, picture])
    with pytest.warns(LayerkitWarning, match="1 of 2 pictures could not be read"):
        assert predictor([cut, picture], errors="skip") == [predictor(picture)]


def test_a_folder_in_a_list_is_not_a_picture(folder):
    """The message says how folders are passed."""
    with pytest.raises(
        FileNotFoundError, match=r"expected picture files in a list\. Check the path; a folder"
    ):
        predictor_of(Multiclass(["cat", "dog"]))([str(folder)])


def test_two_columns_of_one_name_are_refused(picture):
    """Neither would be lost silently."""
    parts = {"a": Regression(names=["b_value"], standardize=False), "a_b": Regression(standardize=False)}
    answers = Predictor(tiny_model(2), MultiTask(parts), PRESET)([picture])
    with pytest.raises(ValueError, match="Two columns of the table would be called 'a_b_value'"):
        answers.rows()


def test_a_part_of_one_value_of_its_name_is_named_once(picture, tmp_path):
    """Not radius_radius; and a table holds no digits that float32 does not have."""
    parts = {"radius": Regression(names=["radius"], standardize=False), "of": Regression(standardize=False)}
    answers = Predictor(tiny_model(2), MultiTask(parts), PRESET)([picture])
    assert list(answers.rows()[0]) == ["path", "radius", "of_value"]
    assert answers[0].text.startswith("radius ")
    assert "radius radius" not in answers[0].text
    answers.to_csv(tmp_path / "answers.csv")
    written = (tmp_path / "answers.csv").read_text().splitlines()[1].split(",")[1]
    value = answers[0].parts["radius"].values[0]
    assert written == str(np.float32(value))
    assert np.float32(written) == np.float32(value)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_a_name_that_is_no_text_is_written_as_it_is(folder, tmp_path):
    """The table holds the bytes of the name."""
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    shutil.copy(next(folder.rglob("*.png")), odd)
    predictor_of(Multiclass(["cat", "dog"]))([odd]).to_csv(tmp_path / "answers.csv")
    assert b"/\xff.png," in (tmp_path / "answers.csv").read_bytes()


def test_a_table_replaces_no_picture(folder, picture):
    """`--csv *.png` is soon typed."""
    place = next(folder.rglob("*.png"))
    before = place.read_bytes()
    with pytest.raises(ValueError, match="is a picture by its name; expected a name such as"):
        predictor_of(Multiclass(["cat", "dog"]))([picture]).to_csv(place)
    assert place.read_bytes() == before


def test_what_only_the_loss_needs_is_not_asked_of_answers(picture):
    """Balanced weights that nothing has filled change no answer."""
    for task in (
        Multiclass(["a", "b"], class_weight="balanced"),
        Multilabel(["a", "b"], pos_weight="balanced"),
    ):
        assert Predictor(tiny_model(2), task, PRESET)(picture).probabilities

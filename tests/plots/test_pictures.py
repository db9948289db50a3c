"""Plots take and give axes, and say what they show."""

import pytest
import torch

from layerkit import Preset
from layerkit.plots import plot_curves, save_figure, show
from layerkit.plots.axes import ORANGE
from layerkit.predicting import Prediction

PRESET = Preset(16)
BATCH = (
    PRESET.normalize(torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)),
    torch.tensor([0, 1, 0, 1, 1]),
)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_show_names_what_it_shows():
    """Titles are the class names; without targets there are none."""
    assert texts(show(BATCH, PRESET, classes=["cat", "dog"])) == ["cat", "dog", "cat", "dog", "dog"]
    assert texts(show(BATCH[0], PRESET)) == [""] * 5
    sample = (BATCH[0][0], torch.tensor(1))
    assert texts(show(sample, PRESET, classes=["cat", "dog"])) == ["dog"]


def test_show_marks_wrong_answers():
    """A wrong answer is orange and has the truth beneath it; a right one is black."""
    answers = [Prediction(label="cat", probability=0.9), Prediction(label="cat", probability=0.6)]
    axes = show((BATCH[0][:2], BATCH[1][:2]), PRESET, classes=["cat", "dog"], predictions=answers)
    assert texts(axes) == ["cat 90%", "cat 60%\n(is dog)"]
    assert [text.get_color() for text in axes.texts] == ["black", ORANGE]


def test_show_draws_the_pictures_themselves():
    """The drawn pixels are those of the pictures."""
    axes = show(BATCH[0][:1], PRESET)
    image = torch.as_tensor(axes.images[0].get_array().data.copy())
    expected = PRESET.undo(BATCH[0][0]).permute(1, 2, 0)
    gap = (image.shape[0] - 16) // 2
    assert torch.equal(image[gap : gap + 16, gap : gap + 16], expected)


def test_show_takes_numbers():
    """Numbers of a regression are shown as numbers."""
    axes = show(
        (BATCH[0][:1], torch.tensor([[1.5, 2.0]])), PRESET, predictions=[Prediction(values=(1.25, 2.0))]
    )
    assert texts(axes) == ["1.25, 2\n(is 1.5, 2)"]


def test_nothing_is_saved_when_drawing_fails(tmp_path):
    """An unknown format is an error, and leaves no file."""
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(plot_curves([]), tmp_path / "curves.nonsense")
    assert list(tmp_path.iterdir()) == []

"""Curves over the epochs say what they show."""

from layerkit.plots import plot_curves


def test_curves_of_two_phases():
    """The frozen epochs are shaded, and the first metric has an axis of its own."""
    rows = [
        {
            "epoch": n + 1,
            "phase": "frozen" if n < 2 else "full",
            "train_loss": 1.0,
            "valid_loss": 2.0,
            "valid_accuracy": 0.5,
        }
        for n in range(4)
    ]
    axes = plot_curves(rows)
    assert "frozen" in [text.get_text() for text in axes.texts]
    other = [sibling for sibling in axes.figure.axes if sibling is not axes]
    assert [line.get_label() for line in other[0].lines] == ["valid_accuracy"]


def test_what_was_monitored_is_drawn():
    """Not the first metric but that, with a ring at the epoch that was kept."""
    rows = [
        {
            "epoch": n,
            "phase": "full",
            "train_loss": 1.0,
            "valid_loss": 2.0,
            "valid_accuracy": 0.5,
            "valid_f1": 0.1 * n,
        }
        for n in (1, 2, 3)
    ]
    axes = plot_curves(rows, monitor="valid_f1", best_epoch=2)
    other = next(sibling for sibling in axes.figure.axes if sibling is not axes)
    assert [line.get_label() for line in other.lines] == ["valid_f1", "kept"]
    assert (*other.lines[1].get_xdata(), *other.lines[1].get_ydata()) == (2, 0.2)


def test_the_second_axis_spans_more_than_noise_and_tells_no_parts_loss():
    """A change of one picture in a hundred is no peak."""
    rows = [
        {
            "epoch": n + 1,
            "phase": "full",
            "train_loss": 1.0,
            "valid_loss": 1.0,
            "valid_a_loss": 0.5,
            "valid_a_accuracy": v,
        }
        for n, v in enumerate((0.78, 0.79))
    ]
    axes = plot_curves(rows)
    (right,) = [one for one in axes.figure.axes if one is not axes]
    low, high = right.get_ylim()
    assert right.get_ylabel() == "valid_a_accuracy"
    assert high - low > 0.15
    assert low < 0.78 < 0.79 < high

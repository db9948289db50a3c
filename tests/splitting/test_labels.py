import re

import pytest

from layerkit.splitting.labels import describe_rule, group_reader, label_reader


@pytest.mark.parametrize(
    ("rule", "path", "label"),
    [
        ("folder", "cat/x/1.jpg", "cat"),
        ("folder", "1.jpg", None),
        (r"(cat|dog)\.\d+\.jpg", "cat.12.jpg", "cat"),
        (r"(cat|dog)\.\d+\.jpg", "cat.1/dog.12.jpg", "dog"),
        (r"(cat)?\d", "1.jpg", None),
        (re.compile("(CAT)", re.IGNORECASE), "a/cat.jpg", "cat"),
        (lambda path: path.split("/")[1], "a/b/1.jpg", "b"),
    ],
)
def test_labels(rule, path, label):
    """A label comes from the first folder, from the file's name alone, or from a function of the path."""
    assert label_reader(rule)(path) == label


@pytest.mark.parametrize(
    ("rule", "path", "group"),
    [
        (r"patient(\d+)/", "a/patient7/1.jpg", "7"),
        (r"patient\d+", "a/patient7/1.jpg", "patient7"),
        (r"patient\d+", "a/1.jpg", None),
        (lambda path: path[0], "a/1.jpg", "a"),
    ],
)
def test_groups(rule, path, group):
    """A group is searched in the whole relative path."""
    assert group_reader(rule)(path) == group


def test_wrong_rules():
    """A rule that cannot work is refused with what would."""
    with pytest.raises(ValueError, match='did you mean "folder"'):
        label_reader("folders")
    with pytest.raises(ValueError, match="with one group: put the label in brackets"):
        label_reader(r"cat|dog")
    with pytest.raises(ValueError, match=r"no regular expression \(missing \)"):
        label_reader("(cat")
    with pytest.raises(ValueError, match="has 2 groups; expected at most one"):
        group_reader("(a)(b)")
    with pytest.raises(TypeError, match="`label` is 3; expected"):
        label_reader(3)
    with pytest.raises(TypeError, match="`group` is 3; expected"):
        group_reader(3)


def test_function_must_answer_a_string():
    """A number is not silently made into a label."""
    with pytest.raises(TypeError, match=r"answered 7 for 'a\.jpg'; expected a string"):
        label_reader(lambda path: 7)("a.jpg")


def test_descriptions():
    """An expression is told from another by its text and its flags."""
    assert describe_rule(re.compile("a")) == describe_rule("a") == "a"
    assert describe_rule(re.compile("a", re.IGNORECASE)) != "a"
    assert describe_rule(str.lower) == "a function"

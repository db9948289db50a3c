"""The public docstrings are in NumPy style, and say as much as the signature does."""

import inspect
from collections.abc import Iterator
from operator import attrgetter

import pytest
from numpydoc.validate import ERROR_MSGS, validate

import layerkit

# Left out: what a checker cannot judge (whether a longer text, links or examples would help), and form
# that this project writes otherwise.
LEFT_OUT = {
    "ES01",  # no extended summary
    "EX01",  # no examples
    "GL01",  # summary on the line of the quotes
    "PR04",  # parameters that another docstring describes are only named
    "SA01",  # no "See Also"
    "SA04",
}
# A method may say all in its one sentence, and a result's fields are its attributes.
ONLY_WITH_SECTION = {"PR01": "Parameters\n---", "RT01": "Returns\n---", "YD01": "Yields\n---"}


def public_objects() -> Iterator[str]:
    """Give the dotted names of what users see: exported names, and the public methods of exported classes."""
    for name in sorted(set(layerkit.__all__) - {"__version__"}):
        value = getattr(layerkit, name)
        yield f"layerkit.{name}"
        if inspect.isclass(value) and not issubclass(value, Exception):
            for method, member in vars(value).items():
                if not method.startswith("_") and inspect.isroutine(member):
                    yield f"layerkit.{name}.{method}"


def expected_checks(name: str) -> set[str]:
    """Give the checks that hold for this object."""
    doc = inspect.getdoc(attrgetter(name.removeprefix("layerkit."))(layerkit)) or ""
    brief = name.count(".") > 1 or "Attributes\n---" in doc
    excused = {code for code, section in ONLY_WITH_SECTION.items() if section not in doc}
    return set(ERROR_MSGS) - LEFT_OUT - (excused if brief else set())


@pytest.mark.parametrize("name", list(public_objects()))
def test_docstring_follows_the_style(name: str) -> None:
    """Every check of numpydoc passes but those that this project leaves out."""
    checks = expected_checks(name)
    found = [f"{code}: {message}" for code, message in validate(name)["errors"] if code in checks]
    assert found == []

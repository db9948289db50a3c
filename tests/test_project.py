"""What the project's files promise each other."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def shell_blocks(text: str) -> list[str]:
    """Give the lines of each shell block."""
    return re.findall(r"```sh\n(.+?)\n```", text, flags=re.DOTALL)


def python_blocks(text: str) -> list[str]:
    """Give the lines of each Python block."""
    return re.findall(r"```python\n(.+?)\n```", text, flags=re.DOTALL)


@pytest.fixture
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_has_two_commands_of_one_line(readme: str) -> None:
    """One line installs and runs the demo, one line installs and runs the tests."""
    demo, tests = shell_blocks(readme)
    assert "\n" not in demo + tests
    assert demo.endswith("layerkit demo")
    assert tests.endswith("tests")


def test_ci_runs_the_test_command_of_the_readme(readme: str) -> None:
    """The last line of .ci/run is the README's test command, word for word."""
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == shell_blocks(readme)[1]


def test_landing_page_shows_the_lines_of_the_readme(readme: str) -> None:
    """README and landing page show the same ten lines."""
    landing = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert python_blocks(landing)[0] == python_blocks(readme)[0]


def test_python_versions_agree() -> None:
    """The oldest Python of the classifiers is the one that the metadata, ruff and mypy name."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    classifiers = "\n".join(pyproject["project"]["classifiers"])
    oldest = re.findall(r"Python :: (3\.\d+)", classifiers)[0]
    assert pyproject["project"]["requires-python"] == f">={oldest}"
    assert pyproject["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert pyproject["tool"]["mypy"]["python_version"] == oldest


def test_changelog_names_the_version() -> None:
    """The changelog has a heading for the version that the package carries."""
    from layerkit import __version__

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{__version__.partition('.dev')[0]}]" in changelog

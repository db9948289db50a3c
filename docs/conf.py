"""How Sphinx builds these pages; `nox -s docs` runs it with every warning as an error."""

import contextlib
import io
import os
import shutil
from pathlib import Path
from unittest import mock

import layerkit

HERE = Path(__file__).parent

project = "layerkit"
author = "The layerkit developers"
copyright = f"2026, {author}"
version = release = layerkit.__version__

extensions = [
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
default_role = "autolink"  # single backticks: a link where there is such a name, else emphasis
nitpick_ignore_regex = [("py:obj", "[a-z_]+")]  # a single lower-case word there is a field, which has no page

# Signatures stay short; the types stand, in words, in each docstring's Parameters.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"  # no word is a link but the common types of Python, and these
LINKED = [
    *(f"layerkit.{name}" for name in layerkit.__all__ if name != "__version__"),
    "matplotlib.axes.Axes",
    "pathlib.Path",
    "torch.Tensor",
    "torch.device",
    "torch.nn.Module",
    "torch.optim.Optimizer",
    "torch.utils.data.DataLoader",
    "torchvision.models.WeightsEnum",
]
numpydoc_xref_aliases = {
    "bool": ":class:`python:bool`",
    "callable": ":term:`python:callable`",
    **{name.rpartition(".")[2]: f":obj:`~{name}`" for name in LINKED},
    **{name: f":obj:`{name}`" for name in LINKED},
}

copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# The inventories are small files beside this one, so that links to other projects need no network;
# make_inventories.py writes them.
intersphinx_mapping = {
    name: (url, str(HERE / "inventories" / f"{name}.inv"))
    for name, url in {
        "matplotlib": "https://matplotlib.org/stable/",
        "numpy": "https://numpy.org/doc/stable/",
        "python": "https://docs.python.org/3/",
        "torch": "https://docs.pytorch.org/docs/stable/",
        "torchvision": "https://docs.pytorch.org/vision/stable/",
    }.items()
}

plot_include_source = True
plot_html_show_formats = False
plot_html_show_source_link = False

html_theme = "furo"
html_title = "layerkit"
html_static_path = ["_static"]
html_css_files = ["layerkit.css"]
html_copy_source = False
html_show_sphinx = False


def draw_demo_once() -> None:
    """Make the pictures of the landing page, unless an earlier build has left them."""
    pictures = [HERE / "_static" / "demo" / name for name in ("curves.png", "predictions.png")]
    if all(picture.is_file() for picture in pictures):
        return
    from layerkit.demo import run_demo

    run_demo(HERE / "_build" / "demo")
    for picture in pictures:
        picture.parent.mkdir(exist_ok=True)
        shutil.copyfile(HERE / "_build" / "demo" / picture.name, picture)


def write_command_help() -> None:
    """Write what each command says of itself, for the page on the command line."""
    from layerkit.cli.running import COMMANDS, make_parser

    folder = HERE / "_build" / "commands"
    folder.mkdir(parents=True, exist_ok=True)
    for add in COMMANDS:
        name = add.__name__.removeprefix("add_")
        said = io.StringIO()
        # argparse would take the width of whoever builds.
        with (
            mock.patch.dict(os.environ, COLUMNS="88"),
            contextlib.redirect_stdout(said),
            contextlib.suppress(SystemExit),
        ):
            make_parser().parse_args([name, "--help"])
        (folder / f"{name}.txt").write_text(said.getvalue(), encoding="utf-8")


draw_demo_once()
write_command_help()

"""Write the page of torchvision's builders: the family, where the head is, whether replacing it passed.

``python docs/heads_table.py`` writes ``docs/reference/heads_table.md`` anew.
The tests go through the same rows and compare the page with them, so it can neither go stale nor say more
than they hold.
"""

import inspect
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torchvision.models import get_model_builder, list_models
from torchvision.models.regnet import BlockParams

from layerkit.errors import HeadError
from layerkit.heads import find_head, replace_head

PAGE = Path(__file__).parent / "reference" / "heads_table.md"
INTRODUCTION = """\
% Written by `python docs/heads_table.py`; tests/heads/test_torchvision.py compares it with what is true.

# The head of every torchvision model

What {func}`~layerkit.replace_head` replaces in each builder of `torchvision.models.list_models()`.
Auxiliary layers come after the main ones.
"Passed" means: after two replacements, the state dict has the keys and shapes of the builder's own.
So checkpoints load both ways.
"""


@dataclass(frozen=True)
class Row:
    """One builder: its family, its sites as (path, features that enter), and what came out."""

    builder: str
    family: str
    sites: tuple[tuple[str, int], ...]
    status: str


def build(name: str, **kwargs: Any) -> nn.Module:
    """Build a model of torchvision's registry without pretrained weights, on the current default device."""
    if "weights_backbone" in inspect.signature(get_model_builder(name)).parameters:
        kwargs["weights_backbone"] = None
    if name.endswith(("googlenet", "inception_v3")):
        kwargs.setdefault("init_weights", False)  # anything else warns, or takes minutes
    from_init_params = BlockParams.from_init_params

    def on_the_cpu(*args: Any, **kwargs: Any) -> BlockParams:
        with torch.device("cpu"):  # RegNet computes its widths with tensors, which need values
            return from_init_params(*args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(patch.object(BlockParams, "from_init_params", on_the_cpu))
        if torch.get_default_device().type == "meta":
            # There are no values to draw, and on this device torch takes milliseconds over each call.
            stack.enter_context(patch.object(torch.Tensor, "normal_", lambda tensor, *_, **__: tensor))
        return get_model_builder(name)(weights=None, **kwargs)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the keys and shapes of a model's state dict, in order."""
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@cache
def row(name: str) -> Row:
    """Replace the head of one builder's model twice, and compare it with the builder's own."""
    options = {}
    if "aux_loss" in inspect.signature(get_model_builder(name)).parameters:
        options["aux_loss"] = True  # as pretrained segmentation models have it
    with torch.device("meta"):
        model = build(name, **options)
        try:
            head = find_head(model)
        except HeadError as error:
            return Row(name, type(model).__name__, (), f"refused: {str(error).split('. ')[1]}")
        expected = build(name, num_classes=7, **options)
        replace_head(replace_head(model, 3), 7)
    passed = shapes(model) == shapes(expected)
    sites = tuple((site.path, site.in_features) for site in head.sites)
    return Row(name, head.family, sites, "passed" if passed else "FAILED")


def page(rows: list[Row]) -> str:
    """Lay out the page, the rows as a Markdown table."""
    lines = [INTRODUCTION, "| builder | family | head | features in | status |", "|---|---|---|---|---|"]
    for r in rows:
        paths = ", ".join(f"`{path}`" for path, _ in r.sites)
        features = ", ".join(str(features) for _, features in r.sites)
        lines.append(f"| `{r.builder}` | {r.family} | {paths} | {features} | {r.status} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page of all builders."""
    PAGE.write_text(page([row(name) for name in list_models()]), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

"""Write inventories/*.inv: the names of other projects that these pages link to, and where they are documented.

Sphinx usually fetches whole inventories over the network. These hold only what is linked to, so the build
needs no network. When it reports a missing reference, add the name here and run this script.
"""

import zlib
from pathlib import Path

FOLDER = Path(__file__).parent / "inventories"

# The roles, then the pages, and the names on each; "$" stands for the name.
Names = dict[str, dict[str, str]]

PYTHON: Names = {
    "py:class": {
        "library/functions.html#$": "bool float int",
        "library/pathlib.html#$": "pathlib.Path",
        "library/stdtypes.html#$": "dict list str tuple",
    },
    "py:data": {"library/constants.html#$": "False None True"},
    "py:exception": {
        "library/exceptions.html#$": (
            "Exception LookupError OSError RuntimeError TypeError UserWarning ValueError"
        ),
    },
    "std:term": {"glossary.html#term-$": "callable iterable sequence"},
}
TORCH: Names = {
    "py:class": {
        "data.html#$": "torch.utils.data.DataLoader",
        "generated/$.html#$": "torch.nn.Module",
        "optim.html#$": "torch.optim.Optimizer",
        "tensor_attributes.html#$": "torch.device",
        "tensors.html#$": "torch.Tensor",
    },
    "py:function": {
        "generated/$.html#$": (
            "torch.nn.functional.binary_cross_entropy_with_logits torch.nn.functional.cross_entropy "
            "torch.nn.functional.mse_loss"
        ),
    },
}
TORCHVISION: Names = {
    "py:class": {"models.html": "torchvision.models.WeightsEnum"},
}
MATPLOTLIB: Names = {
    "py:class": {"api/_as_gen/$.html#$": "matplotlib.axes.Axes"},
}
NUMPY: Names = {
    "py:class": {"reference/generated/$.html#$": "numpy.ndarray"},
}


def write_inventory(project: str, names: Names) -> None:
    """Write one inventory, in version 2 of Sphinx's format."""
    header = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    header += "# The remainder of this file is compressed using zlib.\n"
    lines = [
        f"{name} {role} 1 {page.replace('$', name)} -\n"
        for role, pages in names.items()
        for page, listed in pages.items()
        for name in listed.split()
    ]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{project}.inv").write_bytes(header.encode() + zlib.compress("".join(lines).encode(), 9))


if __name__ == "__main__":
    write_inventory("python", PYTHON)
    write_inventory("torch", TORCH)
    write_inventory("torchvision", TORCHVISION)
    write_inventory("matplotlib", MATPLOTLIB)
    write_inventory("numpy", NUMPY)

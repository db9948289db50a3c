"""A run's state on disk, from which the same call goes on."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from layerkit._version import __version__
from layerkit.distributed import is_writer
from layerkit.errors import CheckpointError
from layerkit.saving import pack, read_tensors, unpack, write_tensors

FORMAT = 1


class Checkpoint:
    """A folder that holds the last state of a run, written whole or not at all.

    Parameters
    ----------
    folder : str or Path
        Made if it is not there. It belongs to one run.
    identity : dict
        What makes a run this run and no other, as text or numbers.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.path = Path(folder) / "last.safetensors"
        self.identity = dict(identity)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state; tensors, numbers, text, lists and dicts in any nesting."""
        if not is_writer():
            return
        tensors: dict[str, Tensor] = {}
        packed = pack(state, tensors, "state")
        header = {"format": FORMAT, "version": __version__, "identity": self.identity, "state": packed}
        write_tensors(self.path, tensors, header)

    def load(self) -> dict[str, Any] | None:
        """Read the state, or give ``None`` where no run has begun.

        Raises
        ------
        CheckpointError
            The file is damaged, from a newer layerkit, or belongs to another run.
        """
        if not self.path.exists():
            return None
        try:
            tensors, header = read_tensors(self.path)
        except ValueError as error:
            raise CheckpointError(f"{error} Or remove {self.path.parent} to begin anew.") from error
        if header.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.path} has the format {header.get('format')} (layerkit {header.get('version')}); expected "
                f"{FORMAT}, that of layerkit {__version__}. Go on with that version, or choose another folder."
            )
        self._check_identity(header["identity"])
        state: dict[str, Any] = unpack(header["state"], tensors)
        return state

    def _check_identity(self, saved: Mapping[str, Any]) -> None:
        changed = [name for name in {**saved, **self.identity} if saved.get(name) != self.identity.get(name)]
        if not changed:
            return
        lines = [f"{name} was {saved.get(name)!r} and is {self.identity.get(name)!r}" for name in changed]
        remedy = (
            "Put it back to go on with that run, or pass another folder as checkpoint= to begin a new one."
        )
        if changed == ["epochs"]:
            remedy = (
                "The schedule was laid out for that many, so more epochs are another run: to train on from its "
                "best weights, fit once more as before (it returns at once, with the best weights in the model), "
                "then fit the model with a new checkpoint= folder."
            )
        raise CheckpointError(
            f"{self.path.parent} holds another run: {'; '.join(lines)}; expected the same call. {remedy}"
        )


def digest(value: Any) -> str:
    """Give a short fingerprint of JSON-like data."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

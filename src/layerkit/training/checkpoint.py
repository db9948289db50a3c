"""A run's state on disk, from which the same call goes on."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from layerkit._version import __version__
from layerkit.distributed import is_writer
from layerkit.errors import CheckpointError
from layerkit.saving import atomic_path, checksum, copies, pack, read_tensors, unpack, write_tensors

FORMAT = 4
_LAST = "last.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Say where the state of a run is kept, and how often it is written.

    Parameters
    ----------
    path : str or Path
        A folder, made if it is not there. It belongs to one run.
    every_seconds : float
        Within an epoch the state is written when so much time has gone by; it always is before the first step
        and at the end of an epoch (in the frozen phase, where epochs are short, once a second).
    keep : int
        How many states are kept: the last, and the ends of the epochs before it.

    Examples
    --------
    >>> checkpoint = Checkpoint("runs/pets", every_seconds=60)
    """

    path: str | Path
    every_seconds: float = 300.0
    keep: int = 1

    def __post_init__(self) -> None:
        if not self.every_seconds > 0:
            raise ValueError(
                f"`every_seconds` is {self.every_seconds}; expected a number above zero. 300 is five minutes."
            )
        if isinstance(self.keep, bool) or not isinstance(self.keep, int) or self.keep < 1:
            raise ValueError(f"`keep` is {self.keep!r}; expected a whole number of at least 1.")


class Store:
    """The files of a checkpoint: ``last.safetensors``, and ``best-<epoch>.safetensors`` to which it points.

    Parameters
    ----------
    checkpoint : Checkpoint
        Where.
    identity : dict
        What makes a run this run and no other, as text or numbers.
    circumstances : dict
        What may change between two calls, but not without a word.
    in_background : bool
        Whether training goes on while a file is written. That helps where an accelerator trains; on a CPU the
        writer would take its time, and hold a second copy of the state, while the model wants both.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        identity: Mapping[str, Any],
        circumstances: Mapping[str, Any],
        *,
        in_background: bool,
    ) -> None:
        self.folder = Path(checkpoint.path)
        self.keep = checkpoint.keep
        self.identity = dict(identity)
        self.circumstances = dict(circumstances)
        self.changes: list[str] = []
        self._written_best: int | None = None
        self._writer = ThreadPoolExecutor(1, "layerkit-save") if in_background else None
        self._last_job: Future[None] | None = None

    def save(self, state: Mapping[str, Any], best_epoch: int, best: Mapping[str, Tensor]) -> None:
        """Write the state and, where they are new, the best weights: first those, then what points to them.

        Both are copied at once; in the background the files may follow later, up to `finish`.
        """
        if not is_writer():
            return
        self.finish()
        # Another process may have tidied it away, where a job was started twice.
        if best_epoch != self._written_best or not self._best(best_epoch).exists():
            self._write(self._best(best_epoch), dict(best), "weights")
        self._write(self.folder / _LAST, {**state, "best_epoch": best_epoch}, "state")
        self._written_best = best_epoch
        self._do(partial(self._tidy, best_epoch))

    def finish(self) -> None:
        """Wait until all is written.

        Raises
        ------
        CheckpointError
            It could not be.
        """
        last, self._last_job = self._last_job, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Wait for the writer, however it ends: what another run writes here must not come before it."""
        if self._writer is not None:
            self._writer.shutdown()

    def forget_best(self) -> None:
        """Write the best weights again next time: there are more of them than there were."""
        self._written_best = None

    def keep_epoch(self, epoch: int) -> None:
        """Keep the last state as that of an epoch's end, and as many before it as are wanted."""
        if is_writer() and self.keep > 1:
            name = f"epoch-{epoch:04}-best-{self._written_best:04}.safetensors"
            self._do(partial(self._keep, self.folder / name))

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Read the state and the best weights, or give ``None`` where no run has begun.

        Raises
        ------
        CheckpointError
            A file is damaged, from a newer layerkit, or belongs to another run.
        """
        last = self.folder / _LAST
        if not last.exists():
            return None
        state = self._read(last, "state")
        self._written_best = state["best_epoch"]
        return state, self._read(self._best(state["best_epoch"]), "weights")

    def _kept(self) -> list[Path]:
        """List the states of epochs' ends, each of which names the best epoch whose weights it needs."""
        return sorted(
            self.folder.glob("epoch-*-best-*.safetensors"), key=lambda kept: int(kept.stem.split("-")[1])
        )

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch:04}.safetensors"

    def _do(self, job: Callable[[], None]) -> None:
        """Do it now or, in the background, after what waits already."""
        if self._writer is None:
            job()
        else:
            self._last_job = self._writer.submit(self._after, self._last_job, job)

    @staticmethod
    def _after(before: Future[None] | None, job: Callable[[], None]) -> None:
        """Do it unless what came before failed: a state must not point to weights that were not written."""
        if before is not None:
            before.result()
        job()

    def _tidy(self, best_epoch: int) -> None:
        """Remove the best weights to which no state points any longer."""
        needed = {
            self._best(best_epoch).stem,
            *(f"best-{kept.stem.rpartition('-')[2]}" for kept in self._kept()),
        }
        for old in self.folder.glob("best-*.safetensors"):
            if old.stem not in needed:
                old.unlink(missing_ok=True)

    def _keep(self, kept: Path) -> None:
        try:
            with atomic_path(kept) as temporary:
                shutil.copyfile(self.folder / _LAST, temporary)
        except OSError as error:
            raise self._unwritten(kept, error) from error
        for old in self._kept()[: -self.keep]:
            old.unlink()

    def _write(self, path: Path, content: Mapping[str, Any], name: str) -> None:
        tensors: dict[str, Tensor] = {}
        packed = pack(content, tensors, name)
        header = {
            "format": FORMAT,
            "kind": name,
            "version": __version__,
            "identity": self.identity,
            "circumstances": self.circumstances,
            "content": packed,
        }
        self._do(partial(self._write_file, path, copies(tensors), header))

    def _write_file(self, path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        try:
            write_tensors(path, tensors, header)
        except OSError as error:
            raise self._unwritten(path, error) from error

    def _unwritten(self, path: Path, error: OSError) -> CheckpointError:
        remedy = "Make room, or choose another folder."
        if (self.folder / _LAST).exists():
            remedy = "The state before is whole: make room, and call again to go on from there."
        return CheckpointError(
            f"The state of the run could not be written to {path} ({error}); expected a folder of your own with room "
            f"in it. {remedy}"
        )

    def _read(self, path: Path, name: str) -> dict[str, Any]:
        try:
            tensors, header = read_tensors(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{error} Or remove {self.folder} to begin anew{self._older(path)}."
            ) from error
        if not isinstance(header, dict) or not header.keys() >= {
            "format",
            "identity",
            "circumstances",
            "content",
        }:
            raise CheckpointError(
                f"{path} is no state of a run; expected one that fit() wrote. Choose another folder{self._older(path)}."
            )
        if header["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has the format {header['format']} (layerkit {header.get('version')}); expected "
                f"{FORMAT}, that of layerkit {__version__}. Go on with that version, or choose another folder."
            )
        kind = header.get("kind")
        if kind != name:
            raise CheckpointError(
                f"{path} holds the {kind} of a run; expected its {name}. The files were exchanged: put each "
                "under its own name again, or take another copy."
            )
        self._check_identity(header["identity"])
        if name == "state":
            before = header["circumstances"]
            self.changes = [
                f"{key} was {before[key]} and is {value}"
                for key, value in self.circumstances.items()
                if key in before and before[key] != value
            ]
        try:
            content: dict[str, Any] = unpack(header["content"], tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The state in {path} cannot be read ({error!r}); expected what fit() wrote. Take another copy"
                f"{self._older(path)}."
            ) from error
        return content

    def _older(self, path: Path) -> str:
        kept = self._kept()
        return f", or rename {kept[-1].name} to {_LAST}" if kept and path.name == _LAST else ""

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
                "then fit the model with a new checkpoint= folder. In a terminal, layerkit train --start takes the "
                "file that was saved."
            )
        raise CheckpointError(
            f"{self.folder} holds another run: {'; '.join(lines)}; expected the same call. {remedy}"
        )


def without_address(value: Any) -> str:
    """Write an object as text that is the same in another process."""
    if isinstance(value, Tensor):
        return checksum(copies({"": value}))
    if isinstance(value, set | frozenset):
        value = sorted(map(str, value))
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))


def digest(value: Any) -> str:
    """Give a short fingerprint of JSON-like data."""
    text = json.dumps(value, sort_keys=True, default=without_address)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

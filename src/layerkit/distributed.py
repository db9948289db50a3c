"""Which of several processes this one is, under ``torchrun``, and what they tell each other."""

import atexit
import os
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def rank() -> int:
    """Give this process's number, 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Give the number of processes that work on one run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Give this process's number on its own machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world() -> int:
    """Give the number of processes on this machine, which share its processors."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_writer() -> bool:
    """Tell whether this process writes files and shows progress: only the first does."""
    return rank() == 0


def join_group(device: torch.device) -> None:
    """Meet the other processes, once; a group that the user has made is used as it is."""
    if world() == 1 or dist.is_initialized():
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=_own_store(), rank=rank(), world_size=world())
    atexit.register(_leave_group)


def wait_for_all() -> None:
    """Go on when every process has come this far."""
    if world() > 1 and dist.is_initialized():
        dist.barrier()


def sum_over_all(values: Tensor) -> Tensor:
    """Add a tensor up over all processes, in place."""
    if world() > 1:
        dist.all_reduce(values)
    return values


def largest_of_all(values: Tensor) -> Tensor:
    """Take the largest of each value over all processes, in place."""
    if world() > 1:
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def copy_from_first(tensors: list[Tensor]) -> None:
    """Overwrite tensors with those of the first process."""
    if world() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


def gather_rows(rows: Tensor) -> list[Tensor]:
    """Give every process the rows of each, whose numbers may differ."""
    if world() == 1:
        return [rows]
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    counts = [int(size) for size in sizes]
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    return [part[:count] for part, count in zip(gathered, counts, strict=True)]


def gather_objects(own: Any) -> list[Any]:
    """Give every process what each of them has, in order; for small things of any kind."""
    if world() == 1:
        return [own]
    gathered: list[Any] = [None] * world()
    dist.all_gather_object(gathered, own)
    return gathered


def is_loss_of_another(error: Exception) -> bool:
    """Tell whether an exchange failed because another process is gone: its backend knows only of a connection."""
    return world() > 1 and (isinstance(error, dist.DistError) or "onnection" in str(error))


def _own_store() -> dist.Store | None:
    """Give a place where the processes of this start meet, apart from those of an earlier one.

    torchrun keeps its store over its own restarts, and in it the addresses of processes that are dead by then
    (https://github.com/pytorch/pytorch/issues/135712). Over several machines the count of restarts is not the
    same for all, and the default is taken.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or local_world() != world():
        return None
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(*place, world(), is_master=False)
    return dist.PrefixStore(f"layerkit/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()

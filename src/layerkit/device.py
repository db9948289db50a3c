"""Where a model runs, in which precision and memory format."""

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from layerkit import distributed
from layerkit.errors import warn

Device = str | torch.device
Precision = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_TRIED = frozenset(("torch", "torchvision", "timm", "layerkit"))
"""Packages whose models compute in channels-last as they do otherwise."""

NO_CONTEXT = contextlib.nullcontext()
"""A context that does nothing; one for all, since every step enters it."""


@dataclass(frozen=True)
class Hardware:
    """A device with the precision and the memory format that were chosen for it."""

    device: torch.device
    dtype: torch.dtype
    channels_last: bool

    def __str__(self) -> str:
        name = next(name for name, dtype in _DTYPES.items() if dtype == self.dtype)
        return f"{self.device}, {name}{', channels-last' if self.channels_last else ''}"

    def autocast(self) -> AbstractContextManager[Any]:
        """Run the forward pass in the chosen precision."""
        if self.dtype == torch.float32:
            return NO_CONTEXT
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler | None:
        """Make the gradient scaler that fp16 needs: its smallest numbers would vanish without one."""
        return torch.amp.GradScaler(self.device.type) if self.dtype == torch.float16 else None

    def move(self, inputs: Tensor) -> Tensor:
        """Bring a batch of pictures to the device."""
        if inputs.device != self.device:
            inputs = inputs.to(self.device, non_blocking=True)
        if self.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs


def choose_hardware(
    model: nn.Module,
    device: Device = "auto",
    precision: Precision = "auto",
    channels_last: bool | Literal["auto"] = "auto",
) -> Hardware:
    """Choose what was left to layerkit: the accelerator, its faster precision, and the memory format.

    Raises
    ------
    ValueError
        The device does not exist here, or a name is not one of those described.
    """
    chosen = choose_device(device)
    if precision != "auto" and precision not in _DTYPES:
        raise ValueError(
            f"`precision` is {precision!r}; expected 'auto', 'fp32', 'bf16' or 'fp16'. "
            "'auto' takes fp32 on a CPU and the faster one elsewhere."
        )
    if precision == "fp16" and chosen.type == "cpu":
        raise ValueError(
            "`precision` is 'fp16' on a CPU; expected 'fp32' or 'bf16' there. CPUs gain nothing by fp16."
        )
    dtype = _faster_dtype(chosen) if precision == "auto" else _DTYPES[precision]
    if channels_last == "auto":
        # Only 2-d convolutions gain by it, 3-d ones cannot have it, and MPS has had wrong results with it. Code that
        # nobody has tried so may call view() on what is laid out otherwise now, as many a tutorial's network does.
        kinds = {type(module) for module in model.modules()}
        is_tried = all(
            kind.__module__.partition(".")[0] in _TRIED and not issubclass(kind, torch.fx.GraphModule)
            for kind in kinds
        )
        suits = nn.Conv2d in kinds and nn.Conv3d not in kinds
        channels_last = chosen.type != "mps" and suits and is_tried
    return Hardware(chosen, dtype, bool(channels_last))


def choose_device(device: Device = "auto") -> torch.device:
    """Take the accelerator that torch finds (CUDA, XPU, MPS), else the CPU; or check the one that was named."""
    if device == "auto":
        found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        return _own_device(found) if distributed.world() > 1 and found.type in ("cuda", "xpu") else found
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"`device` is {str(device)!r}, which cannot be used here ({str(error).splitlines()[0]}); expected "
            "'auto', 'cpu', or an accelerator of this machine such as 'cuda:0'. Leave it out to have it chosen."
        ) from error
    return chosen


def _own_device(found: torch.device) -> torch.device:
    """Take one device for each process of a machine."""
    count = torch.accelerator.device_count()
    if distributed.local_rank() >= count:
        raise ValueError(
            f"{distributed.local_world()} processes run on a machine with {count} devices of type {found.type}; "
            f"expected one device for each. Start {count}: torchrun --nproc-per-node={count}."
        )
    torch.accelerator.set_device_index(distributed.local_rank())
    return torch.device(found.type, distributed.local_rank())


def move_model(model: nn.Module, hardware: Hardware) -> bool:
    """Bring a model to its device and memory format, in place; its parameters stay the same objects.

    Returns
    -------
    bool
        Whether the memory format was changed.
    """
    if any(p.is_meta for p in model.parameters()):
        raise ValueError(
            "The model is on the meta device, without values; expected one with weights. Build it outside "
            "torch.device('meta'), or load its weights first."
        )
    model.to(hardware.device)
    changes = hardware.channels_last and not any(is_channels_last(p) for p in model.parameters())
    if changes:
        model.to(memory_format=torch.channels_last)
    return changes


def is_channels_last(tensor: Tensor) -> bool:
    """Tell whether a tensor is laid out so, and in no other way."""
    return (
        tensor.ndim == 4
        and not tensor.is_contiguous()
        and tensor.is_contiguous(memory_format=torch.channels_last)
    )


def _faster_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    if device.type == "mps":
        return torch.float16
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        warn(
            f"{torch.cuda.get_device_name(device)} has no bfloat16; fp16 with a gradient scaler is used. "
            "Pass precision='fp32' for full precision."
        )
        return torch.float16
    return torch.bfloat16

"""What the processes of one run have to agree on, when torchrun or DeepSpeed started several of them."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from rlhf.config import Device

Result = TypeVar("Result")
# Other ranks wait while the first one compares or writes a large model, which takes longer than torch's ten minutes.
_TIMEOUT = timedelta(hours=12)


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes files and talks; torchrun and DeepSpeed set RANK, a plain run does not."""
    return os.environ.get("RANK", "0") == "0"


def join(device: Device) -> None:
    """Starts the process group, once. Trainer, Accelerate and DeepSpeed use the one they find."""
    if world_size() == 1:
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    on_gpu = device != Device.cpu and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
    atexit.register(dist.destroy_process_group)


def from_main(compute: Callable[[], Result]) -> Result:
    """`compute()` of the first rank, on every rank; what it raises is raised on every rank too."""
    if world_size() == 1:
        return compute()
    import torch.distributed as dist

    box: list[Any] = [None, None]
    if is_main_process():
        try:
            box[0] = compute()
        except Exception as error:
            box[1] = error
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return box[0]


def barrier() -> None:
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier()

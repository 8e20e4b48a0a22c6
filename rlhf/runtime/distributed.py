"""What the processes of one run have to agree on, when torchrun or DeepSpeed started several of them."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from rlhf.config import Device

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")
Item = TypeVar("Item")
# Other ranks wait while the first one compares or writes a large model, which takes longer than torch's ten minutes.
_TIMEOUT = timedelta(hours=12)
_BUCKET_NUMBERS = 2**24
_done = False


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this process writes files and talks; torchrun and DeepSpeed set RANK, a plain run does not."""
    return rank() == 0


def join(device: Device, *, alone: bool = False) -> None:
    """Starts the process group, once. Trainer, Accelerate and DeepSpeed use the one they find.

    alone: of one process too, which DeepSpeed cannot do without.
    """
    if world_size() == 1 and not alone:
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    on_gpu = device != Device.cpu and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    if world_size() == 1:
        os.environ.setdefault("LOCAL_RANK", "0")  # which DeepSpeed asks for, and no launcher has set
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=_TIMEOUT)
    else:
        dist.init_process_group(backend, timeout=_TIMEOUT)
    atexit.register(_leave)


def done() -> None:
    """Says that the work of this process has ended well: a member of a group will exit with 0, by the shortest way."""
    global _done
    _done = True


def _leave() -> None:
    """Exit handler of a group's members.

    Of one that is done, Python's own taking-down is left out. gloo's threads live on after destroy_process_group, as
    functions of torch keep the group in their defaults; one that lets go of a tensor late wants the interpreter that is
    already gone and aborts the process, which its launcher takes for a failed run (pytorch/pytorch#179291).
    """
    import torch.distributed as dist

    dist.destroy_process_group()
    if _done:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.flush()
        os._exit(0)


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


def from_every_rank(value: Result) -> list[Result]:
    """Each rank's value, in the order of ranks, on every rank."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def any_rank(flag: bool) -> bool:
    """Whether `flag` is set on any rank."""
    return any(from_every_rank(flag))


def barrier() -> None:
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier()


# Work on a batch that all ranks know: each does its share of the rows, and all get the whole of the results.


def share(rows: Sequence[Item]) -> list[Item]:
    """This rank's of `rows`, every world-size-th; all of them together are each row once."""
    return list(rows[rank() :: world_size()])


def whole(own: Sequence[Item], count: int) -> list[Item]:
    """The `count` results in their order, of which `own` are those of this rank's share."""
    shares = from_every_rank(list(own))
    return [shares[i % world_size()][i // world_size()] for i in range(count)]


def shared(work: Callable[[list[int]], Sequence[Item]], count: int) -> list[Item]:
    """What `work` gives for the rows 0 to count - 1, in their order; each rank does it for its share of them."""
    return whole(work(share(range(count))), count)


def even(items: Sequence[Item]) -> list[Item | None]:
    """The items, and as many None behind them as make every rank's list as long as the longest."""
    most = max(from_every_rank(len(items)))
    return [*items, *[None] * (most - len(items))]


def sum_over_ranks(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over ranks: the same bits on every rank."""
    if world_size() == 1:
        return
    import torch
    import torch.distributed as dist

    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in kinds.values():
        for bucket in _buckets(alike):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of tensors that are sent as one: few messages, and no second copy of a whole model's gradients."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > _BUCKET_NUMBERS:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket

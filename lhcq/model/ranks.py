"""Several GPUs of one host for one training: further ranks beside the task's process, one a GPU.

Each holds the base on its own GPU and works out the gradient of its share of each step's rows. The task's process,
rank 0, does the same, and it alone has the optimizer, writes checkpoints and decides when to stop. For each step it
names the step, hands out the weights and gets the sum of the gradients. So all ranks have the same weights by
construction, the others hold nothing that a checkpoint would need, and the rest of the loop does not know of them.

A rank that dies is seen while it is waited for, since rank 0 never waits blindly: it looks after the processes and
at its patience. What a rank says and is told goes through pipes; tensors go through `torch.distributed`.
"""

import atexit
import contextlib
import datetime
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed

from lhcq.config import TrainConfig
from lhcq.errors import LhcqError, TransientError
from lhcq.model.adapter import Adapter, attach_lora
from lhcq.model.model_cache import resident_base
from lhcq.model.passes import PassSize, choose_pass, set_checkpointing
from lhcq.model.rank_process import Peer
from lhcq.model.steps import Step, StepData, accumulate, explained_memory, seeded_dropout
from lhcq.records.specs import ModelIdentity

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 600.0
"""A rank loads the model in less, and none is so much slower in a step than another."""
_LOOK_EVERY_SECONDS = 1e-4
_LAST_WORDS_SECONDS = 5.0

_resident: "Ranks | None" = None
_stuck = False
"""Whether a thread of this process waits for ranks that died while they met; torch lets nobody call it off."""


def ranks_here() -> int:
    """How many ranks this host's visible GPUs make; one on a CPU."""
    return max(1, int(torch.cuda.device_count()))


def resident_ranks(count: int, device: torch.device) -> "Ranks":
    """Rank 0's hold on `count` ranks in all, those that worked last if they can: they have the base in memory."""
    global _resident  # noqa: PLW0603  like the base: a worker process leads one set of ranks
    if count == 1:
        return Ranks(1, device)
    if _stuck:
        log.error(
            "this process cannot meet ranks any more, since one died while they met: it ends, for a new one"
        )
        os._exit(1)
    if _resident is None or _resident.count != count or not _resident.alive:
        dismiss_ranks()
        atexit.register(dismiss_ranks)
        _resident = Ranks(count, device)
    return _resident


def dismiss_ranks() -> None:
    """End the further ranks that wait for work, if there are any."""
    if _resident is not None:
        _resident.close()


def join_group(rank: int, ranks: int, *, cpu: bool, meeting: str) -> None:
    """Make this process one of `ranks` that can send each other tensors, with a GPU of its own unless `cpu`.

    They meet by the file `meeting`, and listen on the loopback interface only.
    """
    from accelerate import PartialState
    from accelerate.utils import check_cuda_p2p_ib_support, patch_environment

    # A tracker may have made it for a process without others, and it stays what it was at first.
    PartialState._reset_state()
    variables: dict[str, Any] = {
        "rank": rank,
        "world_size": ranks,
        "local_rank": rank,
        "local_world_size": ranks,
    }
    variables |= {"gloo_socket_ifname": "lo", "nccl_socket_ifname": "lo"}
    # Else accelerate sets another number of threads, and leaves a port behind that nobody listens on.
    variables |= {"omp_num_threads": torch.get_num_threads(), "master_port": 0}
    if not cpu and not check_cuda_p2p_ib_support():
        variables |= {"nccl_p2p_disable": 1, "nccl_ib_disable": 1}
    with patch_environment(**variables):
        state = PartialState(
            cpu=cpu,
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=ranks,
            # Rank 0 has lost its patience long before; this ends a rank that it forgot.
            timeout=datetime.timedelta(seconds=2 * PATIENCE_SECONDS),
        )
        # NCCL connects, and reads those variables, when it is first used.
        torch.distributed.all_reduce(torch.zeros(1, device=state.device))
        if not cpu:
            torch.cuda.synchronize()


def leave_group() -> None:
    """Undo `join_group`, also where a rank died in the middle of something."""
    from accelerate import PartialState

    if torch.distributed.is_initialized():
        with contextlib.suppress(RuntimeError):
            torch.distributed.group.WORLD.abort()  # a kernel of NCCL would wait for the dead for ever
        with contextlib.suppress(RuntimeError):
            torch.distributed.destroy_process_group()
    PartialState._reset_state()


class Ranks:
    """Rank 0's hold on the others. With a count of 1 there are none, and everything here does nothing."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.count = count
        self._peers: list[Peer] = []
        self._meeting = -1
        self._joining: _Joining | None = None
        if count > 1:
            with self.closed_by_failure():
                self._gather(cpu=device.type == "cpu")

    def _gather(self, *, cpu: bool) -> None:
        # A file without a name in any directory: nobody else finds it, and nothing has to remove it.
        self._meeting = os.memfd_create("lhcq-ranks")
        meeting = f"/proc/{os.getpid()}/fd/{self._meeting}"
        threads = max(1, torch.get_num_threads() // self.count)
        for rank in range(1, self.count):
            peer = Peer(rank, self.count, threads=threads, cpu=cpu, meeting=meeting)
            self._peers.append(peer)
        for peer in self._peers:
            peer.answer(PATIENCE_SECONDS)  # all have come so far that they will join
        self._joining = _Joining(ranks=self.count, cpu=cpu, meeting=meeting)
        self._finish([self._joining])

    @property
    def alive(self) -> bool:
        """Whether all of them are there."""
        return len(self._peers) == self.count - 1 and all(peer.alive for peer in self._peers)

    @contextlib.contextmanager
    def closed_by_failure(self) -> Iterator[None]:
        """Close when the body fails: nobody knows in the middle of what that leaves the others."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the others, whatever they do."""
        for peer in self._peers:
            peer.kill()
        self._peers = []
        if self._meeting >= 0:
            leave_group()  # first: torch writes into the file once more
            if self._joining is None or self._joining.is_completed():
                os.close(self._meeting)
            else:  # a thread goes on looking there for one that died, under a number that no other file may get
                _note_stuck()
            self._meeting = -1

    def begin(self, data: StepData) -> None:
        """Tell the others what is trained on."""
        if self._peers:
            self._tell(
                model=str(data.base.directory),
                identity=data.base.identity.model_dump(),
                config=data.config.model_dump(mode="json"),
                prompts=list(data.prompts),
                labels=[int(label) for label in data.labels],
            )

    def agree(self, size: PassSize) -> PassSize:
        """The passes that all ranks do, when rank 0 would do those of `size`: the smallest GPU decides."""
        sizes = [size, *(PassSize.checked(**peer.answer(PATIENCE_SECONDS)) for peer in self._peers)]
        return PassSize(
            rows=min(one.rows for one in sizes),
            checkpointing=any(one.checkpointing for one in sizes),
            ranks=self.count,
        )

    def hand_out(
        self, adapter: Adapter, *, step: int, until: int, size: PassSize, waits: bool = True
    ) -> None:
        """Have the others begin a step with rank 0's weights; no step after `until` will be asked of them.

        Unless it `waits`, what rank 0 has a GPU do next may be queued behind that; nothing of it may ask the GPU
        itself for an answer, which it would not give if a rank had died.
        """
        if self._peers:
            device = adapter.flat.device
            self._tell(step=step, until=until, size=size.model_dump())
            self._join(device, [torch.distributed.broadcast(adapter.flat.data, src=0, async_op=True)])
            if waits:
                self.reach(Reached(device))

    def sum_up(self, adapter: Adapter, losses: torch.Tensor, tokens: int) -> torch.Tensor:
        """Add the others' gradients to the adapter's; the sums of their losses and tokens and these, `(3,)`."""
        totals = _totals(losses, tokens)
        if self._peers:
            sums = [
                torch.distributed.reduce(one, dst=0, async_op=True) for one in (adapter.flat.grad, totals)
            ]
            self._join(losses.device, sums)
        return totals

    def reach_sum(self, device: torch.device) -> None:
        """Wait for the others' gradients, as long as all of them are there.

        What is made of the sum for the first time asks the GPU for answers, which it would not give if one had died:
        CUDA loads a kernel when it is first used.
        """
        if self._peers:
            self.reach(Reached(device))

    def reach(self, point: "Reached") -> None:
        """Wait until the device is there, as long as all others are."""
        self._finish([point])

    def _tell(self, **command: Any) -> None:
        line = json.dumps(command).encode()
        for peer in self._peers:
            peer.send(line, PATIENCE_SECONDS)

    def _join(self, device: torch.device, works: list[Any]) -> None:
        """Have a GPU wait for what the others take part in; on a CPU this process does."""
        if device.type == "cpu":
            self._finish(works)
            return
        with self._explained():
            for work in works:
                work.wait()

    def _finish(self, works: list[Any]) -> None:
        """Wait, as long as all of the others are there."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._explained():
            for work in works:
                while not work.is_completed():
                    self._look(deadline)
                    time.sleep(_LOOK_EVERY_SECONDS)
                work.wait()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # a connection broke, which may be known before the death that broke it
            raise self._broken(error) from error

    def _look(self, deadline: float) -> None:
        for peer in self._peers:
            if not peer.alive:
                raise peer.failure()
        if time.monotonic() > deadline:
            raise TransientError(f"a rank of a training is more than {PATIENCE_SECONDS:.0f} s behind.")

    def _broken(self, error: RuntimeError) -> LhcqError:
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while time.monotonic() < deadline:
            for peer in self._peers:
                if not peer.alive:
                    return peer.failure()
            time.sleep(_LOOK_EVERY_SECONDS)
        return TransientError(f"the ranks of a training cannot reach each other ({error}).")


def _note_stuck() -> None:
    global _stuck  # noqa: PLW0603  of the process, like the thread
    _stuck = True


class Reached:
    """The point that a device's queue has come to now, waited for as for a transfer."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None
        if self._event is not None:
            self._event.record()

    def is_completed(self) -> bool:
        """Whether the device has done all that was asked of it before."""
        return self._event is None or bool(self._event.query())

    def wait(self) -> None:
        """Nothing is left to wait for."""


class _Joining:
    """Rank 0's joining, waited for as for a transfer: from a rank that dies in the middle it would never hear."""

    def __init__(self, **arguments: Any) -> None:
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._join, kwargs=arguments, name="joining", daemon=True)
        self._thread.start()

    def _join(self, **arguments: Any) -> None:
        try:
            join_group(0, **arguments)
        except Exception as error:
            self._failure = error

    def is_completed(self) -> bool:
        """Whether it has ended, well or not."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Raise what went wrong."""
        if self._failure is not None:
            raise self._failure


class Follower:
    """A further rank's part of one training."""

    def __init__(
        self,
        rank: int,
        ranks: int,
        *,
        model: str,
        identity: dict[str, str],
        config: dict[str, Any],
        prompts: list[str],
        labels: list[int],
    ) -> None:
        self._rank = rank
        self._base = resident_base(Path(model), recorded=ModelIdentity.checked(**identity))
        self._config = TrainConfig.checked(**config)
        self._data = StepData(base=self._base, prompts=prompts, labels=np.array(labels), config=self._config)
        self._adapter = attach_lora(self._base, self._config)
        self._base.peft.train()
        self._upcoming: tuple[int, Step] | None = None
        self._cut: PassSize | None = None
        with explained_memory():
            self.size = choose_pass(
                self._base,
                self._config,
                longest=self._data.longest,
                shared=self._data.shared,
                ranks=ranks,
            )
            """The passes that this rank could do."""

    def work(self, *, step: int, until: int, size: dict[str, Any]) -> None:
        """Do the share of a step with rank 0's weights, and give it the gradient."""
        cut = PassSize.checked(**size)
        if cut != self._cut:  # to ask transformers how it stands takes a fifth of a small model's step
            set_checkpointing(self._base, on=cut.checkpointing)
            self._cut = cut
        if self._upcoming is None or self._upcoming[0] != step:
            self._upcoming = step, self._data.step(step, cut, self._rank)
        share = self._upcoming[1]
        torch.distributed.broadcast(self._adapter.flat.data, src=0)
        with seeded_dropout(self._base.device, self._config.seed, step, self._rank), explained_memory():
            losses = accumulate(self._base, self._adapter, share, cut)
        for one in (self._adapter.flat.grad, _totals(losses, share.tokens)):
            torch.distributed.reduce(one, dst=0)
        # A GPU works on while the next step's prompts are encoded.
        self._upcoming = (step + 1, self._data.step(step + 1, cut, self._rank)) if step < until else None


def _totals(losses: torch.Tensor, tokens: int) -> torch.Tensor:
    # Filled in where it is: a copy from the host waits for the GPU, and no prompts would be encoded meanwhile.
    return torch.cat([losses.double(), torch.full((1,), tokens, dtype=torch.float64, device=losses.device)])

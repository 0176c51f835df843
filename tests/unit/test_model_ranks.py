"""Training by two processes: the same samples, the same result to rounding, and no hang when one dies.

On the CPU, also where there is a GPU, since two ranks cannot share one; and on two GPUs where they are.
"""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from accelerate import PartialState
from hypothesis import given
from hypothesis import strategies as st

from lhcq.config import TrainConfig
from lhcq.errors import PermanentError, TransientError
from lhcq.model import rank_process, ranks
from lhcq.model.adapter import attach_lora, reset_adapter
from lhcq.model.base import load_base
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.loop import train_segment
from lhcq.model.passes import PassSize
from lhcq.model.plan import plan_run, step_rows
from lhcq.model.steps import StepData, seeded_dropout

N = 25
CONFIG = TrainConfig(learning_rate=1e-3, dropout=0.0, rank=4, batch_size=3, accumulation=2)
"""Steps of six prompts, in passes of three; the fifth and last has one, so that the second process has none."""
LAST = 5
ENDS_SECONDS = 60


class Words:
    """As much of a base as reading a step asks for: a token a letter."""

    device = torch.device("cpu")
    pad_id = 0

    @staticmethod
    def encode(prompts):
        return [[ord(letter) for letter in prompt] for prompt in prompts]


@given(
    n=st.integers(2, 40),
    batch_size=st.integers(1, 5),
    accumulation=st.integers(1, 3),
    ranks=st.integers(1, 5),
    sampling=st.sampled_from(["natural", "balanced"]),
    data=st.data(),
)
def test_the_ranks_shares_are_the_step_that_one_process_sees(
    n, batch_size, accumulation, ranks, sampling, data
):
    config = TrainConfig(batch_size=batch_size, accumulation=accumulation, sampling=sampling, epochs=1.5)
    read = StepData(
        base=Words, prompts=[f"{row}:" for row in range(n)], labels=np.arange(n) % 3 % 2, config=config
    )
    step = data.draw(st.integers(1, plan_run(n, config).total_steps))
    shares = [read.step(step, PassSize(rows=batch_size, ranks=ranks), rank) for rank in range(ranks)]
    whole = read.step(step, PassSize(rows=batch_size))
    assert seen(shares) == seen([whole])
    assert {share.rows for share in shares} == {whole.rows}
    assert sum(share.tokens for share in shares) == whole.tokens
    sizes = [len(seen([share])) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def seen(shares):
    """Each row of the shares' passes: its tokens, its label, its share of the loss."""
    return sorted(
        (ids[: last + 1], label, weight)
        for share in shares
        for batch in share.batches
        for ids, last, label, weight in zip(
            *(one.tolist() for one in (batch.token_ids, batch.last, batch.labels, batch.weights)), strict=True
        )
    )


def test_each_rank_drops_other_places_and_the_first_those_that_it_drops_alone():
    def drawn(*place):
        with seeded_dropout(torch.device("cpu"), 5, 7, *place):
            return torch.rand(4)

    torch.manual_seed(int(np.random.SeedSequence([5, 7]).generate_state(1, np.uint64)[0]))
    assert torch.equal(drawn(), torch.rand(4))
    assert torch.equal(drawn(0), drawn())
    assert not torch.equal(drawn(1), drawn())
    assert torch.equal(drawn(1), drawn(1))


TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=TWO_GPUS)])
def small(few_layers, request):
    """A base of few layers, and no rank left behind."""
    torch.set_num_threads(1)
    import bitsandbytes  # noqa: F401  before it is told that there is no GPU: it looks once in a process

    with pytest.MonkeyPatch.context() as patched:
        if request.param == "cpu":
            patched.setenv("CUDA_VISIBLE_DEVICES", "")  # for the other process
            patched.setattr(torch.cuda, "is_available", lambda: False)
        yield load_base(few_layers)
        ranks.dismiss_ranks()


def rounding(base):
    """How far two ways to one gradient may be apart, of its size.

    bfloat16 rounds what the four layers hand on, forward and back, at about 4 x 2 x 8 places, by 2^-9 / sqrt(3) each
    on average; both ways do. A row that was missing, or counted twice, would be a sixth.
    """
    one = 2.0**-9 / 3**0.5
    return 1e-4 if base.compute_dtype == torch.float32 else 3 * (2 * 64) ** 0.5 * one


def prompts():
    rng = np.random.default_rng(1)
    return [" ".join(str(n) for n in rng.integers(1, 10 ** rng.integers(1, 4), 3)) + ":" for _ in range(N)]


def train(base, count, *, checkpoint=None, until=LAST, config=CONFIG, on_step=None, read=None):
    """Train, with `count` processes: the state and what was said of the steps."""
    records = []
    state = train_segment(
        base,
        prompts=read or prompts(),
        labels=np.where(np.arange(N) % 3 == 0, 1, 0),
        config=config,
        checkpoint=checkpoint,
        until_step=until,
        on_step=lambda record: records.append(record) or on_step is None or on_step(record),
        ranks=count,
    )
    return state, records


def peer():
    """The other process."""
    (one,) = ranks._resident._peers
    return psutil.Process(one.process.pid)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (signal.SIGKILL, "rank 1 of 2 of a training was killed by SIGKILL; the worker's log may say more."),
        pytest.param(
            signal.SIGSTOP, "a rank of a training is more than 2 s behind.", marks=pytest.mark.torture
        ),
    ],
    ids=["killed", "stopped"],
)
def test_a_rank_that_is_killed_or_stands_still_ends_the_training_with_one_sentence(
    small, monkeypatch, number, sentence
):
    steps = []

    def fault(record):
        steps.append(record.step)
        monkeypatch.setattr(ranks, "PATIENCE_SECONDS", 2)
        peer().send_signal(number)
        return True

    PartialState()  # as a tracker of an earlier run leaves it
    with pytest.raises(TransientError) as raised:
        train(small, 2, on_step=fault)
    assert str(raised.value) == sentence
    # A GPU may have been asked for the second step before the first one was told of, and its rank have done it.
    assert steps == [1] or (small.device.type == "cuda" and steps == [1, 2])
    assert not [one for one in psutil.Process().children() if "lhcq.model.follower" in one.cmdline()]


@pytest.fixture(scope="module")
def alone(small):
    """What one process does: the weights, and what was said of the steps."""
    state, records = train(small, 1)
    return state.current_adapter().flat.detach().clone(), records


def apart(one, other):
    return float(torch.linalg.vector_norm((one - other).detach()))


def test_two_ranks_see_the_same_samples_and_give_the_same_gradient_to_rounding(small, tmp_path):
    """From the same weights, at every step: a row that was missing, or counted twice, would be a sixth of it."""
    checkpoint = None
    for step in range(1, LAST + 1):
        (one, first), (two, second) = (
            (train(small, count, checkpoint=checkpoint, until=step)[1][-1], small.adapter.flat.grad.clone())
            for count in (1, 2)
        )
        assert (one.step, one.tokens, one.learning_rate) == (two.step, two.tokens, two.learning_rate)
        assert two.loss == pytest.approx(one.loss, rel=rounding(small) / 10)
        assert apart(first, second) < rounding(small) * float(torch.linalg.vector_norm(first))
        state, _ = train(small, 1, checkpoint=checkpoint, until=step)
        checkpoint = tmp_path / f"{step:08d}"
        write_checkpoint(checkpoint, state, config_hash="c")


def test_two_ranks_end_with_the_adapter_of_one_to_rounding_and_always_with_the_same(small, alone):
    """In its first steps Adam makes much of a gradient that is all but zero, since it divides by its size. How far
    rounding moves the weights, other cuts of the steps in one process say."""
    if small.device.type == "cuda":
        pytest.skip("a GPU cuts no step, whatever it is told")
    weights, expected = alone
    state, records = train(small, 2)
    flat = state.current_adapter().flat.detach().clone()
    assert (state.size.rows, state.size.ranks) == (3, 2)
    assert [(one.step, one.tokens) for one in records] == [(one.step, one.tokens) for one in expected]
    cuts = [CONFIG.model_copy(update={"batch_size": n, "accumulation": 6 // n}) for n in (1, 6)]
    rounding = max(apart(train(small, 1, config=cut)[0].current_adapter().flat, weights) for cut in cuts)
    assert 0 < apart(flat, weights) < 5 * rounding
    reset_adapter(attach_lora(small, CONFIG), CONFIG.seed)
    assert rounding < 0.05 * apart(small.adapter.flat, weights)
    assert torch.equal(train(small, 2)[0].current_adapter().flat, flat)


def test_a_run_goes_on_with_another_number_of_ranks(small, alone, tmp_path):
    _, expected = alone
    state, records = train(small, 2, until=2)
    write_checkpoint(tmp_path / "00000002", state, config_hash="c")
    more = train(small, 1, checkpoint=tmp_path / "00000002")[1]
    assert [(one.step, one.tokens) for one in [*records, *more]] == [
        (one.step, one.tokens) for one in expected
    ]


def test_ranks_meet_where_only_this_host_can_reach_them(small):
    train(small, 2, until=1)
    for process in (peer(), psutil.Process()):
        found = [one.laddr.ip for one in process.net_connections("inet") if one.status == "LISTEN"]
        assert set(found) == {"127.0.0.1"}
    assert "MASTER_PORT" not in os.environ


def test_what_a_rank_refuses_is_said_as_if_there_was_one(small):
    (*_, row) = step_rows(1, N, CONFIG)
    long = prompts()
    long[row] = "123456789" * 5 + ":"
    limited = CONFIG.model_copy(update={"max_tokens": 20})
    with pytest.raises(
        PermanentError, match=rf"^rank 1 of 2 .*: Training prompt {row} has 46 tokens, allowed"
    ):
        train(small, 2, config=limited, read=long)


def test_the_smallest_gpu_decides_how_a_step_is_cut():
    class Said:
        """A rank that could do these passes."""

        def __init__(self, **size):
            self.size = size

        def answer(self, seconds):
            return self.size

    team = ranks.Ranks(1, torch.device("cpu"))
    team.count, team._peers = 3, [Said(rows=64), Said(rows=16, checkpointing=True)]
    assert team.agree(PassSize(rows=32)) == PassSize(rows=16, checkpointing=True, ranks=3)


def test_a_rank_that_dies_while_the_ranks_meet_is_not_waited_for(monkeypatch):
    class Gone:
        """A rank that came so far, and then died."""

        alive = False

        def __init__(self, *place, **arguments):
            pass

        def answer(self, seconds):
            return {}

        def failure(self):
            return TransientError("rank 1 died")

        def kill(self):
            pass

    released, meetings = threading.Event(), []

    def join(*place, meeting, **arguments):
        meetings.append(meeting)
        released.wait()

    monkeypatch.setattr(ranks, "Peer", Gone)
    monkeypatch.setattr(ranks, "join_group", join)
    monkeypatch.setattr(ranks, "_stuck", False)  # which is put back at the end
    for _ in range(2):
        with pytest.raises(TransientError, match="rank 1 died"):
            ranks.Ranks(2, torch.device("cpu"))
    released.set()
    assert len(set(meetings)) == 2  # who is late for one comes to no other


MEETING = """
import torch
from lhcq.errors import TransientError
from lhcq.model import rank_process, ranks

said = rank_process.Peer.answer

def die(self, seconds):
    answer = said(self, seconds)
    self.process.kill()  # it came so far
    self.process.wait()
    return answer

rank_process.Peer.answer = die
try:
    ranks.resident_ranks(2, torch.device("cpu"))
except TransientError as error:
    print(error, flush=True)
ranks.resident_ranks(2, torch.device("cpu"))
"""


@pytest.mark.torture
def test_a_process_whose_rank_died_while_they_met_ends_at_the_next_training_so_that_another_takes_it():
    done = subprocess.run(
        [sys.executable, "-c", MEETING], check=False, capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "rank 1 of 2 of a training was killed by SIGKILL; the worker's log may say more.\n"
    assert done.returncode == 1
    assert "cannot meet ranks any more" in done.stderr


def test_a_rank_that_reads_nothing_is_not_waited_for_without_end():
    one = rank_process.Peer(1, 2, threads=1, cpu=True, meeting="/nowhere")
    try:
        psutil.Process(one.process.pid).suspend()
        with pytest.raises(TransientError, match="rank 1 of 2 of a training has read nothing for 1 s"):
            one.send(b"x" * (1 << 20), 1)
    finally:
        one.kill()


def wait_for_end(pid):
    deadline = time.monotonic() + ENDS_SECONDS
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


def killed(program):
    """What a program printed before it was killed, once all that it started has ended."""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with process:
        line = process.stdout.readline()
        pid = int(line)
        assert psutil.pid_exists(pid)
        process.kill()
    wait_for_end(pid)


@pytest.mark.parametrize("half", ["", "half a comm"])
def test_a_rank_ends_when_the_process_that_started_it_is_killed(half):
    killed(
        "import os, time\nfrom lhcq.model.rank_process import Peer\n"
        "peer = Peer(1, 2, threads=1, cpu=True, meeting='/nowhere')\n"
        f"os.write(peer.process.stdin.fileno(), {half.encode()!r})\n"
        "print(peer.process.pid, flush=True)\ntime.sleep(600)"
    )


STUCK = """
import time
from pathlib import Path
import torch
from lhcq.model import loop
from lhcq.model.base import load_base
from tests.unit.test_model_ranks import peer, train

def hang(*arguments):
    time.sleep(5)
    print(peer().pid, flush=True)  # it has given its gradient, which nobody takes
    time.sleep(600)

torch.set_num_threads(1)
loop.accumulate = hang
train(load_base(Path({model!r})), 2)
"""


@pytest.mark.torture
def test_a_rank_ends_when_rank_0_is_killed_in_the_middle_of_a_step(few_layers):
    killed(STUCK.format(model=str(few_layers)))

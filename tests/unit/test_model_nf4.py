"""Weights are packed into NF4 on a CPU by a loop of lhcq's, with bitsandbytes' own codes to the bit."""

import subprocess
import sys

import pytest
import torch

from lhcq.model.kernels import nf4
from lhcq.model.library_output import import_bitsandbytes
from tests.tiny_models import write_model

# In a process of its own: what is registered with torch stays for the process's life.
FRESH = """
import sys
import torch
from lhcq.model.library_output import import_bitsandbytes

compiler = torch.compile
import_bitsandbytes()
assert torch.compile is compiler
assert "torch._inductor.compile_fx" not in sys.modules, "bitsandbytes had torch's compiler imported"

from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from lhcq.model.kernels import nf4

kernel = torch.ops.bitsandbytes.quantize_4bit.default
torch.manual_seed(1)
weights = [torch.randn(96, 128) * size for size in (1e-3, 1.0, 30.0)]
weights += [weights[0].bfloat16(), weights[1].t(), weights[1].half(), torch.zeros(2, 64)]
left_alone = [torch.randn(3, 33), torch.randn(5, 13)]

def packed():
    whole = [quantize_4bit(weight, quant_type="nf4", compress_statistics=True) for weight in weights]
    found = [codes for codes, _ in whole] + [dequantize_4bit(codes, state) for codes, state in whole]
    for size in (64, 128, 256):
        for weight in weights:
            if not weight.numel() % size:
                found += kernel(weight, size, "nf4", torch.uint8)
    for weight in left_alone:
        found += kernel(weight, 64, "nf4", torch.uint8)
    found += kernel(weights[0], 64, "fp4", torch.uint8)
    return [*found, *kernel(weights[0], 64, "nf4", torch.bfloat16)]

theirs = packed()
calls = []
pack = nf4.pack
nf4.pack = lambda weight, size: calls.append(size) or pack(weight, size)
assert nf4.pack_quickly()
del calls[:]
ours = packed()
assert set(calls) == {64, 128, 256}, calls
assert len(calls) == 7 + 21 - sum(weight.numel() % 256 > 0 for weight in weights), calls
for one, other in zip(ours, theirs, strict=True):
    assert one.dtype == other.dtype and one.shape == other.shape
    assert torch.equal(one.view(torch.uint8), other.view(torch.uint8))
"""


@pytest.fixture(autouse=True)
def bitsandbytes_alone() -> None:
    """An earlier test of this process may have had the loop registered: then it would be held to itself."""
    import_bitsandbytes()
    if nf4._library.cache_info().currsize:
        nf4._library()._destroy()
    nf4._library.cache_clear()
    nf4.pack_quickly.cache_clear()
    assert not torch._C._dispatch_has_kernel_for_dispatch_key(nf4._OPERATION, "CPU")


def test_all_that_packs_in_a_process_gets_the_same_bits_by_the_loop() -> None:
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_weights_of_every_kind_have_the_codes_of_bitsandbytes() -> None:
    probe = nf4._probe()
    largest = probe.abs().amax(1)
    assert largest.isnan().sum() == 1
    assert largest.isinf().sum() == 2
    assert (largest == 0).sum() >= 2
    assert ((largest > 0) & (largest < 1e-38)).any()
    scaled = (probe / largest[:, None]).flatten()
    assert all((scaled == bound).any() for bound in torch.from_numpy(nf4._bounds()))
    theirs = torch.ops.bitsandbytes.quantize_4bit.default(probe, 64, "nf4", torch.uint8)
    assert nf4._same(nf4.pack(probe, 64), theirs)


@pytest.mark.parametrize("at", range(15))
def test_a_loop_that_gives_another_code_is_not_taken(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = nf4._bounds().copy()
    wrong[at] = torch.nextafter(torch.tensor(wrong[at]), torch.tensor(2.0))
    monkeypatch.setattr(nf4, "_library", lambda: pytest.fail("it was registered"))
    nf4._bounds()
    probe = nf4._probe()
    monkeypatch.setattr(nf4, "_probe", lambda: probe)
    monkeypatch.setattr(nf4, "_bounds", lambda: wrong)
    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda *_: False)
    assert not nf4.pack_quickly.__wrapped__()


def test_a_small_model_is_loaded_without_numba(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(nf4, "pack_quickly", lambda: asked.append(True))
    directory = write_model(tmp_path / "model")
    nf4.pack_quickly_if_large(directory)
    assert not asked
    with (directory / "model.safetensors").open("ab") as file:
        file.truncate(nf4._WORTH_BYTES)
    nf4.pack_quickly_if_large(directory)
    assert asked

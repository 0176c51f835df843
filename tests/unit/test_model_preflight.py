import pytest

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model.preflight import GIB, Device, Needs, check_memory, device_here, estimate_needs

NEEDS = Needs(model=4 * GIB, adapter=GIB // 2, prompt=GIB // 4)
CARD = Device("RTX 3070", 7 * GIB, bfloat16=True)


def test_the_line_says_what_is_needed_and_what_is_there():
    line = check_memory(NEEDS, CARD, TrainConfig(), longest=190)
    assert "about 4.8 GiB" in line
    assert "a prompt of 190 tokens 0.25" in line
    assert "there are 7.0 GiB free on the RTX 3070" in line


def test_too_little_memory_is_refused_with_the_remedy():
    with pytest.raises(BadInput, match=r"there are 4\.0 GiB by --max-memory\. .* a lower --rank"):
        check_memory(NEEDS, CARD, TrainConfig(max_memory=4 * GIB), longest=190)
    with pytest.raises(BadInput, match=r"2\.0 GiB free on the CPU"):
        check_memory(NEEDS, Device("CPU", 2 * GIB, bfloat16=False), TrainConfig(), longest=190)


def test_a_limit_above_what_is_there_gives_no_more():
    with pytest.raises(BadInput, match="free on the RTX 3070"):
        check_memory(NEEDS._replace(model=9 * GIB), CARD, TrainConfig(max_memory=20 * GIB), longest=190)


def test_a_gpu_without_bfloat16_is_said_to_be_slow():
    old = CARD._replace(bfloat16=False)
    assert "computes in float32" in check_memory(NEEDS, old, TrainConfig(), longest=20)
    assert "computes in float32" not in check_memory(NEEDS, CARD, TrainConfig(), longest=20)


def test_the_estimate_counts_the_adapter_that_is_attached(base, model_dir):
    from lhcq.model.adapter import attach_lora

    for config in (TrainConfig(), TrainConfig(rank=4, target="query-value")):
        needs = estimate_needs(model_dir, config, longest=24, bfloat16=False)
        assert needs.adapter == 12 * attach_lora(base, config).flat.numel()


def test_longer_prompts_and_larger_ranks_need_more(smollm2):
    short, long = (estimate_needs(smollm2, TrainConfig(), longest=n, bfloat16=True).prompt for n in (20, 200))
    assert long == 10 * short
    small, large = (
        estimate_needs(smollm2, TrainConfig(rank=r), longest=20, bfloat16=True).adapter for r in (8, 32)
    )
    assert large == 4 * small


def test_this_machine_has_some_memory():
    assert device_here().free > 0


CARDS = """\
0, GPU-aaaa1111, H100 of old, 10000, 70000, 81559, 9.0
1, GPU-bbbb2222, RTX 2070, 1000, 7000, 8192, 7.5
2, GPU-cccc3333, RTX 3070, 2000, 6000, 8192, 8.6
3, GPU-dddd4444, Tesla, [N/A], [N/A], [N/A], 7.5
"""


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """A host with the GPUs of `CARDS`."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{CARDS}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize(
    ("visible", "device"),
    [
        (None, Device("RTX 3070, the fullest of 3", 6000 << 20, bfloat16=True)),
        ("0,1", Device("RTX 2070, the fullest of 2", 7000 << 20, bfloat16=False)),
        ("GPU-aaaa", Device("H100 of old", 70000 << 20, bfloat16=True)),
        ("0,-1,2", Device("H100 of old", 70000 << 20, bfloat16=True)),
        ("0,9,2", Device("H100 of old", 70000 << 20, bfloat16=True)),
        ("MIG-dddd", Device("RTX 3070, the fullest of 3", 6000 << 20, bfloat16=True)),
    ],
)
def test_of_several_gpus_the_one_with_the_least_memory_counts(visible, device, monkeypatch):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_here() == device


@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize("visible", ["", "-1", " ", "9"])
def test_without_a_visible_gpu_it_is_the_cpu(visible, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_here().name == "CPU"

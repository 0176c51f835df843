"""Models of many kinds: each is refused in one line, or trained and scored as its own logits say.

The reference is transformers and PEFT alone, on the same NF4 weights, a prompt at a time and without padding.
"""

import numpy as np
import pytest
import torch

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model.adapter import attach_lora
from lhcq.model.base import load_base
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.loop import train_segment
from lhcq.model.preflight import estimate_needs
from lhcq.model.score import score_attached
from lhcq.storage import read_json
from tests.peft_alone import load_by_peft
from tests.tiny_models import ARCHITECTURES, write_model

PROMPTS = ["12 3 4:", "7:", "357 120 447 53 10:", "1 2 1 2 1 2 1 2 99 12 3 4 5 6:", "0 0:", "48 2:"]
LABELS = np.array([0, 1, 1, 0, 1, 0])
REFUSED = {
    "bert": "changes by .* with the padding behind it",
    "falcon": "no linear layers that bitsandbytes can hold in NF4",
    "mamba": "cannot compute with its linear layers in NF4",
    "rwkv": "cannot compute with PEFT's adapter",
    "mamba2": r"PEFT cannot adapt this model \(.*out_proj",
}
OWN_LOGITS = {
    *("gemma2", "vaultgemma", "nanochat", "recurrent_gemma", "xlstm"),  # soft caps
    *("cohere", "cohere2", "granite", "granitemoe", "granitemoehybrid", "falcon_h1"),  # multipliers
}
MORE = {
    *(
        "mistral",
        "qwen2",
        "smollm3",
        "nanochat",
        "nemotron",
        "stablelm",
        "olmo",
        "cohere2",
        "starcoder2",
        "vaultgemma",
    ),
    *(
        "gptj",
        "gpt_bigcode",
        "mpt",
        "bloom",
        "olmoe",
        "phimoe",
        "granitemoehybrid",
        "zamba2",
        "deepseek_v2",
        "lfm2",
    ),
}
"""Cousins of others here."""
ATTENTION_ALONE = {"falcon_h1"}
"""PEFT adapts no recurrent layer of it."""


def spoken_by(model, base):
    """Logits of both labels after each prompt, `(n, 2)`, by the model alone."""
    with torch.inference_mode():
        logits = [
            model(torch.tensor([ids], device=base.device), use_cache=False).logits[
                0, -1, list(base.label_ids)
            ]
            for ids in base.encode(PROMPTS)
        ]
    return torch.stack(logits).double().cpu()


@pytest.fixture(autouse=True)
def one_thread():
    """So small a model gains nothing from a second."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


EACH = pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=pytest.mark.torture if name in MORE else ()) for name in ARCHITECTURES],
)


@pytest.mark.filterwarnings("ignore")  # of models in training: not lhcq's to mend
@pytest.mark.usefixtures("in_float32")
@EACH
def test_a_model_is_refused_in_one_line_or_trained_and_scored_as_its_own_logits_say(architecture, tmp_path):
    directory = write_model(tmp_path / "model", architecture)
    target = "query-value" if architecture in ATTENTION_ALONE else "all-linear"
    config = TrainConfig(
        learning_rate=1e-2, dropout=0.0, epochs=2, batch_size=6, rank=4, class_weighted=False, target=target
    )
    losses = []

    def train():
        base = load_base(directory)
        state = train_segment(
            base,
            prompts=PROMPTS,
            labels=LABELS,
            config=config,
            checkpoint=None,
            until_step=2,
            on_step=lambda record: losses.append(record.loss) or True,
        )
        write_checkpoint(tmp_path / "2", state, config_hash="c")
        return base

    if architecture in REFUSED:
        with pytest.raises(BadInput, match=REFUSED[architecture]) as caught:
            train()
        assert "\n" not in str(caught.value)
        return
    base = train()
    assert base.own_logits == (architecture in OWN_LOGITS)
    assert read_json(tmp_path / "2" / "manifest.json")["logits"] == ("own" if base.own_logits else "rows")

    alone = load_by_peft(directory, tmp_path / "2", base)
    trained = spoken_by(alone, base)
    expected = torch.softmax(trained, dim=1)[:, 1].numpy()
    for batch_size in (1, 6):
        scores = score_attached(base, PROMPTS, 512, batch_size=batch_size)
        assert np.abs(scores.p_signal - expected).max() < 1e-4
    with alone.disable_adapter():
        before = spoken_by(alone, base)
    assert float((trained - before).abs().max()) > 1e-3
    loss = torch.nn.functional.cross_entropy(before, torch.as_tensor(LABELS))
    assert losses[0] == pytest.approx(float(loss), abs=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CPU computes in float32")
@pytest.mark.filterwarnings("ignore")
@EACH
def test_bfloat16s_rounding_refuses_no_model_that_float32_takes(architecture, tmp_path):
    directory = write_model(tmp_path / "model", architecture)
    target = "query-value" if architecture in ATTENTION_ALONE else "all-linear"

    def attach():
        base = load_base(directory)
        assert base.compute_dtype == torch.bfloat16
        attach_lora(base, TrainConfig(learning_rate=1e-2, dropout=0.0, rank=4, target=target))
        return base

    if architecture in REFUSED:
        with pytest.raises(BadInput, match=REFUSED[architecture]):
            attach()
    else:
        assert attach().own_logits == (architecture in OWN_LOGITS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CPU computes in float32")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("architecture", "layers"), [("llama", 80), ("mixtral", 12)])
def test_bfloat16s_rounding_adds_up_over_layers_and_refuses_no_model(architecture, layers, seed, tmp_path):
    shape = {"num_hidden_layers": layers}
    directory = write_model(tmp_path / "model", architecture, seed=seed, shape=shape)
    attach_lora(load_base(directory), TrainConfig(learning_rate=1e-2, rank=4))


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize(
    "architecture", ["llama tied", "mixtral", "gpt2", "zamba2", "granitemoehybrid", "opt"]
)
def test_the_estimate_of_memory_is_what_a_loaded_model_takes(architecture, tmp_path):
    directory = write_model(tmp_path / "model", architecture)
    model = load_base(directory).model
    taken = sum(parameter.nbytes for parameter in model.parameters())
    for layer in model.modules():
        if hasattr(layer, "lhcq_unpacked"):
            taken += layer.lhcq_unpacked.nbytes + layer.weight.quant_state.absmax.nbytes
    needs = estimate_needs(directory, TrainConfig(), longest=20, bfloat16=False)
    assert needs.model == pytest.approx(taken, rel=0.01)

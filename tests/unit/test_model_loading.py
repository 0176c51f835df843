"""What a model's files lack or hold too much is told at load, since transformers makes up what is missing."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model import agreement
from lhcq.model import base as base_module
from lhcq.model.adapter import attach_lora
from lhcq.model.base import load_base
from lhcq.model.library_output import quiet_transformers
from lhcq.model.preflight import check_packages
from lhcq.model.sources import check_model_directory
from tests.tiny_models import build_model, write_model, write_tokenizer


@pytest.fixture
def llama(tmp_path):
    """An untied model, whole."""
    return write_model(tmp_path / "llama")


def rewrite(directory, change):
    """Save the weights as `change` gives them."""
    weights = load_file(directory / "model.safetensors")
    save_file(change(weights), directory / "model.safetensors", metadata={"format": "pt"})


def set_config(directory, **fields):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **fields}))


def refusal(directory):
    with pytest.raises(BadInput) as caught:
        load_base(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def logits_of(directory):
    return load_base(directory).expected


def save_backbone(architecture, directory):
    with quiet_transformers():
        build_model(architecture).base_model.save_pretrained(directory)
    write_tokenizer(directory)


def test_a_backbone_without_its_output_layer_is_refused(tmp_path):
    save_backbone("llama", tmp_path / "backbone")
    said = refusal(tmp_path / "backbone")
    assert "lack lm_head.weight, which would be random. Save the whole model" in said


@pytest.mark.parametrize("architecture", ["llama tied", "gpt2", "bloom"])
def test_a_backbone_whose_output_layer_is_its_table_is_the_whole_model(architecture, tmp_path):
    save_backbone(architecture, tmp_path / "backbone")
    whole = write_model(tmp_path / "whole", architecture)
    assert torch.equal(logits_of(tmp_path / "backbone"), logits_of(whole))


def test_the_names_of_a_compiled_model_are_refused(llama):
    rewrite(llama, lambda weights: {f"_orig_mod.{name}": tensor for name, tensor in weights.items()})
    assert "as torch.compile names them" in refusal(llama)


def test_a_layer_that_is_missing_is_named_with_the_number_of_others(llama):
    rewrite(llama, lambda weights: {name: one for name, one in weights.items() if ".layers.1." not in name})
    assert "lack model.layers.1.input_layernorm.weight and 8 other weights" in refusal(llama)


def test_weights_of_another_shape_are_refused(llama):
    set_config(llama, intermediate_size=48)
    assert "gate_proj.weight is (96, 64) in its files and (48, 64) by its config.json" in refusal(llama)
    set_config(llama, intermediate_size=96, vocab_size=100)
    said = refusal(llama)  # of the two, transformers' releases name one or the other
    assert re.search(
        r"(lm_head|embed_tokens).weight is \(80, 64\) in its files and \(100, 64\) by its config.json", said
    )


def test_weights_that_have_no_place_are_refused(llama):
    rewrite(llama, lambda weights: {**weights, "model.layers.0.mlp.extra.weight": torch.ones(2)})
    assert (
        "hold model.layers.0.mlp.extra.weight, which a model of this config.json has no place for"
        in refusal(llama)
    )


def test_what_transformers_knows_to_be_left_out_is_no_fault(llama):
    before = logits_of(llama)
    rewrite(llama, lambda weights: {**weights, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    assert torch.equal(logits_of(llama), before)


def test_a_model_in_shards_is_the_same(llama, tmp_path):
    with quiet_transformers():
        build_model("llama").save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    write_tokenizer(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    assert torch.equal(logits_of(tmp_path / "shards"), logits_of(llama))


def test_an_adapter_beside_the_model_is_refused_with_the_way_to_merge_it(llama):
    (llama / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    for refuse in (check_model_directory, load_base):
        with pytest.raises(BadInput, match=r"adapter_config.json.*merge_and_unload\(\)"):
            refuse(llama)


def test_attention_by_a_package_that_is_not_there_is_wrong_input(llama):
    set_config(llama, attn_implementation="flash_attention_2")
    assert "transformers cannot load this model (FlashAttention2" in refusal(llama)
    with pytest.raises(
        BadInput, match=r"asks for flash_attention_2, and flash_attn is not installed. Install it"
    ):
        check_packages(llama)
    set_config(llama, attn_implementation="sdpa")
    check_packages(llama)


def test_an_unknown_architecture_is_wrong_input(llama):
    set_config(llama, model_type="tomorrow")
    assert "cannot load this model" in refusal(llama)


def test_a_model_that_peft_refuses_is_wrong_input_and_is_loaded_anew(tmp_path):
    base = load_base(write_model(tmp_path / "mamba2", "mamba2"))
    with pytest.raises(BadInput, match="PEFT cannot adapt this model") as caught:
        attach_lora(base, TrainConfig(learning_rate=1e-3))
    assert "\n" not in str(caught.value)
    assert base.spoilt


def test_no_layer_computes_before_it_is_told_to_leave_its_weights_as_they_are(llama, monkeypatch):
    """One pass on a CPU with AVX512-BF16 would repack them."""
    from bitsandbytes import nn

    def seen(model, probes, directory):
        layers = [one for one in model.modules() if isinstance(one, nn.Linear4bit)]
        assert layers
        assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
        return agreement.own_logits(model, probes, directory)

    monkeypatch.setattr(nn.modules, "has_avx512bf16", lambda: True)
    monkeypatch.setattr(base_module, "own_logits", seen)
    load_base(llama)


@pytest.fixture
def in_bfloat16(monkeypatch):
    """What is loaded computes in bfloat16, and agrees with itself nowhere."""
    monkeypatch.setattr(base_module, "compute_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(agreement, "_rounding", lambda base: 1e-9)


@pytest.mark.usefixtures("in_bfloat16")
def test_where_bfloat16_disagrees_float32_decides_and_leaves_nothing_behind(llama):
    base = load_base(llama)
    assert base.compute_dtype == torch.bfloat16
    assert not base.own_logits
    for tensor in (*base.model.parameters(), *(layer.lhcq_unpacked for layer in linears(base.model))):
        assert tensor.dtype in (torch.bfloat16, torch.uint8)
    assert all(layer.compute_dtype == torch.bfloat16 for layer in linears(base.model))


@pytest.mark.usefixtures("in_bfloat16")
def test_float32_refuses_a_model_whose_answer_depends_on_padding(tmp_path):
    with pytest.raises(BadInput, match=r"changes by .* with the padding behind it"):
        load_base(write_model(tmp_path / "bert", "bert"))


def linears(model):
    return [layer for layer in model.modules() if hasattr(layer, "lhcq_unpacked")]


def test_weights_under_another_name_are_not_taken_for_the_models(llama):
    shutil.move(llama / "model.safetensors", llama / "weights.safetensors")
    with pytest.raises(BadInput, match="no weights"):
        check_model_directory(llama)
    set_config(llama, transformers_weights="weights.safetensors")
    with pytest.raises(BadInput, match="names its weights by itself"):
        check_model_directory(llama)

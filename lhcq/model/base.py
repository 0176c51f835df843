"""The 4-bit base model as it stays in memory, on a GPU or on the CPU."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import torch

from lhcq.errors import BadInput
from lhcq.model.agreement import choose_logits, own_logits
from lhcq.model.identity import identify
from lhcq.model.kernels.gates import fuse_gates
from lhcq.model.kernels.linear import unpack_once
from lhcq.model.kernels.norms import fuse_norms
from lhcq.model.kernels.rotary import fuse_rotary
from lhcq.model.labels import label_ids
from lhcq.model.loading import load_quantized
from lhcq.model.sources import check_model_directory
from lhcq.model.tokens import Decoder, Encoder, decode_answers, encode_prompts, end_tokens
from lhcq.records.specs import ModelIdentity

_PROBES = ("1 2 3:", "417 5 60 42 88 99 7 13 5 20 48 3 0 11 35 7:")
"""Prompts that a model is tried on when it is loaded, of unlike lengths."""


@dataclasses.dataclass(kw_only=True)
class Base:
    """A loaded model with what goes with it. One adapter at a time is attached to it (`lhcq.model.adapter`)."""

    directory: Path
    identity: ModelIdentity
    """What of it was loaded."""
    model: Any
    """The transformers causal language model; its linear layers are NF4."""
    encode: Encoder
    decode: Decoder
    probes: list[list[int]]
    """Token ids of prompts that the model is tried on."""
    expected: torch.Tensor
    """Logits `(n, vocabulary)` after each of them, as the model says them without an adapter."""
    label_tokens: tuple[tuple[int, ...], tuple[int, ...]]
    """Token ids of " background" and " signal"."""
    end_ids: tuple[int, ...]
    """Token ids that end an answer, the usual one first; none of a model that knows no end."""
    pad_id: int
    device: torch.device
    compute_dtype: torch.dtype
    linear_names: tuple[str, ...]
    """The quantized layers as PEFT is told of them: by the last parts of their names, such as `q_proj`, or by whole
    names where a last part is also that of something else."""
    own_logits: bool = False
    """Whether logits come from the whole model, since they are something else than rows of the output layer times its
    input: capped, scaled, or of a head of its own. Right for all, slower."""
    records: bool = False
    """Whether training passes are recorded as CUDA graphs: a small model on a GPU, unless one could not be."""
    peft: Any = None
    """The PEFT model around `model`, once an adapter is attached."""
    adapter: Any = None
    agreed: dict[str, bool] = dataclasses.field(default_factory=dict)
    """By what is computed in, whether `lhcq.model.decoder` gave what transformers gives."""
    remembers: bool | None = None
    """Whether a prompt can be gone on from (`lhcq.model.answers`); None before that was tried."""
    passes: dict[Any, Any] = dataclasses.field(default_factory=dict)
    """Sizes of passes that were found to fit (`lhcq.model.passes`)."""
    spoilt: bool = False
    """Whether PEFT gave up in the middle of changing the model, which then has to be loaded anew."""
    uses: int = 0
    """Counts the times that an adapter was attached: what was attached before is gone."""

    @property
    def label_ids(self) -> tuple[int, int]:
        """The first token of each label."""
        background, signal = self.label_tokens
        return background[0], signal[0]

    @functools.cached_property
    def label_index(self) -> torch.Tensor:
        """The same on the device, `(2,)`: a pass that is recorded may copy nothing there."""
        with torch.inference_mode(False):
            return torch.tensor(self.label_ids, device=self.device)

    @property
    def splits_labels(self) -> bool:
        """Whether a label is several tokens, so that its whole log-likelihood has to be taken."""
        return any(len(tokens) > 1 for tokens in self.label_tokens)

    @functools.cached_property
    def label_table(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens of both labels, `(2, longest)`, and 1 where there is one, 0 where it is padding."""
        longest = max(map(len, self.label_tokens))
        ids = [[*tokens, *[self.pad_id] * (longest - len(tokens))] for tokens in self.label_tokens]
        there = [[1.0] * len(tokens) + [0.0] * (longest - len(tokens)) for tokens in self.label_tokens]
        with torch.inference_mode(False):
            return torch.tensor(ids, device=self.device), torch.tensor(there, device=self.device)

    @property
    def backbone(self) -> Any:
        """The decoder without the output layer."""
        return self.model.base_model

    @functools.cached_property
    def label_rows(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The output layer's rows of the two labels, `(2, hidden)` float32, and their biases."""
        rows = list(self.label_ids)
        bias = getattr(self.head, "bias", None)
        # Kept for training too, which refuses a tensor made in inference mode; a validation may come first.
        with torch.inference_mode(False):
            return (
                self.head.weight[rows].detach().float(),
                None if bias is None else bias[rows].detach().float(),
            )

    @property
    def head(self) -> Any:
        """The output layer, `(vocabulary, hidden)`; not quantized."""
        return self.model.get_output_embeddings()


def load_base(directory: Path, *, cache: Path | None = None) -> Base:
    """Load the safetensors model in `directory` straight to NF4 with double quantization.

    `cache` is where digests of weights are remembered. Raises `BadInput` when it is no usable model, its labels
    cannot be told apart, or what it says of a prompt depends on what else stands in the batch.
    """
    check_model_directory(directory)
    encode = encode_prompts(directory)
    labels = label_ids(encode, _PROBES[0])
    identity = identify(directory, cache)
    # By its number: a thread of a library begins with the first GPU, whichever is this process's.
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    dtype = compute_dtype(device)
    if device.type == "cuda":
        _let_memory_grow()
    model = load_quantized(directory, device, dtype)
    if identify(directory, cache) != identity:
        raise BadInput(f"{directory}: was changed while it was loaded. Try again when it stays as it is.")
    layers = _quantized_layers(model)
    probes = encode(list(_PROBES))
    expected = own_logits(model, probes, directory)
    unpacked = unpack_once(list(layers.values()), dtype)
    fuse_rotary(model)
    if device.type == "cuda":
        fuse_norms(model)
        fuse_gates(model)
    base = Base(
        directory=directory,
        identity=identity,
        model=model,
        encode=encode,
        decode=decode_answers(directory),
        probes=probes,
        expected=expected,
        label_tokens=labels,
        end_ids=end_tokens(directory),
        pad_id=_pad_id(model.config),
        device=device,
        compute_dtype=dtype,
        records=unpacked and device.type == "cuda",
        linear_names=_names_for_peft(model, layers),
    )
    choose_logits(base)
    return base


def compute_dtype(device: torch.device) -> torch.dtype:
    """What to compute in: bfloat16 on a GPU that has it, else float32.

    CPUs too, those with bfloat16 instructions: they train no faster by them (scoring gains a third), and would say
    something else to two digits than all other CPUs.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    # Not float16 for a GPU without: it would need its loss scaled, and the scale is one more thing that a checkpoint
    # had to hold.
    return torch.float32


def _let_memory_grow() -> None:
    """Have torch's allocator lengthen the pieces of memory it holds, unless the environment says how it works.

    Pieces of fixed sizes leave gaps between them: a tenth of 8 GiB, which a pass that fits was refused for.
    """
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
        # Under this name since torch 2.10.
        choose = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
        (choose or torch.cuda.memory._set_allocator_settings)("expandable_segments:True")


def _quantized_layers(model: Any) -> dict[str, Any]:
    """The 4-bit layers by name, made ready for training on any CPU."""
    from bitsandbytes.nn import Linear4bit

    layers = {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    for layer in layers.values():
        # With it, one evaluation on a CPU with AVX512-BF16 repacks the weights in place, and every gradient
        # afterwards is silently wrong.
        layer.support_avx512bf16_for_cpu = False
    return layers


def _names_for_peft(model: Any, layers: dict[str, Any]) -> tuple[str, ...]:
    short = {name.rsplit(".", 1)[-1] for name in layers}
    others = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules() if name not in layers}
    return tuple(sorted(layers if short & others else short))


def _pad_id(config: Any) -> int:
    # Padding is to the right and a causal model never looks there: any token will do.
    pad = getattr(config, "pad_token_id", None)
    return int(pad) if pad is not None else 0

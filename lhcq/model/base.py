"""The 4-bit base model as it stays in memory, on a GPU or on the CPU."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch

from lhcq.errors import BadInput
from lhcq.model.gates import fuse_gates
from lhcq.model.labels import label_ids
from lhcq.model.linear import unpack_once
from lhcq.model.norms import fuse_norms
from lhcq.model.quiet import quiet_transformers
from lhcq.model.rotary import fuse_rotary
from lhcq.model.sources import check_model_directory
from lhcq.model.tokens import Encoder, encode_prompts

_PROBE = "1 2 3:"


@dataclasses.dataclass(kw_only=True)
class Base:
    """A loaded model with what goes with it. One adapter at a time is attached to it (`lhcq.model.adapter`)."""

    directory: Path
    model: Any
    """The transformers causal language model; its linear layers are NF4."""
    encode: Encoder
    label_tokens: tuple[tuple[int, ...], tuple[int, ...]]
    """Token ids of " background" and " signal"."""
    pad_id: int
    device: torch.device
    compute_dtype: torch.dtype
    linear_names: tuple[str, ...]
    """Last parts of the names of the quantized layers, such as `q_proj`."""
    records: bool = False
    """Whether training passes are recorded as CUDA graphs: a small model on a GPU, unless one could not be."""
    peft: Any = None
    """The PEFT model around `model`, once an adapter is attached."""
    adapter: Any = None
    agreed: dict[str, bool] = dataclasses.field(default_factory=dict)
    """By what is computed in, whether `lhcq.model.decoder` gave what transformers gives."""
    passes: dict[Any, Any] = dataclasses.field(default_factory=dict)
    """Sizes of passes that were found to fit (`lhcq.model.passes`)."""
    uses: int = 0
    """Counts the times that an adapter was attached: what was attached before is gone."""

    @property
    def label_ids(self) -> tuple[int, int]:
        """The first token of each label."""
        background, signal = self.label_tokens
        return background[0], signal[0]

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


def load_base(directory: Path) -> Base:
    """Load the safetensors model in `directory` straight to NF4 with double quantization.

    Raises `BadInput` when it is no usable model, its labels cannot be told apart, or it scales its logits.
    """
    check_model_directory(directory)
    encode = encode_prompts(directory)
    labels = label_ids(encode, _PROBE)
    # By its number: a thread of a library begins with the first GPU, whichever is this process's.
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    dtype = compute_dtype(device)
    model = _load_quantized(directory, device, dtype)
    _refuse_scaled_logits(model.config, directory)
    layers = _quantized_layers(model)
    unpacked = unpack_once(list(layers.values()), dtype)
    fuse_rotary(model)
    if device.type == "cuda":
        fuse_norms(model)
        fuse_gates(model)
    return Base(
        directory=directory,
        model=model,
        encode=encode,
        label_tokens=labels,
        pad_id=_pad_id(model.config),
        device=device,
        compute_dtype=dtype,
        records=unpacked and device.type == "cuda",
        linear_names=tuple(sorted({name.rsplit(".", 1)[-1] for name in layers})),
    )


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


def _load_quantized(directory: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    with quiet_transformers():
        try:
            model = AutoModelForCausalLM.from_pretrained(
                directory,
                quantization_config=quantization,
                dtype=dtype,
                device_map={"": device},
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise BadInput(f"{directory}: transformers cannot load this model ({reason}).") from error
    model.requires_grad_(False)
    return model


def _quantized_layers(model: Any) -> dict[str, Any]:
    """The 4-bit layers by name, made ready for training on any CPU."""
    from bitsandbytes.nn import Linear4bit

    layers = {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    for layer in layers.values():
        # With it, one evaluation on a CPU with AVX512-BF16 repacks the weights in place, and every gradient
        # afterwards is silently wrong.
        layer.support_avx512bf16_for_cpu = False
    return layers


def _refuse_scaled_logits(config: Any, directory: Path) -> None:
    """The loss and the score use two rows of the output layer as they are."""
    for field, neutral in (("final_logit_softcapping", None), ("logit_scale", 1.0), ("logits_scaling", 1.0)):
        value = getattr(config, field, None)
        if value not in (None, neutral):
            raise BadInput(
                f"{directory}: this kind of model changes its logits ({field}={value}), not supported."
            )


def _pad_id(config: Any) -> int:
    # Padding is to the right and a causal model never looks there: any token will do.
    pad = getattr(config, "pad_token_id", None)
    return int(pad) if pad is not None else 0

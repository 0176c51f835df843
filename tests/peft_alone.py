"""A trained adapter as transformers and PEFT load it by themselves: what lhcq's own way is held to."""

import warnings
from pathlib import Path
from typing import Any


def load_by_peft(directory: Path, adapter: Path, base: Any) -> Any:
    """The model in `directory` in NF4 with `adapter` on it, in evaluation mode, computing in what `base` does."""
    from bitsandbytes.nn import Linear4bit
    from peft import PeftModel

    from benchmarks.gpu_reference import load_nf4

    plain = load_nf4(directory, dtype=base.compute_dtype, device=base.device)
    for layer in plain.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = (
                False  # such a CPU would compute in bfloat16, whatever was asked for
            )
    with warnings.catch_warnings():
        # peft asks transformers by a name that transformers 5 calls deprecated.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return PeftModel.from_pretrained(plain, adapter).eval()

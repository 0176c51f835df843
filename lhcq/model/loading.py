"""A model's weights into NF4 by transformers, whose report is read: a weight that was not in the files is random."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from lhcq.errors import BadInput
from lhcq.model.kernels.nf4 import pack_quickly_if_large
from lhcq.model.library_output import import_bitsandbytes, quiet_transformers


def load_quantized(directory: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The causal language model in `directory`, its linear layers in NF4, the rest in `dtype`, frozen.

    Raises `BadInput` where transformers cannot load it, and where weights are missing, left over or of another shape.
    """
    import_bitsandbytes()
    if device.type == "cpu":
        pack_quickly_if_large(directory)
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = load_checked(
        AutoModelForCausalLM,
        directory,
        quantization_config=quantization,
        dtype=dtype,
        device_map={"": device},
    )
    # A layer in four bits takes weights of any shape, and by transformers 5.17 so do the others of such a model: none
    # of that is in the report.
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            weight = layer.weight.quant_state if isinstance(layer, Linear4bit) else layer.weight
            wanted = layer.out_features, layer.in_features
        elif isinstance(layer, torch.nn.Embedding):
            weight, wanted = layer.weight, (layer.num_embeddings, layer.embedding_dim)
        else:
            continue
        if tuple(weight.shape) != wanted:
            raise _misshapen(directory, f"{name}.weight", tuple(weight.shape), wanted)
    return model.requires_grad_(False)


def load_checked(kind: Any, directory: Path, **how: Any) -> Any:
    """`kind.from_pretrained` of `directory`, with `BadInput` for all that goes wrong the same way each time."""
    with quiet_transformers():
        try:
            model, report = kind.from_pretrained(
                directory,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                # In the report in place of an error that does not say which.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **how,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise _refused(directory, error) from error
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error):
                raise  # of the machine, not of the model
            raise _refused(directory, error) from error
    _refuse_incomplete(directory, report)
    return model


def _refused(directory: Path, error: Exception) -> BadInput:
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else type(error).__name__
    remedy = ""
    if isinstance(error, ImportError):
        remedy = " Install it where the workers run, or take what names it out of config.json."
    return BadInput(f"{directory}: transformers cannot load this model ({said}).{remedy}")


def _refuse_incomplete(directory: Path, report: dict[str, Any]) -> None:
    """Raise `BadInput` unless every weight of the model came from its files, and every one of the files went into it.

    What is tied to another weight, and what transformers itself says can be left out, are not in the report.
    """
    missing, unexpected = report["missing_keys"], report["unexpected_keys"]
    if any("_orig_mod." in name for name in unexpected):
        raise BadInput(
            f"{directory}: its weights are named as torch.compile names them ({min(unexpected)!r}), so its own would "
            "be random. Save the model that was compiled (its _orig_mod), or take '_orig_mod.' out of the names."
        )
    if missing:
        raise BadInput(
            f"{directory}: its files lack {_first(missing)}, which would be random. Save the whole model, its output "
            "layer too (AutoModelForCausalLM, not the backbone inside), or fetch it again."
        )
    if mismatched := report["mismatched_keys"]:
        name, stored, wanted = min(mismatched)
        raise _misshapen(directory, name, tuple(stored), tuple(wanted))
    if unexpected:
        raise BadInput(
            f"{directory}: its files hold {_first(unexpected)}, which a model of this config.json has no place for. "
            "Put the configuration that the weights were saved with beside them, or save the model anew without it."
        )
    if report["error_msgs"]:
        raise BadInput(
            f"{directory}: transformers cannot load this model ({str(report['error_msgs'][0])[:200]})."
        )


def _misshapen(directory: Path, name: str, stored: tuple[int, ...], wanted: tuple[int, ...]) -> BadInput:
    return BadInput(
        f"{directory}: {name} is {stored} in its files and {wanted} by its config.json. Put the configuration "
        "that the weights were saved with beside them."
    )


def _first(names: Collection[str]) -> str:
    others = f" and {len(names) - 1} other weights" if len(names) > 1 else ""
    return f"{min(names)}{others}"

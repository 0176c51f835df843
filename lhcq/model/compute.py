"""What a model is computed by: transformers' layers, or one pass of lhcq's own, in bfloat16 or in 8 bits."""

import logging
from typing import Any

import torch

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model.base import Base

log = logging.getLogger(__name__)

_FP8_SINCE = (8, 9)
"""Compute capability."""
_UNITS = {torch.bfloat16: 2.0**-9, torch.float32: 2.0**-24}
# Of a layer, relative to the size of what it adds, and of its gradient. Three times what roundings of sqrt(1/3) of a
# type's unit on average add up to: in bfloat16 of about 16 values on the way in either; in float32 of the sums of up
# to 14,336 products.
_TOLERANCES = {
    torch.bfloat16: 3 * (32 / 3) ** 0.5 * _UNITS[torch.bfloat16],
    torch.float32: 3 * (14336 / 3) ** 0.5 * _UNITS[torch.float32],
}
# Values in 8 bits are rounded by 2.5% on average (2^-4 at most), weights by 1.9%; what a layer adds comes of two or
# three such products in a row, its gradient of as many more: sqrt(12) of 2.5%, 9%. On Mistral's shape it is 13%.
_FP8_TOLERANCE = 0.25


def has_fp8(base: Base) -> bool:
    """Whether the GPU multiplies in 8 bits."""
    return (
        base.device.type == "cuda"
        and base.compute_dtype == torch.bfloat16
        and tuple(torch.cuda.get_device_capability(base.device)) >= _FP8_SINCE
    )


def fast_decoder(base: Base, adapter: str, config: TrainConfig) -> Any:
    """The layers of `base` with `adapter`, whose weights are zero, as `lhcq.model.decoder` computes them.

    None where that is no gain, cannot be compiled, or gives something else than transformers. Raises `BadInput` when
    8 bits were asked for and cannot be had.
    """
    fp8 = config.compute == "fp8"
    if fp8 and not has_fp8(base):
        raise BadInput(
            f"8 bits (--compute fp8) need an NVIDIA GPU of compute capability 8.9 or more, and this is "
            f"{_name(base)}. Take --compute auto."
        )
    if base.device.type != "cuda":
        return None
    decoder, reason = _tried(base, adapter, config, fp8=fp8)
    if decoder is None and fp8:
        raise BadInput(
            f"{base.directory}: this model cannot be computed in 8 bits ({reason}). Take --compute auto."
        )
    if decoder is None:
        log.warning(
            "%s: the model's layers are computed one by one, which is slower (%s)", base.directory, reason
        )
    return decoder


def _tried(base: Base, adapter: str, config: TrainConfig, *, fp8: bool) -> tuple[Any, str]:
    """The decoder, or None and why not."""
    try:
        from lhcq.model.decoder import Decoder
        from lhcq.model.decoder_agreement import apart, is_usual
    except ImportError as error:
        return None, str(error)
    if not is_usual(base.model):
        return None, "its layers are not the usual ones"
    decoder = Decoder(
        base.model,
        adapter,
        base.compute_dtype,
        fp8=fp8,
        dropout=config.dropout,
        flat=base.adapter.flat,
    )
    key = "fp8" if fp8 else str(base.compute_dtype)
    if key not in base.agreed:
        base.peft.eval()  # nothing is dropped; who attaches says next what it is to be
        try:
            tolerance = _FP8_TOLERANCE if fp8 else _TOLERANCES[base.compute_dtype]
            # What a layer adds to is rounded with the sum, once in either way, and grows with the depth.
            stream = 3 * (2 / 3) ** 0.5 * _UNITS[base.compute_dtype] / tolerance
            # As `lhcq.model.agreement` has it: layers add up as squares, and make errors of their input larger.
            whole = 4 / 3 * _TOLERANCES[base.compute_dtype] * len(decoder.layers) ** 0.5
            base.agreed[key] = apart(base.model, decoder, stream=stream, whole=whole) < tolerance
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # Triton raises what its compiler, or the one for C that it calls, raises
            return (
                None,
                f"its kernels do not run here: {type(error).__name__}: {str(error).splitlines()[0][:200]}",
            )
    if not base.agreed[key]:
        return None, "it gave something else than transformers"
    return decoder, ""


def _name(base: Base) -> str:
    return torch.cuda.get_device_name(base.device) if base.device.type == "cuda" else "a CPU"

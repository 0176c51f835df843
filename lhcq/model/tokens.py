"""From prompts to token ids, by the `tokenizers` library alone, so that counting tokens does not load torch."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lhcq.errors import BadInput
from lhcq.workspace import read_json

TOKENIZER = "tokenizer.json"
Encoder = Callable[[list[str]], list[list[int]]]


def encode_prompts(directory: Path) -> Encoder:
    """A function from prompts to their token ids, with the tokenizer of the model in `directory`.

    The ids begin with one BOS where that tokenizer adds one, also when the prompt spells it out, and never end
    with an EOS, since the label follows. Raises `BadInput` when the tokenizer cannot be read.
    """
    from tokenizers import Tokenizer

    path = directory / TOKENIZER
    if not path.is_file():
        raise BadInput(f"{directory}: no {TOKENIZER}; save the model's fast tokenizer there.")
    with _explained(path):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        bos = _bos_id(tokenizer, directory)

    def encode(prompts: list[str]) -> list[list[int]]:
        with _explained(path):
            encodings = tokenizer.encode_batch(prompts, add_special_tokens=False)
        return [_with_bos(list(encoding.ids), bos) for encoding in encodings]

    return encode


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the library says of a tokenizer that makes no sense into `BadInput`."""
    try:
        yield
    except (BadInput, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # it is written in Rust, whose panics are no `Exception`
        raise BadInput(f"{path}: not a tokenizer that can be used ({error}).") from error


def _bos_id(tokenizer: Any, directory: Path) -> int | None:
    """The id that the tokenizer puts before every text; None when it puts none (SmolLM2 has a BOS unused)."""
    config = (
        read_json(directory / "tokenizer_config.json")
        if (directory / "tokenizer_config.json").is_file()
        else {}
    )
    token = config.get("bos_token")
    if isinstance(token, dict):
        token = token.get("content")
    bos: int | None = tokenizer.token_to_id(token) if token else None
    added = tokenizer.encode("", add_special_tokens=True).ids
    if bos is None:
        return added[0] if added else None
    return bos if bos in added or config.get("add_bos_token") else None


def _with_bos(ids: list[int], bos: int | None) -> list[int]:
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

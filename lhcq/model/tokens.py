"""From prompts to token ids, by the `tokenizers` library alone, so that counting tokens does not load torch."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lhcq.errors import BadInput
from lhcq.storage import read_json

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_PROBE = "12"
Encoder = Callable[[list[str]], list[list[int]]]
Decoder = Callable[[list[int]], str]


def encode_prompts(directory: Path) -> Encoder:
    """A function from prompts to their token ids, with the tokenizer of the model in `directory`.

    The ids begin with what that tokenizer puts before a text (a BOS, mostly, or nothing), once, also when the prompt
    spells it out, and never end with what it puts behind one, since the label follows. Raises `BadInput` when the
    tokenizer cannot be read.
    """
    path = directory / TOKENIZER
    tokenizer = _read_tokenizer(path)
    front = _front(tokenizer, directory)

    def encode(prompts: list[str]) -> list[list[int]]:
        with _explained(path):
            encodings = tokenizer.encode_batch(prompts, add_special_tokens=False)
        return [_with_front(list(encoding.ids), front) for encoding in encodings]

    return encode


def decode_answers(directory: Path) -> Decoder:
    """A function from an answer's token ids to its text, special tokens spelt out; raises as `encode_prompts`."""
    path = directory / TOKENIZER
    tokenizer = _read_tokenizer(path)

    def decode(ids: list[int]) -> str:
        with _explained(path):
            text: str = tokenizer.decode(ids, skip_special_tokens=False)
        return text

    return decode


def front_tokens(directory: Path) -> list[int]:
    """The ids that the tokenizer in `directory` puts before every text; SmolLM2 has a BOS and puts none."""
    return _front(_read_tokenizer(directory / TOKENIZER), directory)


def _front(tokenizer: Any, directory: Path) -> list[int]:
    with _explained(directory / TOKENIZER):
        bare, framed = (tokenizer.encode(_PROBE, add_special_tokens=special).ids for special in (False, True))
        ends = [at + len(bare) for at in range(len(framed)) if framed[at : at + len(bare)] == bare]
        if not (bare and ends):
            raise ValueError(f"{_PROBE!r} is not found in its own tokens")
        # The last place: a token in front may be one that the text has too.
        front: list[int] = framed[: ends[-1] - len(bare)]
        settings = _settings(directory)
        if not front and settings.get("add_bos_token"):
            token = _token_called("bos_token", tokenizer, settings)
            front = [] if token is None else [token]
    return front


def end_tokens(directory: Path) -> tuple[int, ...]:
    """The tokens that end an answer of the model in `directory`, by its settings and its tokenizer.

    The first one is what a training has it say. Raises `BadInput` as `encode_prompts`.
    """
    ends: list[int | None] = []
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        told = read_json(path).get("eos_token_id") if path.is_file() else None
        ends += told if isinstance(told, list) else [told]
    tokenizer = _read_tokenizer(directory / TOKENIZER)
    ends.append(_token_called("eos_token", tokenizer, _settings(directory)))
    return tuple(dict.fromkeys(one for one in ends if one is not None))


def tokens_before(directory: Path, prompt: str) -> list[int]:
    """What is fed before the tokens of `prompt` itself: nothing where the prompt spells it out."""
    path = directory / TOKENIZER
    tokenizer = _read_tokenizer(path)
    front = _front(tokenizer, directory)
    with _explained(path):
        bare = tokenizer.encode(prompt, add_special_tokens=False).ids
    return [] if bare[: len(front)] == front else front


def describe_tokenizer(directory: Path) -> dict[str, Any]:
    """All that decides what a prompt's token ids are, as JSON."""
    described = dict(read_json(directory / TOKENIZER))
    for unused in ("truncation", "padding"):
        described.pop(unused, None)
    return {"tokenizer": described, "front": front_tokens(directory)}


def _read_tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise BadInput(f"{path.parent}: no {TOKENIZER}; save the model's fast tokenizer there.")
    with _explained(path):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
    return tokenizer


def _token_called(name: str, tokenizer: Any, settings: dict[str, Any]) -> int | None:
    told = settings.get(name)
    token: int | None = tokenizer.token_to_id(str(told.get("content") if isinstance(told, dict) else told))
    return token


def _settings(directory: Path) -> dict[str, Any]:
    path = directory / TOKENIZER_CONFIG
    return read_json(path) if path.is_file() else {}


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the library says of a tokenizer that makes no sense into `BadInput`."""
    try:
        yield
    except (BadInput, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # it is written in Rust, whose panics are no `Exception`
        raise BadInput(f"{path}: not a tokenizer that can be used ({error}).") from error


def _with_front(ids: list[int], front: list[int]) -> list[int]:
    return ids if ids[: len(front)] == front else [*front, *ids]

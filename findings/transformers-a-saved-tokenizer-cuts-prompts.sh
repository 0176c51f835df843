#!/usr/bin/env bash
# transformers and tokenizers: a tokenizer that is saved after a call with truncation cuts every text of others.
#
# `tokenizer(text, truncation=True, max_length=8)` sets the limit in the tokenizer behind, where it stays; `save_pretrained`
# then writes it into tokenizer.json, and padding likewise. transformers itself sets both anew at each call, so the saved
# tokenizer looks whole there. Read by the library tokenizers, as programs that serve or count prompts do, the same
# directory cuts all texts to 8 tokens: a prompt loses its end, where the label or the question stands, and no
# prompt is ever too long. Nothing is said. `no_truncation()` and `no_padding()` after `Tokenizer.from_file`.
# Seen with transformers 5.23.0 and tokenizers 0.23.3: of 50 tokens 50 by transformers and 8 by tokenizers; saved before the
# call, 50 by both; after padding="max_length" to 16, a text of one token has 16.
# Source: this program; transformers' `set_truncation_and_padding` says that it restores the tokenizer's settings afterwards.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

print("transformers", version("transformers"), "tokenizers", version("tokenizers"))
words = Tokenizer(models.WordLevel({"[UNK]": 0, "jet": 1, "[PAD]": 2}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
words.save("words.json")
tokenizer = PreTrainedTokenizerFast(tokenizer_file="words.json", pad_token="[PAD]")
prompt = "jet " * 50


def saved(name, text=prompt):
    """The tokens of a text by the saved directory, as transformers and as tokenizers read it."""
    tokenizer.save_pretrained(name)
    ours = PreTrainedTokenizerFast.from_pretrained(name)
    counts = len(ours(text)["input_ids"]), len(Tokenizer.from_file(f"{name}/tokenizer.json").encode(text).ids)
    print(f"{name}: {counts[0]} tokens by transformers, {counts[1]} by tokenizers")
    return counts


assert saved("untouched") == (50, 50)
tokenizer(prompt, truncation=True, max_length=8)
assert saved("truncated") == (50, 8)
tokenizer("jet", padding="max_length", truncation=True, max_length=16)
assert saved("padded", "jet") == (1, 16)
mended = Tokenizer.from_file("truncated/tokenizer.json")
mended.no_truncation()
assert len(mended.encode(prompt).ids) == 50
PYTHON

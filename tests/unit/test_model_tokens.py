import json
import subprocess
import sys

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lhcq.errors import BadInput
from lhcq.model.labels import label_ids
from lhcq.model.tokens import encode_prompts, end_tokens, tokens_before
from lhcq.records.labels import LABELS

WORDS = {"<s>": 0, "</s>": 1, "1": 2, "2": 3, ":": 4, "signal": 5, "background": 6, "[UNK]": 7}


@pytest.fixture
def llama_like(tmp_path):
    """A tokenizer that puts <s> before every text and </s> after it."""
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    return tmp_path


def test_a_prompt_gets_exactly_one_bos_and_no_eos(llama_like):
    encode = encode_prompts(llama_like)
    assert encode(["1 2 :", "<s>1 2 :"]) == [[0, 2, 3, 4], [0, 2, 3, 4]]


@pytest.mark.parametrize(
    ("frame", "front"),
    [("$A </s>", []), ("</s> $A", [1]), ("<s> $A", [0]), ("</s> <s> $A </s>", [1, 0]), ("$A", [])],
)
def test_what_a_tokenizer_puts_behind_a_text_never_lands_before_it(llama_like, frame, front):
    tokenizer = Tokenizer.from_file(str(llama_like / "tokenizer.json"))
    special = [(name, WORDS[name]) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=frame, special_tokens=special)
    tokenizer.save(str(llama_like / "tokenizer.json"))
    (llama_like / "tokenizer_config.json").write_text('{"bos_token": null, "eos_token": "</s>"}')
    assert encode_prompts(llama_like)(["1 2 :"]) == [[*front, 2, 3, 4]]
    assert tokens_before(llama_like, "1 2 :") == front
    assert tokens_before(llama_like, "<s>1 2 :") == ([] if front == [0] else front)


def test_a_bos_that_is_asked_for_beside_the_tokenizer_is_put_in_front(llama_like):
    tokenizer = Tokenizer.from_file(str(llama_like / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer.save(str(llama_like / "tokenizer.json"))
    settings = {"bos_token": {"content": "<s>"}, "add_bos_token": True}
    (llama_like / "tokenizer_config.json").write_text(json.dumps(settings))
    assert encode_prompts(llama_like)(["1 2 :"]) == [[0, 2, 3, 4]]


def test_an_answer_ends_with_what_the_settings_say_and_with_what_the_tokenizer_says(llama_like):
    (llama_like / "config.json").write_text('{"eos_token_id": 5}')
    assert end_tokens(llama_like) == (5,)
    (llama_like / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}}')
    assert end_tokens(llama_like) == (5, 1)
    (llama_like / "generation_config.json").write_text('{"eos_token_id": [7, 5]}')
    assert end_tokens(llama_like) == (7, 5, 1)


def test_the_saved_truncation_and_padding_do_not_apply(llama_like):
    assert [len(ids) for ids in encode_prompts(llama_like)(["1 2 1 2 1 2 :", "1"])] == [8, 2]


def test_smollm2_adds_no_bos_and_splits_every_digit(smollm2):
    encode = encode_prompts(smollm2)
    (ids,) = encode(["357 120:"])
    assert len(ids) == len("357 120:")


def test_counting_tokens_loads_no_torch(smollm2):
    code = (
        "import sys; from pathlib import Path; from lhcq.model.tokens import encode_prompts\n"
        "encode_prompts(Path(sys.argv[1]))(['357 120:'])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(smollm2)], check=True)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        encode_prompts(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match="not a tokenizer"):
        encode_prompts(tmp_path)


def test_the_labels_are_the_known_single_tokens_of_smollm2(smollm2):
    encode = encode_prompts(smollm2)
    assert label_ids(encode, "357 120 447 53 10:") == ((3969,), (4973,))
    assert label_ids(encode, "num_particles: 5[/INST]") == ((3969,), (4973,))


def test_the_index_of_a_label_is_its_bit():
    assert LABELS == ("background", "signal")


def test_labels_of_several_tokens_are_all_of_these(tmp_path):
    letters = {letter: at for at, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    background, signal = label_ids(encode_prompts(tmp_path), "1 2:")
    assert (len(background), len(signal)) == (11, 7)
    assert background[0] == signal[0]  # the space before
    with pytest.raises(BadInput, match="the same tokens"):
        label_ids(lambda texts: [[1, 2], [1, 2, 3], [1, 2, 3]], "1 2:")
    with pytest.raises(BadInput, match="' signal' after '1 2:' changes the prompt's own tokens"):
        label_ids(lambda texts: [[1, 2], [1, 2, 3], [1, 4]], "1 2:")

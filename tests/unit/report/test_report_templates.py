"""Sentences that the terminal prints stand on pages, too, where commands in them are code and nothing is markup."""

import re
from importlib import resources

import pytest

from lhcq.report.templates import told

TEMPLATES = {
    one.name: one.read_text("utf-8")
    for one in resources.files("lhcq.report").iterdir()
    if one.name.endswith(".html.j2")
}
PROSE = re.compile(r"(?s)<(p|li|dd|summary|figcaption)\b(.*?)</\1>")
MAY_NAME_A_COMMAND = re.compile(
    r"\b(text|sentence|line|message|missing|reason|stopped|verdict|fitted|value)\b"
)


def test_commands_are_code_and_nothing_else_becomes_markup() -> None:
    assert told("Run `lhcq rm a` & `b`.") == "Run <code>lhcq rm a</code> &amp; <code>b</code>."
    assert told("`<b>` <i>") == "<code>&lt;b&gt;</code> &lt;i&gt;"
    assert told("one ` alone") == "one ` alone"
    assert told(None) == "None"


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_sentence_of_a_page_is_told_so(name: str) -> None:
    plain = [
        expression
        for _, prose in PROSE.findall(TEMPLATES[name])
        for expression in re.findall(r"\{\{(.*?)\}\}", prose)
        if MAY_NAME_A_COMMAND.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", expression))
        and "|told" not in expression
    ]
    assert plain == []

import pyarrow as pa
import pytest

from lhcq.errors import BadInput
from lhcq.prompts import templates
from lhcq.prompts.templates import describe_template, render

FIRST = {
    "pt": 1286.7,
    "m": 106.91,
    "n_constituents": 36,
    "px": -1195.9301781079894,
    "py": -474.78326170135693,
    "pz": 240.06963161424423,
    "e": 1313.2904354495458,
}
SECOND = {
    "pt": 1283.2,
    "m": 463.5001,
    "n_constituents": 103,
    "px": 1185.0,
    "py": 0.1,
    "pz": -1e-11,
    "e": 1287.4819339361034,
}
JET = pa.struct({name: "i4" if name == "n_constituents" else "f8" for name in FIRST})


def make_records() -> pa.Table:
    return pa.table(
        {
            "jets": pa.array([[FIRST, SECOND], [FIRST], []], pa.list_(JET)),
            "mjj": pa.array([2584.9, None, None]),
            "delta_r": pa.array([3.13, None, None]),
            "n_particles": pa.array([174, 96, 0], pa.int32()),
            "n_jets": pa.array([2, 1, 0], pa.int32()),
        }
    )


def test_the_diary_prompt_is_the_study_s_to_the_letter():
    assert render("diary", make_records()) == [
        """\
[INST] Classify this event as 'signal' or 'background'.
jets:
  jet1: px=-1195.9301781080 py=-474.7832617014 pz=240.0696316142 E=1313.2904354495
  jet2: px=1185.0000000000 py=0.1000000000 pz=-0.0000000000 E=1287.4819339361
num_particles: 174[/INST]""",
        """\
[INST] Classify this event as 'signal' or 'background'.
jets:
  jet1: px=-1195.9301781080 py=-474.7832617014 pz=240.0696316142 E=1313.2904354495
num_particles: 96[/INST]""",
        """\
[INST] Classify this event as 'signal' or 'background'.
jets:
num_particles: 0[/INST]""",
    ]


def test_the_compact_prompt_is_bare_integers_with_zero_for_what_is_absent():
    assert render("compact", make_records()) == ["258 464 107 17 10 4:", "0 107 0 10 4 0:", "0 0 0 0 0 0:"]


@pytest.mark.parametrize("name", ["compact", "diary"])
def test_a_prompt_does_not_contain_the_label(name):
    labelled = make_records().append_column("label", pa.array([0, 1, 1], pa.int8()))
    assert render(name, labelled) == render(name, make_records())


@pytest.mark.parametrize("name", ["compact", "diary"])
def test_no_events_give_no_prompts(name):
    assert render(name, make_records().slice(0, 0)) == []


def test_a_template_that_is_not_there_is_refused_by_name():
    with pytest.raises(BadInput, match="'haiku' is no template: use compact or diary"):
        render("haiku", make_records())


def test_the_hash_changes_with_what_is_rendered_and_with_the_version(monkeypatch):
    describe = describe_template.__wrapped__  # without its cache
    before = describe("compact")
    assert before == describe("compact") == describe_template("compact")
    assert before.sha256 != describe_template("diary").sha256

    columns = templates.COMPACT_COLUMNS
    for changed in (columns[:-1], columns[::-1], (("mjj", 1.0), *columns[1:])):
        monkeypatch.setattr(templates, "COMPACT_COLUMNS", changed)
        assert describe("compact").sha256 != before.sha256
    monkeypatch.setattr(templates, "COMPACT_COLUMNS", columns)

    version, renderer = templates._RENDERERS["compact"]
    monkeypatch.setitem(templates._RENDERERS, "compact", (version + 1, renderer))
    assert describe("compact").sha256 != before.sha256


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("compact", "678e81a493335d6796fa8c9d0131b94c4b6b7b77a19754f6dd90d7bfdb802e8e"),
        ("diary", "8d59419534f21a8d70b36b5a91281fe29f7d64ad4d93804d3081c4b95f8f2b44"),
    ],
)
def test_what_a_template_renders_only_changes_on_purpose(name, sha256):
    # Splits and runs name this hash: whoever changes a template raises its version and replaces the hash here.
    assert describe_template(name).sha256 == sha256

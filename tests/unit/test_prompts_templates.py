import numpy as np
import pyarrow as pa
import pytest

from lhcq.config import knows_mass
from lhcq.errors import BadInput
from lhcq.prompts import templates
from lhcq.prompts.features import features_of
from lhcq.prompts.templates import (
    Column,
    choose_columns,
    describe_template,
    noise_of,
    render,
    render_as,
    render_features,
    render_moved,
    units_of,
)
from lhcq.records.events import LISTED_CONSTITUENTS, schema_of

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
            "constituents": pa.array([[[], []], [[]], []], LISTED_CONSTITUENTS.type),
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


def with_substructure(**of_jets: list[float]) -> pa.Table:
    """The same events whose two jets have more columns, in order of pt."""
    records = make_records()
    extra = {name: pa.array([values[0], values[1], values[0]]) for name, values in of_jets.items()}
    lists = records["jets"].combine_chunks()
    fields = {JET.field(index).name: lists.values.field(index) for index in range(JET.num_fields)} | extra
    jets = pa.ListArray.from_arrays(
        lists.offsets, pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    )
    return records.set_column(0, "jets", jets)


def test_the_compact_prompt_takes_groomed_masses_and_d2_where_they_are_there():
    records = with_substructure(m_sd=[80.4, 455.6], d2=[3.14, 0.449], tau1=[90.0, 80.0], tau2=[45.0, 20.0])
    assert render("compact", records) == ["258 456 80 17 4 31:", "0 80 0 10 31 0:", "0 0 0 0 0 0:"]


def test_the_compact_prompt_of_a_features_file_is_masses_and_tau21():
    records = with_substructure(tau1=[90.0, 80.0], tau2=[45.0, 20.0], tau3=[1.0, 1.0])
    imported = records.drop_columns(["n_particles", "n_jets"])
    assert render("compact", imported) == ["258 464 107 25 50:", "0 107 0 50 0:", "0 0 0 0 0:"]
    assert choose_columns("compact", imported.schema) == (
        "mjj", "m_heavy", "m_light", "tau21_heavy", "tau21_light",
    )  # fmt: skip


def test_the_wide_prompt_has_both_kinds_of_mass_and_all_substructure_that_is_there():
    of_jets = {"tau1": [90.0, 80.0], "tau2": [45.0, 20.0], "tau3": [9.0, 10.0], "d2": [3.14, 0.449]}
    records = with_substructure(m_sd=[80.4, 455.6], **of_jets)
    assert render("wide", records) == [
        "258 464 107 456 80 174 103 36 45 314 25 50 50 20:",
        "0 107 0 80 0 96 36 0 314 0 50 0 20 0:",
        "0 0 0 0 0 0 0 0 0 0 0 0 0 0:",
    ]
    assert choose_columns("wide", make_records().schema) == choose_columns("compact", make_records().schema)


def test_the_prompt_of_all_has_every_feature_of_a_dataset_in_its_order():
    schema = schema_of("full")
    columns = choose_columns("all", schema)
    assert columns == tuple(one.name for one in features_of(schema))
    assert len(columns) == 34
    features = {name: np.array([3504.0, np.nan]) if name == "mjj" else np.full(2, 0.456) for name in columns}
    first, second = render_features(describe_template("all", schema), features)
    numbers = dict(zip(columns, first[:-1].split(), strict=True))
    known = ("mjj", "tau43_light", "width_heavy", "pt_lead_heavy", "m_light", "z_g_heavy", "delta_r")
    assert [numbers[one] for one in known] == ["350", "46", "456", "0", "0", "46", "46"]
    assert second.split()[0] == "0"
    # 1286.7, 1283.2 and 3.13 in units of 10 and 0.01; of two jets without substructure
    assert render("all", make_records())[0] == "258 464 107 128 129 103 36 313 174 2:"


def test_a_copy_of_all_numbers_moves_each_within_its_noise_but_the_number_of_jets():
    template = describe_template("all", schema_of("full"))
    features = {name: np.full(300, 700.0) for name in template.columns}
    features["m_light"] = np.full(300, np.nan)
    moved = np.array([one[:-1].split() for one in render_moved(template, features, [1, 0])], int)
    away = np.abs(moved * [units_of("all")[one] for one in template.columns] - 700)
    for name, most in zip(template.columns, away.max(axis=0), strict=True):
        if name == "m_light":
            assert most == 700, "what is absent is not moved"
        else:
            assert 0.9 * noise_of(name) <= most <= noise_of(name) + units_of("all")[name] / 2, name


def test_a_prompt_without_a_mass_divides_masses_by_the_pt_of_their_jet():
    of_jets = {"tau1": [90.0, 80.0], "tau2": [45.0, 20.0], "tau3": [9.0, 10.0], "d2": [3.14, 0.449]}
    records = with_substructure(m_sd=[80.4, 455.6], **of_jets)
    # 455.6 / 1283.2 and 80.4 / 1286.7, in thousandths
    assert render("compact-without-mass", records) == [
        "355 62 103 36 25 50:",
        "62 0 36 0 50 0:",
        "0 0 0 0 0 0:",
    ]
    assert render("wide-without-mass", records) == [
        "361 83 355 62 103 36:",
        "83 0 62 0 36 0:",
        "0 0 0 0 0 0:",
    ]
    plain = make_records()
    assert render("compact-without-mass", plain)[0] == "361 83 103 36:"
    assert render("compact-without-mass", plain.drop_columns(["mjj", "delta_r"])) == render(
        "compact-without-mass", plain
    )


def test_without_constituents_there_is_no_prompt_without_a_mass():
    # tau21 alone beside the masses prefers background at high m_jj.
    with pytest.raises(
        BadInput, match="template compact-without-mass needs n_heavy, n_light, which this dataset"
    ):
        describe_template("compact-without-mass", IMPORTED)


@pytest.mark.parametrize("name", ["compact-without-mass", "wide-without-mass"])
def test_a_template_without_a_mass_says_the_same_of_jets_of_another_scale(name):
    # With all momenta and masses twice as large m_jj is twice as large, and nothing else is to be seen.
    records = with_substructure(m_sd=[80.4, 455.6], d2=[3.14, 0.449])
    doubled = [
        [
            {
                key: 2 * value if key in ("pt", "m", "m_sd", "px", "py", "pz", "e") else value
                for key, value in jet.items()
            }
            for jet in event
        ]
        for event in records["jets"].to_pylist()
    ]
    larger = records.set_column(0, "jets", pa.array(doubled, records["jets"].type))
    larger = larger.set_column(1, "mjj", pa.array([5169.8, None, None]))
    assert render(name, larger) == render(name, records)
    assert render("compact", larger) != render("compact", records)


def test_only_templates_without_a_mass_do_not_know_it():
    assert {name for name in templates.NEWEST if not knows_mass(name)} == {
        "compact-without-mass",
        "wide-without-mass",
    }


def test_a_ratio_that_has_no_value_reads_as_zero():
    records = with_substructure(tau1=[0.0, 80.0], tau2=[0.0, 20.0])
    assert render("compact", records) == ["258 464 107 17 25 0:", "0 107 0 10 0 0:", "0 0 0 0 0 0:"]


def test_version_2_still_reads_as_it_did_whatever_is_there():
    for records in (make_records(), with_substructure(m_sd=[1.0, 2.0], d2=[1.0, 2.0])):
        assert render("compact", records, version=2) == render("compact", make_records())
    assert describe_template("compact", schema_of("full"), version=2).sha256 == (
        "678e81a493335d6796fa8c9d0131b94c4b6b7b77a19754f6dd90d7bfdb802e8e"
    )
    with pytest.raises(BadInput, match="template compact has no version 1, only 2, 3"):
        render("compact", make_records(), version=1)


def test_a_template_says_what_a_dataset_lacks_for_it_and_what_to_do():
    imported = make_records().drop_columns(["n_particles"])
    with pytest.raises(
        BadInput,
        match=r"diary needs n_particles, which this dataset does not have.*, or use --template compact",
    ):
        render("diary", imported)
    with pytest.raises(BadInput, match="template compact needs mjj, which this dataset does not have"):
        describe_template("compact", make_records().drop_columns(["mjj"]).schema)


@pytest.mark.parametrize("name", templates.NEWEST)
def test_a_prompt_does_not_contain_the_label(name):
    labelled = make_records().append_column("label", pa.array([0, 1, 1], pa.int8()))
    assert render(name, labelled) == render(name, make_records())


@pytest.mark.parametrize("name", templates.NEWEST)
def test_no_events_give_no_prompts(name):
    assert render(name, make_records().slice(0, 0)) == []


def test_a_template_that_is_not_there_is_refused_by_name():
    with pytest.raises(
        BadInput, match="'haiku' is no template: use one of compact, wide, all, particles, diary"
    ):
        render("haiku", make_records())
    with pytest.raises(BadInput, match="'haiku' is no template"):
        describe_template("haiku", make_records().schema)


def test_the_hash_changes_with_what_is_rendered_and_with_the_version(monkeypatch):
    def describe(version=None):
        templates._describe.cache_clear()
        return describe_template("compact", schema_of("jets"), version=version)

    before = describe()
    assert before == describe() == describe(3)
    assert before.sha256 not in {
        describe(2).sha256,
        describe_template("compact", schema_of("full")).sha256,
        describe_template("diary", schema_of("jets")).sha256,
    }
    places = templates._PLACES["compact"][3]
    for changed in (places[:-1], places[::-1], ((Column("mjj", 1.0),), *places[1:])):
        monkeypatch.setitem(templates._PLACES["compact"], 3, changed)
        assert describe().sha256 != before.sha256
    monkeypatch.undo()
    assert describe() == before


IMPORTED = pa.schema(
    {
        "jets": pa.list_(pa.struct(dict.fromkeys(["pt", "m", "px", "py", "pz", "e", "tau1", "tau2"], "f8"))),
        "mjj": pa.float64(),
        "delta_r": pa.float64(),
    }
)


@pytest.mark.parametrize(
    ("name", "schema", "sha256"),
    [
        ("compact", schema_of("jets"), "465310e2b16c606400874e42b92156409c42396f4148ae987915821dc79bbc6f"),
        ("compact", schema_of("full"), "06a7d4f85e927baf95b601d983cc3678f4a2bebd3de75d7c59fa360cd815e063"),
        ("compact", IMPORTED, "ec2ce23c3d90967600cbcb5c0b59beb7b706f9fd20ee335407f3ad27d9208b5d"),
        ("wide", schema_of("jets"), "f0ab320954155a93aafeb4b73dc2ded577c1b51f17adccf508a56eb11a1b8f01"),
        ("wide", schema_of("full"), "cb9ce670e30b5ba379d4750bf4e4a4c95e34c4347414142177bab67f7f4491a4"),
        ("all", schema_of("jets"), "a816caff93c50585ed794976a1ff677330f5dbc79bdb6220688540aaacd57db9"),
        ("all", schema_of("full"), "e5d0e9c8f5458d9def905692c7ad51605e82cb7252b6a1efc9325d0377b722b3"),
        ("diary", schema_of("jets"), "8d59419534f21a8d70b36b5a91281fe29f7d64ad4d93804d3081c4b95f8f2b44"),
        ("diary", schema_of("full"), "8d59419534f21a8d70b36b5a91281fe29f7d64ad4d93804d3081c4b95f8f2b44"),
        (
            "compact-without-mass",
            schema_of("jets"),
            "e12c238d28f9f97d3606dd5386dac435769accd5d49332e48481f9bd50af2953",
        ),
        (
            "compact-without-mass",
            schema_of("full"),
            "d95c5cd3711ff16fc2146ad569bcce632966b13377bbcd1f4d463297c885a069",
        ),
        (
            "wide-without-mass",
            schema_of("full"),
            "c8d865a8e547664ba57c4f294203ff60772e7868ac644614bfbe50a7f3963ab0",
        ),
    ],
)
def test_what_a_template_renders_only_changes_on_purpose(name, schema, sha256):
    # Splits and runs name this hash: whoever changes a template raises its version and replaces the hash here.
    assert describe_template(name, schema).sha256 == sha256


def test_a_template_is_written_again_of_its_own_columns_whatever_else_is_there():
    records = make_records()
    plain = describe_template("compact", records.schema)
    richer = render("compact", records)
    jets = [[{**jet, "m_sd": 50.0, "d2": 1.5} for jet in event] for event in records["jets"].to_pylist()]
    groomed = records.set_column(0, "jets", pa.array(jets))
    assert render("compact", groomed) != richer
    assert render_as(plain, groomed) == richer
    diary = describe_template("diary", records.schema)
    assert render_as(diary, groomed) == render("diary", records)


def test_a_template_is_not_written_of_records_that_lack_one_of_its_columns():
    groomed = describe_template("compact", schema_of("full"))
    with pytest.raises(BadInput, match=r"no m_sd_heavy, m_sd_light, d2_heavy, d2_light"):
        render_as(groomed, make_records())
    diary = describe_template("diary", make_records().schema)
    with pytest.raises(BadInput, match="no n_particles"):
        render_as(diary, make_records().drop_columns("n_particles"))


def test_a_template_that_reads_otherwise_by_now_is_refused():
    known = describe_template("compact", make_records().schema)
    with pytest.raises(BadInput, match="otherwise"):
        render_as(known.model_copy(update={"sha256": "0" * 64}), make_records())

"""Constituents as letters: what a prompt of `particles` says, in which frame, and what it refuses."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lhcq.config import ClusterConfig, SplitConfig, template_without_mass
from lhcq.errors import BadInput
from lhcq.events.layout import open_event_file, read_rows
from lhcq.jets.clustering import cluster_events
from lhcq.prompts.features import KNOWN, compute_features
from lhcq.prompts.numbers import check_prompt, explain, values_of, write_prompt
from lhcq.prompts.particles import DISTANCES, SHARES, Constituents, check_kept, explain_letters
from lhcq.prompts.program import prompt_program
from lhcq.prompts.templates import describe_template, render, render_as, render_moved
from lhcq.prompts.tokens import tokens_of_letter
from lhcq.records.events import LISTED_CONSTITUENTS, schema_of
from lhcq.records.letters import LETTERS, split_prompt
from lhcq.records.prompt_numbers import read_all_numbers, read_numbers

LIGHT = {"pt": 1000.0, "m": 100.0, "n_constituents": 3, "tau1": 10.0, "tau2": 5.0}
HEAVY = {"pt": 500.0, "m": 400.0, "n_constituents": 2, "tau1": 10.0, "tau2": 1.0}
OF_LIGHT = [(600.0, 0.0, 0.1), (300.0, 0.0, -0.2), (50.0, 0.3, 0.0)]
OF_HEAVY = [(400.0, 0.05, 0.0), (100.0, -0.2, 0.0)]
SCHEMA = schema_of("full", constituents=True)


def make_records(*events: list[tuple[dict[str, float], list[tuple[float, float, float]]]]) -> pa.Table:
    """Events of jets with their constituents, by falling pt."""
    jets = [[jet for jet, _ in event] for event in events]
    listed = [
        [
            [{"pt": pt, "delta_eta": eta, "delta_phi": phi} for pt, eta, phi in constituents]
            for _, constituents in event
        ]
        for event in events
    ]
    kind = pa.list_(pa.struct({name: pa.float64() for name in LIGHT}))
    return pa.table(
        {
            "jets": pa.array(jets, kind),
            "mjj": pa.array([2000.0 if len(event) > 1 else None for event in events], pa.float64()),
            "n_particles": pa.array([50] * len(events), pa.int32()),
            "constituents": pa.array(listed, LISTED_CONSTITUENTS.type),
        }
    )


RECORDS = make_records([(LIGHT, OF_LIGHT), (HEAVY, OF_HEAVY)], [(LIGHT, OF_LIGHT)], [])


def written(records: pa.Table, **asked: Any) -> list[str]:
    return render_as(describe_template("particles", records.schema, **asked), records)


def letter(value: float, edges: tuple[float, ...]) -> str:
    """The letter of a value, by counting edges."""
    return LETTERS[sum(edge <= value for edge in edges)]


def test_a_prompt_is_that_of_wide_with_the_heavier_jets_constituents_and_the_others_behind() -> None:
    wide = render("wide", RECORDS)
    assert wide == [
        "200 400 100 50 2 3 10 50:",
        "0 100 0 50 3 0 50 0:",
        "0 0 0 50 0 0 0 0:",
    ]
    assert written(RECORDS, frame="detector", constituents=2) == [
        "200 400 100 50 2 3 10 50; y e a n N a; w a h q a N:",
        "0 100 0 50 3 0 50 0; w a h q a N;:",
        "0 0 0 50 0 0 0 0;;:",
    ]
    by_hand = "".join(
        f" {letter(pt / 500, SHARES)} {letter(eta, DISTANCES)} {letter(phi, DISTANCES)}"
        for pt, eta, phi in OF_HEAVY
    )
    assert by_hand in written(RECORDS, frame="detector", constituents=2)[0]


def test_on_the_principal_axis_a_jet_lies_along_the_first_distance_with_the_harder_side_positive() -> None:
    # The lighter jet's axis is phi, its harder side positive there; of the third, which is across, so is its side.
    assert written(RECORDS, constituents=3)[0] == "200 400 100 50 2 3 10 50; y e a n N a; w h a q N a d a p:"
    turned = Constituents.of(RECORDS, 3).turned("principal-axis").values
    np.testing.assert_allclose(
        turned[0, 1], [[0.6, 0.1, 0.0], [0.3, -0.2, 0.0], [0.05, 0.0, 0.3]], atol=1e-12
    )


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.0, 3.1, 4.4])
@pytest.mark.parametrize("mirror", [1, -1])
def test_a_jet_that_is_turned_or_mirrored_reads_the_same_on_its_principal_axis(
    angle: float, mirror: int
) -> None:
    rng = np.random.default_rng(3)
    jet = [
        (float(pt), float(eta), float(phi))
        for pt, eta, phi in zip(
            np.sort(rng.uniform(1, 90, 12))[::-1], *rng.normal(0, 0.3, (2, 12)), strict=True
        )
    ]
    other = [
        (
            pt,
            eta * math.cos(angle) - phi * math.sin(angle),
            mirror * (eta * math.sin(angle) + phi * math.cos(angle)),
        )
        for pt, eta, phi in jet
    ]
    values = [
        Constituents.of(make_records([(LIGHT, one)]), 12).turned("principal-axis").values
        for one in (jet, other)
    ]
    np.testing.assert_allclose(values[0], values[1], atol=1e-6)  # they are stored in single precision
    seen = [Constituents.of(make_records([(LIGHT, one)]), 12).values for one in (jet, other)]
    assert not np.allclose(seen[0], seen[1], atol=1e-2)


def test_the_frame_is_of_the_constituents_that_are_written_alone() -> None:
    # Or else a dataset that keeps more would make other prompts.
    more = make_records([(LIGHT, [*OF_LIGHT, (40.0, 0.5, 0.5), (30.0, -0.6, 0.5)]), (HEAVY, OF_HEAVY)])
    assert written(more, constituents=3)[0] == written(RECORDS, constituents=3)[0]


def test_a_slice_and_a_chunked_table_read_as_the_whole() -> None:
    whole = written(RECORDS)
    assert written(RECORDS.slice(1)) == whole[1:]
    assert written(pa.concat_tables([RECORDS.slice(0, 1), RECORDS.slice(1)])) == whole
    assert written(RECORDS.slice(0, 0)) == []


def test_a_jet_without_direction_is_written_all_the_same() -> None:
    single = make_records([(LIGHT, [(1000.0, 0.0, 0.0)])])
    assert split_prompt(written(single)[0])[1] == [["z", "a", "a"], []]


def test_bins_are_the_letters_and_their_edges_rise() -> None:
    for edges in (SHARES, DISTANCES):
        assert len(edges) == len(LETTERS) - 1
        assert list(edges) == sorted(set(edges))
    assert DISTANCES[25] == 0.0
    assert tuple(-one for one in DISTANCES[::-1]) == DISTANCES


def test_a_template_names_how_many_and_which_frame() -> None:
    known = describe_template("particles", SCHEMA)
    assert (known.constituents, known.frame) == (10, "principal-axis")
    others = [
        describe_template("particles", SCHEMA, constituents=11),
        describe_template("particles", SCHEMA, frame="detector"),
        describe_template("particles", schema_of("jets", constituents=True)),
    ]
    assert len({one.sha256 for one in (known, *others)}) == 4
    assert "constituents" not in describe_template("wide", SCHEMA).model_dump()


@pytest.mark.parametrize(
    ("frame", "sha256"),
    [
        ("principal-axis", "4971ff794237b8e6687e48d0942564a51faba917264df0d5c47a28d2765f46cb"),
        ("detector", "6c3f8e641fb52b869845560a744eda86426cb6cf22debcb5483e49dad82b12ec"),
    ],
)
def test_what_particles_renders_only_changes_on_purpose(frame: Any, sha256: str) -> None:
    # Splits and runs name this hash: whoever changes the template raises its version and replaces the hash here.
    assert describe_template("particles", SCHEMA, frame=frame).sha256 == sha256


def test_a_dataset_without_constituents_or_with_too_few_is_refused_with_the_remedy() -> None:
    with pytest.raises(BadInput, match=r"^template particles needs constituents.*--constituents") as caught:
        describe_template("particles", schema_of("full"))
    assert "\n" not in str(caught.value)
    with pytest.raises(
        BadInput, match=r"no .*, constituents, which the prompts of this training are made of"
    ):
        render_as(describe_template("particles", SCHEMA), RECORDS.drop_columns("constituents"))
    check_kept(10, 10)
    check_kept(10, None)
    with pytest.raises(
        BadInput, match=r"keeps 5 constituents .*the prompts have 10\. Cluster .* --constituents 10"
    ):
        check_kept(10, 5)


def test_constituents_of_a_third_jet_are_refused() -> None:
    with pytest.raises(BadInput, match="more than two jets"):
        written(make_records([(LIGHT, OF_LIGHT), (HEAVY, OF_HEAVY), (HEAVY, OF_HEAVY)]))


def test_there_is_no_particles_without_the_mass_and_no_other_template_with_constituents() -> None:
    with pytest.raises(BadInput, match="constituents tell D2 and tau32"):
        template_without_mass("particles")
    with pytest.raises(BadInput, match=r"^all features determine m_jj: take compact or wide"):
        template_without_mass("all")
    for asked in ({"constituents": 5}, {"frame": "detector"}):
        with pytest.raises(
            BadInput, match="is of what template particles writes, and wide writes no constituents"
        ):
            SplitConfig.checked(template="wide", **asked)
    assert "constituents" not in SplitConfig(template="wide").model_dump()


@pytest.mark.parametrize("frame", ["principal-axis", "detector"])
def test_copies_move_constituents_within_what_is_told_and_leave_the_rest(frame: Any) -> None:
    template = describe_template("particles", RECORDS.schema, constituents=3, frame=frame)
    features = compute_features(RECORDS, [one for one in KNOWN if one.name in template.columns])
    constituents = Constituents.of(RECORDS, 3)
    first, again, second = (render_moved(template, features, [1, copy], constituents) for copy in (0, 0, 1))
    assert first == again
    assert first != second
    assert [prompt.count(" ") for prompt in first] == [
        prompt.count(" ") for prompt in render_as(template, RECORDS)
    ]
    moved = constituents.moved(frame, np.random.default_rng(1)).values
    radius, before = (np.hypot(one[..., 1], one[..., 2]) for one in (moved, constituents.values))
    assert np.abs(moved[..., 0] - constituents.values[..., 0]).max() <= 0.05 * 0.8
    assert 0 < np.abs(radius - before).max() <= 0.01 * math.sqrt(2)
    assert (moved[constituents.values[..., 0] == 0] == 0).all()
    assert np.allclose(moved[..., 1], constituents.values[..., 1], atol=0.011) == (frame == "principal-axis")


@pytest.fixture(scope="module")
def real_records(test_data: Path) -> pa.Table:
    """The first of the real events."""
    file = open_event_file(test_data / "events_anomalydetection_tiny.h5")
    block = read_rows(file, 0, 60)
    config = ClusterConfig(features="full", constituents=20)
    return cluster_events(block.particles, config, rows=block.rows, labels=block.labels)


@pytest.mark.parametrize("frame", ["principal-axis", "detector"])
def test_the_program_of_a_card_writes_the_trainings_prompts(frame: Any, real_records: pa.Table) -> None:
    template = describe_template("particles", real_records.schema, constituents=15, frame=frame)
    made: dict[str, Any] = {}
    exec(prompt_program(template), made)  # noqa: S102
    features = compute_features(real_records, KNOWN)
    prompts = render_as(template, real_records)
    for at, (event, prompt) in enumerate(zip(real_records.to_pylist(), prompts, strict=True)):
        jets = sorted(
            zip(event["jets"], event["constituents"], strict=True), key=lambda one: one[0]["m"], reverse=True
        )
        arguments = [
            (jet["pt"], [(one["pt"], one["delta_eta"], one["delta_phi"]) for one in listed])
            for jet, listed in jets
        ]
        numbers = [float(features[name][at]) for name in template.columns]
        assert made["write_prompt"](numbers, *arguments) == prompt
        check_prompt(template, prompt)


def test_trees_on_a_prompt_see_the_bins_of_its_constituents() -> None:
    values = read_all_numbers(written(RECORDS, frame="detector", constituents=2))
    assert values.shape == (3, 8 + 6 + 6)
    y, e, a = (LETTERS.index(one) for one in "yea")
    assert values[0, :8].tolist() == [50, 200, 400, 100, 50, 2, 3, 10]
    assert values[0, 8:11].tolist() == [y, e, a]
    assert np.isfinite(values[1, 8:14]).all()
    assert np.isnan(values[1, 14:]).all()
    assert np.isnan(values[2, 8:]).all()


def test_a_prompt_is_asked_whole_and_not_by_its_numbers() -> None:
    template = describe_template("particles", RECORDS.schema, constituents=2, frame="detector")
    prompts = render_as(template, RECORDS)
    for prompt in prompts:
        check_prompt(template, prompt)
        assert values_of(template, prompt) is None
    assert read_numbers(prompts)[0].tolist() == [200, 400, 100, 50, 2, 3, 10, 50]
    assert [one.feature for one in explain(template)] == list(template.columns)
    assert [one.name for one in explain_letters("detector")] == ["share", "delta_eta", "delta_phi"]
    assert [one.name for one in explain_letters("principal-axis")] == ["share", "along", "across"]
    with pytest.raises(BadInput, match=r"^prompts of template particles hold constituents.*row of a dataset"):
        write_prompt(template, [1.0] * 8)
    for wrong in (
        "200 400 100 50 2 3 10 50:",
        "200 400 100 50 2 3 10 50;;",
        "200 400 100 50 2 3 10 50; x e; u:",
        "200 400 100 50 2 3 10 50; x e 1;:",
        "200 400 100 50 2 3 10; x e a;:",
        "200 400 100 50 2 3 10 50; x e a x e a x e a;:",
        "200 400 100 50 2 3 10 50; x e a;;:",
    ):
        with pytest.raises(
            BadInput, match="is no prompt of template particles: 8 whole numbers, and for each"
        ):
            check_prompt(template, wrong)


def test_the_tokens_of_a_letter_are_counted_wherever_it_stands() -> None:
    assert tokens_of_letter(lambda prompts: [one.split() for one in prompts]) == 1
    assert tokens_of_letter(lambda prompts: [list(one.encode()) for one in prompts]) == 2
    # One that has no token for a letter before a colon.
    assert (
        tokens_of_letter(lambda prompts: [[*one.split(), *one.count("q:") * ["q"]] for one in prompts]) == 2
    )

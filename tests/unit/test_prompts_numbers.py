"""What the numbers of a prompt mean, prompts of one's own, and the program that writes them for others."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lhcq.config import ClusterConfig
from lhcq.errors import BadInput
from lhcq.events.layout import open_event_file, read_rows
from lhcq.jets.clustering import cluster_events
from lhcq.prompts.features import KNOWN, compute_features, meaning_of
from lhcq.prompts.numbers import check_prompt, explain, refuse_unlike, values_of, write_prompt
from lhcq.prompts.program import prompt_program
from lhcq.prompts.templates import NEWEST, describe_template, render_as
from lhcq.records.events import schema_of
from lhcq.records.prompt_numbers import read_numbers

FULL = schema_of("full")
COMPACT = describe_template("compact", FULL)
# Of `particles`, test_prompts_particles.py.
TEMPLATES = [describe_template(name, FULL) for name in NEWEST if name != "particles"]


def program_of(template: Any) -> Any:
    """`write_prompt` as who reads a card has it."""
    made: dict[str, Any] = {}
    exec(prompt_program(template), made)  # noqa: S102
    return made["write_prompt"]


def test_every_feature_says_what_it_is() -> None:
    said = {feature.name: meaning_of(feature.name) for feature in KNOWN}
    assert len({meaning for meaning, _ in said.values()}) == len(KNOWN)
    assert {unit for _, unit in said.values()} == {"GeV", ""}
    assert said["m_sd_light"] == ("groomed (soft-drop) mass of the lighter jet", "GeV")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_the_numbers_are_explained_in_the_prompts_order(template: Any) -> None:
    assert [number.feature for number in explain(template)] == list(template.columns)
    assert all(number.meaning for number in explain(template))


def test_the_compact_prompt_is_explained() -> None:
    assert [(number.step, number.unit) for number in explain(COMPACT)] == [
        (10.0, "GeV"),
        (1.0, "GeV"),
        (1.0, "GeV"),
        (10.0, ""),
        (0.1, ""),
        (0.1, ""),
    ]
    assert write_prompt(COMPACT, [3240, 413, 49, 230, 1.3, 5.0]) == "324 413 49 23 13 50:"
    assert values_of(COMPACT, "324 413 49 23 13 50:") == {
        "mjj": 3240.0,
        "m_sd_heavy": 413.0,
        "m_sd_light": 49.0,
        "n_particles": 230.0,
        "d2_heavy": 1.3,
        "d2_light": 5.0,
    }


@pytest.fixture(scope="module")
def real_records(test_data: Path) -> pa.Table:
    """The first of the real events, with substructure."""
    file = open_event_file(test_data / "events_anomalydetection_tiny.h5")
    block = read_rows(file, 0, 60)
    return cluster_events(
        block.particles, ClusterConfig(features="full"), rows=block.rows, labels=block.labels
    )


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_a_prompt_of_an_events_own_numbers_is_the_trainings(template: Any, real_records: pa.Table) -> None:
    prompts = render_as(template, real_records)
    if template.name == "diary":
        write = program_of(template)
        for event, prompt in zip(real_records.to_pylist(), prompts, strict=True):
            jets = [[jet[name] for name in ("px", "py", "pz", "e")] for jet in event["jets"]]
            assert write(jets, event["n_particles"]) == prompt
        return
    features = compute_features(real_records, KNOWN)
    for at, prompt in enumerate(prompts):
        values = [float(features[name][at]) for name in template.columns]
        assert write_prompt(template, values) == prompt
        assert program_of(template)(*values) == prompt
        assert program_of(template)(*(None if math.isnan(one) else one for one in values)) == prompt
        assert write_prompt(template, list((values_of(template, prompt) or {}).values())) == prompt


def test_what_an_event_lacks_is_written_as_nothing() -> None:
    lacking = [3240, math.nan, math.nan, 230, 1.3, 5.0]
    assert write_prompt(COMPACT, lacking) == program_of(COMPACT)(*lacking) == "324 0 0 23 13 50:"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], r"^2 numbers, not 6: mjj \[GeV\], .*d2_light\.$"),
        ([3240, -413, 49, 230, 1.3, 5.0], "^m_sd_heavy -413: no event has that"),
        ([math.inf, 413, 49, 230, 1.3, 5.0], "^mjj inf: no event has that"),
    ],
)
def test_numbers_of_no_event_are_refused_in_one_line(values: list[float], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        write_prompt(COMPACT, values)
    assert "\n" not in str(caught.value)


def test_the_numbers_of_a_prompt_are_not_taken_for_the_events() -> None:
    known = ["300 400 50 20 10 10:", "500 100 20 30 30 40:"]
    refuse_unlike(COMPACT, [3240, 413, 49, 230, 1.3, 3.0], known)
    refuse_unlike(COMPACT, [9900, 413, 49, 230, 1.3, 3.0], known)  # tails are longer than samples
    with pytest.raises(
        BadInput, match=r"^mjj 324: the training's events have 3,000 to 5,000\. Give mjj \[GeV\]"
    ):
        refuse_unlike(COMPACT, [324, 413, 49, 23, 13, 50], known)
    with pytest.raises(BadInput, match=r"^n_particles 23: "):
        refuse_unlike(COMPACT, [3240, 413, 49, 23, 1.3, 5.0], known)


@pytest.mark.parametrize(
    "prompt",
    ["324 413 49 23 13 50", "1 2:", "324 413 49 23 13 x:", "", "1 2 3 4 5 6:\n", "\uff11 2 3 4 5 6:"],
)
def test_a_prompt_of_another_form_is_refused(prompt: str) -> None:
    check_prompt(COMPACT, "324 413 49 23 13 50:")
    with pytest.raises(BadInput, match="is no prompt of template compact: 6 whole numbers and a colon"):
        check_prompt(COMPACT, prompt)


def test_a_diary_has_no_row_of_numbers() -> None:
    diary = describe_template("diary", FULL)
    check_prompt(diary, "[INST] Classify ...[/INST]")
    assert values_of(diary, "[INST] Classify ...[/INST]") is None
    with pytest.raises(BadInput, match="is no prompt of template diary"):
        check_prompt(diary, "324 413:")
    with pytest.raises(BadInput, match="hold jets, not a row of numbers"):
        write_prompt(diary, [1.0])


def test_prompts_are_read_back_to_their_numbers() -> None:
    assert read_numbers(["1 2 3:", "-4 5 6:"]).tolist() == [[1, 2, 3], [-4, 5, 6]]

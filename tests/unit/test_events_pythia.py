"""Generating events with Pythia 8: parts, their trigger, and the file that is mixed from them."""

import subprocess
import sys

import fastjet
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhcq.config import GenerateConfig
from lhcq.errors import BadInput, TransientError
from lhcq.events import generator
from lhcq.events.layout import open_event_file, read_rows
from lhcq.events.pythia import (
    EVENTS_PER_PART,
    GeneratePart,
    assemble,
    generate_part,
    plan_parts,
    read_part,
    write_part,
)

counts = st.integers(0, 20 * EVENTS_PER_PART)
seeds = st.integers(0, 2**31 - 1)


@given(background=counts, signal=counts, seed=seeds)
def test_parts_hold_every_event_of_one_class_each(background, signal, seed):
    parts = plan_parts(GenerateConfig(background=background, signal=signal, seed=seed))

    assert [part.index for part in parts] == list(range(len(parts)))
    assert sum(part.n_events for part in parts if part.label == 0) == background
    assert sum(part.n_events for part in parts if part.label == 1) == signal
    assert all(1 <= part.n_events <= EVENTS_PER_PART for part in parts)


@given(background=counts, signal=counts, seed=seeds)
def test_no_two_parts_share_a_seed_and_all_are_pythias(background, signal, seed):
    parts_seeds = [
        part.seed for part in plan_parts(GenerateConfig(background=background, signal=signal, seed=seed))
    ]
    assert len(set(parts_seeds)) == len(parts_seeds)
    assert all(1 <= part_seed <= 900_000_000 for part_seed in parts_seeds)


@given(background=counts, signal=counts, more=counts, seed=seeds)
def test_a_class_does_not_change_with_the_size_of_the_other(background, signal, more, seed):
    def signal_of(background):
        parts = plan_parts(GenerateConfig(background=background, signal=signal, seed=seed))
        return [(part.seed, part.n_events) for part in parts if part.label == 1]

    assert signal_of(background) == signal_of(background + more)


@given(seed=st.integers(0, 2**31 - 2))
def test_another_seed_gives_other_seeds(seed):
    first, second = (
        plan_parts(GenerateConfig(background=1, signal=1, seed=value)) for value in (seed, seed + 1)
    )
    assert {part.seed for part in first}.isdisjoint(part.seed for part in second)


def leading_central_jet(particles):
    """pt (GeV) of the hardest anti-kt R=1 jet with |eta| < 2.5."""
    pt, eta, phi = particles[particles[:, 0] > 0].T
    momenta = np.column_stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)])
    sequence = fastjet.ClusterSequence(
        [fastjet.PseudoJet(*momentum) for momentum in momenta.tolist()],
        fastjet.JetDefinition(fastjet.antikt_algorithm, 1.0),
    )
    return max(jet.pt() for jet in sequence.inclusive_jets(100.0) if abs(jet.eta()) < 2.5)


@pytest.fixture(scope="module")
def generated():
    """A small part of each class."""
    return {
        label: generate_part(GeneratePart(index=label, label=label, n_events=20, seed=1000 + label))
        for label in (0, 1)
    }


@pytest.mark.parametrize("label", [0, 1])
def test_generated_events_have_the_layout_of_the_released_ones(generated, label):
    particles, labels = generated[label]
    pt, eta, phi = np.moveaxis(particles, 2, 0)
    filled = pt > 0

    assert particles.shape == (20, 700, 3)
    assert labels.tolist() == [label] * 20
    np.testing.assert_array_equal(particles.astype(np.float32), particles)
    assert filled.sum(axis=1).min() > 20
    assert np.abs(eta).max() <= 5
    assert np.abs(phi).max() <= np.float32(np.pi)
    np.testing.assert_array_equal(particles[~filled], 0)


@pytest.mark.parametrize("label", [0, 1])
def test_every_generated_event_passes_the_trigger(generated, label):
    particles, _ = generated[label]
    jets = [leading_central_jet(event) for event in particles]
    assert min(jets) > 1200 * (1 - 1e-6), "rounding to float32 moves a jet by 1e-7 of its pt"


def test_signal_events_hold_the_two_resonances(generated):
    """The two jets of a signal event carry most of 3.5 TeV; dijets of the background only sometimes do."""

    def visible_mass(event):
        pt, eta, phi = event.T
        momentum = np.array([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]).sum(axis=1)
        return np.sqrt((pt * np.cosh(eta)).sum() ** 2 - (momentum**2).sum())

    masses = [visible_mass(event) for event in generated[1][0]]
    assert 3000 < np.median(masses) < 5500


def test_a_part_is_the_same_whenever_it_is_made(generated):
    particles, labels = generate_part(GeneratePart(index=7, label=0, n_events=20, seed=1000))
    np.testing.assert_array_equal(particles, generated[0][0])
    np.testing.assert_array_equal(labels, generated[0][1])


def test_without_the_detector_the_particles_are_the_generated_ones(generated):
    """More of them, since a detector merges them in towers and does not see the softest."""
    part = GeneratePart(index=0, label=1, n_events=20, seed=1001, detector=False)
    particles, labels = generate_part(part)
    assert labels.tolist() == [1] * 20
    assert (particles[..., 0] > 0).sum() > 1.4 * (generated[1][0][..., 0] > 0).sum()
    assert min(leading_central_jet(event) for event in particles) > 1200 * (1 - 1e-6)


@pytest.fixture
def failing_pythia(monkeypatch):
    """Energy checks so strict that every few events Pythia refuses its own, at both levels."""
    strict = (*generator.COMMON_CARD, "Check:epTolErr = 1e-11", "Check:epTolWarn = 1e-11")
    monkeypatch.setattr(generator, "COMMON_CARD", strict)


def test_pythia_does_fail_in_both_steps_under_that_card(failing_pythia):
    pythia = generator.Generator(label=1, seed=5)._pythia
    outcomes = {pythia.next() and ("made" if pythia.forceHadronLevel() else "hadrons") for _ in range(150)}
    assert outcomes == {False, "hadrons", "made"}


@pytest.mark.parametrize("label", [0, 1])
def test_failures_in_pythia_neither_lose_nor_duplicate_an_event(failing_pythia, label):
    parts = [GeneratePart(index=k, label=label, n_events=40, seed=50 + k) for k in range(2)]
    made = [generate_part(part) for part in parts]
    events = np.concatenate([particles for particles, _ in made]).reshape(80, -1)

    assert [labels.tolist() for _, labels in made] == [[label] * 40] * 2
    assert (events[:, 0] > 0).all()
    assert len(np.unique(events, axis=0)) == 80
    again, _ = generate_part(parts[1])
    np.testing.assert_array_equal(again, made[1][0])


def test_an_event_of_more_than_700_particles_keeps_the_hardest_in_their_order():
    pt = np.random.Generator(np.random.PCG64(1)).permutation(np.arange(1.0, 1001.0))
    kept = generator._hardest(np.column_stack([pt, np.zeros(1000), np.zeros(1000)]))
    np.testing.assert_array_equal(kept[:, 0], pt[pt > 300])


def test_another_seed_gives_other_events(generated):
    particles, _ = generate_part(GeneratePart(index=0, label=1, n_events=2, seed=1002))
    assert not np.array_equal(particles, generated[1][0][:2])


def test_too_many_failed_tries_are_an_error_worth_a_retry():
    with pytest.raises(TransientError, match="events passed the trigger in 30 tries"):
        generate_part(GeneratePart(index=0, label=0, n_events=30, seed=5), tries_per_event=1)


def test_generation_prints_nothing():
    program = (
        "from lhcq.events.pythia import *\n"
        "for label in (0, 1):\n"
        "    generate_part(GeneratePart(index=0, label=label, n_events=1, seed=3))\n"
        "print('the end')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "the end\n"
    assert done.stderr == ""


def test_without_pythia_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    with pytest.raises(BadInput, match=r"Run: .*pip install .*\[generate\]'"):
        generate_part(GeneratePart(index=0, label=0, n_events=1, seed=5))


def test_planning_needs_no_pythia(monkeypatch):
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    assert len(plan_parts(GenerateConfig(background=1, signal=1))) == 2


def test_a_stored_part_is_read_back_and_has_equal_bytes(tmp_path, generated):
    particles, labels = generated[1]
    for name in ("first", "second"):
        write_part(tmp_path / name, particles, labels)

    stored_particles, stored_labels = read_part(tmp_path / "first")

    np.testing.assert_array_equal(stored_particles, particles)
    np.testing.assert_array_equal(stored_labels, labels)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def make_part(path, part):
    """Write a part whose events can be told apart: the first pt is the event's number in its class's parts."""
    particles = np.zeros((part.n_events, 700, 3))
    particles[:, 0, 0] = 1 + 1000 * part.index + np.arange(part.n_events)
    write_part(path, particles, np.full(part.n_events, part.label, dtype=np.int8))


def make_parts(directory, config, *, backwards=False):
    parts = plan_parts(config)
    paths = [directory / f"{part.index}.npy" for part in parts]
    for part in reversed(parts) if backwards else parts:
        make_part(paths[part.index], part)
    return parts, paths


def test_the_file_holds_every_event_of_the_parts_once_and_mixed(tmp_path):
    config = GenerateConfig(background=1300, signal=450, seed=3)
    parts, paths = make_parts(tmp_path, config)
    assemble(config, paths, tmp_path / "events.h5")

    file = open_event_file(tmp_path / "events.h5")
    block = read_rows(file, 0, file.n_events)

    expected = [
        (1.0 + 1000 * part.index + event, part.label) for part in parts for event in range(part.n_events)
    ]
    numbers = block.particles[:, 0, 0].tolist()
    assert sorted(zip(numbers, block.labels.tolist(), strict=True)) == sorted(expected)
    assert numbers != sorted(numbers)
    for half in (block.labels[:875], block.labels[875:]):
        assert 150 < half.sum() < 300


def test_the_file_does_not_depend_on_the_order_in_which_parts_were_made(tmp_path):
    config = GenerateConfig(background=450, signal=250, seed=3)
    for name, backwards in (("a", False), ("b", True)):
        (tmp_path / name).mkdir()
        _, paths = make_parts(tmp_path / name, config, backwards=backwards)
        assemble(config, paths, tmp_path / f"{name}.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_another_seed_mixes_otherwise(tmp_path):
    for seed in (1, 2):
        config = GenerateConfig(background=40, signal=40, seed=seed)
        _, paths = make_parts(tmp_path, config)
        assemble(config, paths, tmp_path / f"{seed}.h5")
    assert (tmp_path / "1.h5").read_bytes() != (tmp_path / "2.h5").read_bytes()


def test_a_file_that_stands_is_left_as_it_is(tmp_path):
    config = GenerateConfig(background=5, signal=5)
    _, paths = make_parts(tmp_path, config)
    (tmp_path / "events.h5").write_text("here before")
    assemble(config, paths, tmp_path / "events.h5")
    assert (tmp_path / "events.h5").read_text() == "here before"
    assert not list(tmp_path.glob(".*"))


def test_nothing_to_generate_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no events to generate"):
        assemble(GenerateConfig(background=0, signal=0), [], tmp_path / "events.h5")


def write_short_part(path):
    make_part(path, GeneratePart(index=0, label=0, n_events=4, seed=1))


def write_part_of_the_other_class(path):
    make_part(path, GeneratePart(index=0, label=1, n_events=5, seed=1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: None, "a damaged chunk, or none"),
        (lambda path: path.write_bytes(b""), "a damaged chunk, or none"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01"), "a damaged chunk, or none"),
        (lambda path: path.write_text("rubbish"), "a damaged chunk, or none"),
        (lambda path: np.save(path, np.zeros((5, 3))), "a damaged chunk, or none"),
        (write_short_part, "holds 4 events"),
        (write_part_of_the_other_class, "of class 0 planned"),
    ],
    ids=["missing", "empty", "truncated", "text", "another array", "too short", "wrong class"],
)
def test_a_part_that_is_not_what_was_planned_is_refused_and_nothing_written(tmp_path, spoil, message):
    config = GenerateConfig(background=5, signal=5)
    _, paths = make_parts(tmp_path, config)
    paths[0].unlink()
    spoil(paths[0])
    with pytest.raises(BadInput, match=message):
        assemble(config, paths, tmp_path / "events.h5")
    assert not (tmp_path / "events.h5").exists()


def test_a_missing_path_is_refused(tmp_path):
    config = GenerateConfig(background=5, signal=5)
    _, paths = make_parts(tmp_path, config)
    with pytest.raises(BadInput, match="1 chunks were given and 2 planned"):
        assemble(config, paths[:1], tmp_path / "events.h5")

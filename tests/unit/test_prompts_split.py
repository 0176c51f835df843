import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhcq.config import SplitConfig
from lhcq.errors import BadInput
from lhcq.prompts.split import SHARES, assign_subsets, count_events, select

keys = st.text("0123456789abcdef", min_size=1, max_size=64)
class_sizes = st.integers(7, 3000)
seeds = st.integers(0, 2**31 - 1)


def make_labels(n_signal: int, n_background: int, seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.array([1, 0], np.int8), [n_signal, n_background])
    return np.random.default_rng(seed).permutation(labels)


def assign(labels: np.ndarray, key: str = "ab") -> np.ndarray:
    return assign_subsets(np.arange(len(labels)), labels, dataset_key=key)


@given(n_signal=class_sizes, n_background=class_sizes, key=keys)
def test_every_part_has_its_share_of_each_class_to_within_one_event(n_signal, n_background, key):
    labels = make_labels(n_signal, n_background)
    parts = assign(labels, key)
    for label in (0, 1):
        counts = np.bincount(parts[labels == label], minlength=len(SHARES))
        assert counts.sum() == (labels == label).sum()
        for count, percent in zip(counts, SHARES.values(), strict=True):
            assert abs(count - percent / 100 * counts.sum()) <= 1


@given(n_signal=class_sizes, n_background=class_sizes, key=keys, seed=seeds)
def test_the_part_of_a_row_does_not_depend_on_where_the_row_stands(n_signal, n_background, key, seed):
    labels = make_labels(n_signal, n_background)
    order = np.random.default_rng(seed).permutation(len(labels))
    np.testing.assert_array_equal(
        assign_subsets(order, labels[order], dataset_key=key), assign(labels, key)[order]
    )


def test_another_source_gets_other_parts():
    labels = make_labels(500, 500)
    shared = (assign(labels, "a") == assign(labels, "b")).mean()
    # The chance that two independent draws agree is the sum of the squared shares, 0.415.
    assert shared == pytest.approx(0.415, abs=0.08)


def test_parts_do_not_follow_the_order_of_rows():
    parts = assign(make_labels(5000, 5000))
    for code in range(len(SHARES)):
        assert np.flatnonzero(parts == code).mean() == pytest.approx(5000, abs=250)


ratios = st.one_of(st.just("natural"), st.integers(1, 10).map(lambda k: f"1:{k}"))
configs = st.builds(SplitConfig, ratio=ratios, seed=seeds, limit=st.one_of(st.none(), st.integers(400, 5000)))


@given(st.integers(200, 1000), st.integers(1000, 5000), configs, configs)
def test_parts_are_disjoint_within_a_split_and_across_splits(n_signal, n_background, one, other):
    labels = make_labels(n_signal, n_background)
    parts = assign(labels)
    first, second = select(parts, labels, one), select(parts, labels, other)
    for name, events in first.items():
        assert len(set(events.tolist())) == len(events)
        for stranger in set(SHARES) - {name}:
            assert not set(events.tolist()) & set(first[stranger].tolist())
            assert not set(events.tolist()) & set(second[stranger].tolist())


@given(st.integers(200, 1000), st.integers(1000, 5000), configs)
def test_a_split_keeps_its_ratio_and_its_limit_in_every_part(n_signal, n_background, config):
    labels = make_labels(n_signal, n_background)
    parts = assign(labels)
    chosen = select(parts, labels, config)
    assert tuple(chosen) == tuple(SHARES)
    total = sum(len(events) for events in chosen.values())
    assert config.limit is None or total <= config.limit
    for code, events in enumerate(chosen.values()):
        assert (parts[events] == code).all()
        signal = int(labels[events].sum())
        background = len(events) - signal
        if config.background_per_signal is not None:
            assert background == config.background_per_signal * signal
        else:
            in_part = labels[parts == code]
            assert abs(signal - len(events) * in_part.mean()) <= 1


@given(configs)
def test_the_same_configuration_gives_the_same_events_in_the_same_order(config):
    labels = make_labels(300, 3000)
    parts = assign(labels)
    for one, other in zip(
        select(parts, labels, config).values(), select(parts, labels, config).values(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_seed_changes_the_order_and_mixes_the_classes():
    labels = make_labels(300, 300)
    parts = assign(labels)
    first = select(parts, labels, SplitConfig(seed=1))["train"]
    second = select(parts, labels, SplitConfig(seed=2))["train"]
    assert set(first.tolist()) == set(second.tolist())
    assert first.tolist() != second.tolist()
    assert labels[first[: len(first) // 2]].mean() == pytest.approx(0.5, abs=0.15)


def test_without_a_limit_the_natural_ratio_takes_everything():
    labels = make_labels(93, 907)
    chosen = select(assign(labels), labels, SplitConfig(ratio="natural"))
    assert sorted(np.concatenate(list(chosen.values())).tolist()) == list(range(1000))
    assert [len(events) for events in chosen.values()] == [600, 150, 100, 150]


def test_the_limit_is_shared_by_the_shares_of_the_parts():
    labels = make_labels(1000, 1000)
    chosen = select(assign(labels), labels, SplitConfig(limit=200))
    assert {name: len(events) for name, events in chosen.items()} == {
        "train": 120,
        "validation": 30,
        "calibration": 20,
        "test": 30,
    }


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((93, 907, 1, None), (93, 93)),
        ((93, 907, 10, None), (90, 900)),
        ((93, 907, 1, 50), (25, 25)),
        ((93, 907, 10, 50), (4, 40)),
        ((93, 907, None, None), (93, 907)),
        ((93, 907, None, 100), (9, 91)),
        ((907, 93, 1, 1000), (93, 93)),
        ((0, 907, 1, None), (0, 0)),
    ],
)
def test_as_many_events_are_taken_as_the_scarcer_class_and_the_limit_allow(numbers, expected):
    assert count_events(*numbers) == expected


def test_seven_events_of_each_class_are_enough_for_every_part():
    labels = make_labels(7, 7)
    assert all(len(events) >= 2 for events in select(assign(labels), labels, SplitConfig()).values())


@pytest.mark.parametrize(
    ("counts", "config", "message"),
    [
        ((3, 907), {}, r"of 3 signal and 907 background events, --ratio 1:1 would leave .* validation 0\+0"),
        ((0, 50), {"ratio": "natural"}, r"train 0\+30"),
        (
            (50, 900),
            {"ratio": "1:10", "limit": 40},
            r"--ratio 1:10 and --limit 40 would leave .*higher limit",
        ),
        ((10, 5000), {"ratio": "natural", "limit": 20}, "every subset needs both"),
    ],
)
def test_too_few_events_are_refused_with_the_counts_and_a_remedy(counts, config, message):
    labels = make_labels(*counts)
    with pytest.raises(BadInput, match=message):
        select(assign(labels), labels, SplitConfig(**config))


def test_events_without_a_label_are_in_no_part_and_move_no_other_event():
    labels = make_labels(300, 900)
    rows = np.arange(2 * len(labels))
    mixed = np.full(len(rows), -1, np.int8)
    mixed[::2] = labels
    parts = assign_subsets(rows, mixed, dataset_key="ab")
    assert (parts[1::2] == -1).all()
    np.testing.assert_array_equal(parts[::2], assign_subsets(rows[::2], labels, dataset_key="ab"))
    for events in select(parts, mixed, SplitConfig(ratio="natural")).values():
        assert (mixed[events] >= 0).all()


def test_a_dataset_without_any_label_is_refused_with_the_remedy():
    with pytest.raises(BadInput, match=r"none of its 4 events has a label.* master key: --labels KEY"):
        assign_subsets(np.arange(4), np.full(4, -1, np.int8), dataset_key="ab")
    labels = np.array([0, 0, -1, -1], np.int8)
    parts = assign_subsets(np.arange(4), labels, dataset_key="ab")
    with pytest.raises(BadInput, match="of 0 signal and 2 background events"):
        select(parts, labels, SplitConfig())


@given(st.integers(300, 1000), st.integers(1000, 3000), configs)
def test_a_file_sorted_by_label_is_split_as_well_as_a_mixed_one(n_signal, n_background, config):
    labels = np.repeat(np.array([0, 1], np.int8), [n_background, n_signal])  # background first, signal last
    parts = assign(labels)
    for code, percent in enumerate(SHARES.values()):
        for label in (0, 1):
            rows = np.flatnonzero((labels == label) & (parts == code))
            first, last = np.flatnonzero(labels == label)[[0, -1]]
            assert abs(len(rows) - percent / 100 * (last - first + 1)) <= 1
            # Spread over the whole range of its class: the mean of k uniform rows, within five standard deviations.
            spread = (last - first + 1) / np.sqrt(12 * len(rows))
            assert abs(rows.mean() - (first + last) / 2) < 5 * spread
    train = labels[select(parts, labels, config)["train"]]
    # Events in random order change class about 2 p (1 - p) of the times; in order of label, once.
    assert np.count_nonzero(np.diff(train)) > len(train) * train.mean() * (1 - train.mean())

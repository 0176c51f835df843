import math

import numpy as np
import pyarrow as pa

from lhcq.prompts.features import FEATURES, compute_features, flatten_jets

LIGHT = {"pt": 1300.0, "m": 100.0, "n_constituents": 30}
HEAVY = {"pt": 1250.0, "m": 500.0, "n_constituents": 80}
THIRD = {"pt": 40.0, "m": 900.0, "n_constituents": 5}


def make_records(*lists) -> pa.Table:
    n = len(lists)
    return pa.table(
        {
            "jets": pa.array(lists, pa.list_(pa.struct({"pt": "f8", "m": "f8", "n_constituents": "i4"}))),
            "mjj": pa.array([3500.0 if len(jets) > 1 else None for jets in lists], pa.float64()),
            "delta_r": pa.array([3.1 if len(jets) > 1 else None for jets in lists], pa.float64()),
            "n_particles": pa.array([170] * n, pa.int32()),
            "n_jets": pa.array([7] * n, pa.int32()),
        }
    )


def test_the_two_leading_jets_are_ordered_by_mass_and_a_third_is_not_looked_at():
    for jets in ([LIGHT, HEAVY], [HEAVY, LIGHT], [LIGHT, HEAVY, THIRD]):
        features = compute_features(make_records(jets))
        assert {name: column.tolist() for name, column in features.items()} == {
            "mjj": [3500.0],
            "m_heavy": [500.0],
            "m_light": [100.0],
            "pt_heavy": [1250.0],
            "pt_light": [1300.0],
            "n_heavy": [80.0],
            "n_light": [30.0],
            "delta_r": [3.1],
            "n_particles": [170.0],
            "n_jets": [7.0],
        }


def test_features_come_in_their_order_as_floats():
    features = compute_features(make_records([LIGHT, HEAVY]))
    assert tuple(features) == FEATURES
    assert {column.dtype for column in features.values()} == {np.dtype("f8")}


def test_an_absent_jet_is_nan_and_a_single_one_is_the_heavy():
    features = compute_features(make_records([], [LIGHT], [LIGHT, HEAVY]))
    for name in ("mjj", "delta_r", "m_light", "pt_light", "n_light"):
        assert np.isnan(features[name]).tolist() == [True, True, False]
    for name in ("m_heavy", "pt_heavy", "n_heavy"):
        assert np.isnan(features[name]).tolist() == [True, False, False]
    assert features["m_heavy"][1] == 100.0


def test_a_slice_and_a_chunked_table_give_the_features_of_their_own_events():
    events = [[], [LIGHT], [LIGHT, HEAVY], [HEAVY, LIGHT, THIRD], [HEAVY]]
    whole = compute_features(make_records(*events))
    sliced = compute_features(make_records(*events).slice(1, 3))
    chunked = compute_features(pa.concat_tables([make_records(*events[:2]), make_records(*events[2:])]))
    for name in FEATURES:
        np.testing.assert_array_equal(sliced[name], whole[name][1:4])
        np.testing.assert_array_equal(chunked[name], whole[name])


def test_no_events_give_empty_columns():
    assert {len(column) for column in compute_features(make_records()).values()} == {0}
    assert flatten_jets(make_records().slice(0, 0))[0].tolist() == [0]


def test_jets_are_flattened_with_the_offsets_of_their_events():
    offsets, jets = flatten_jets(make_records([], [LIGHT], [LIGHT, HEAVY]))
    assert offsets.tolist() == [0, 0, 1, 3]
    assert jets["m"].tolist() == [100.0, 100.0, 500.0]
    assert math.isclose(jets["pt"].sum(), 3850.0)

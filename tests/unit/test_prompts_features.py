import math

import numpy as np
import pyarrow as pa

from lhcq.prompts.features import (
    FEATURES,
    RATIOS,
    compute_features,
    features_of,
    flatten_jets,
    record_columns,
)
from lhcq.records.events import schema_of

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
    records = make_records([LIGHT, HEAVY])
    features = compute_features(records)
    assert list(features) == [one.name for one in FEATURES if one.name in features]
    assert list(features) == [one.name for one in features_of(records.schema)]
    assert {column.dtype for column in features.values()} == {np.dtype("f8")}


def test_a_dataset_has_the_features_that_its_columns_make():
    of_jets = [one.name for one in features_of(schema_of("jets"))]
    of_full = [one.name for one in features_of(schema_of("full"))]
    assert of_full == [one.name for one in FEATURES]
    assert set(of_full) - set(of_jets) == {"delta_eta", "h_t"} | {
        f"{name}_{jet}"
        for name in ("tau21", "tau32", "tau43", "m_sd", "z_g", "width", "z1", "z2", "c2", "d2")
        for jet in ("heavy", "light")
    }
    assert [one.name for one in features_of(make_records().drop_columns(["n_jets", "mjj"]).schema)] == [
        "m_heavy", "m_light", "pt_heavy", "pt_light", "n_heavy", "n_light", "delta_r", "n_particles",
    ]  # fmt: skip


def test_every_column_of_a_record_is_a_feature_or_known_not_to_be():
    # Whoever adds a column decides whether trees and prompts shall see it.
    made = {column for one in FEATURES for column in one.columns}
    jet = schema_of("full").field("jets").type.value_type
    columns = {jet.field(index).name for index in range(jet.num_fields)} | set(schema_of("full").names)
    assert made <= columns
    assert columns - made == {"row", "label", "jets", "eta", "phi", "px", "py", "pz", "e"}


def test_only_what_prompts_and_features_need_is_read_of_a_dataset():
    strange = schema_of("jets").append(pa.field("weather", pa.string()))
    assert record_columns(strange) == schema_of("jets").names


def test_a_ratio_belongs_to_its_jet_and_is_missing_where_the_denominator_is_zero_or_absent():
    kind = pa.list_(pa.struct({"m": "f8", "tau1": "f8", "tau2": "f8"}))
    one, two = {"m": 10.0, "tau1": 8.0, "tau2": 2.0}, {"m": 20.0, "tau1": 4.0, "tau2": 3.0}
    single, unmeasured = {"m": 0.0, "tau1": 0.0, "tau2": 0.0}, {"m": 30.0, "tau1": None, "tau2": None}
    jets = pa.array([[one, two], [two, one], [one], [one, single], [unmeasured, one], []], kind)
    features = compute_features(pa.table({"jets": jets}))
    assert list(features) == ["m_heavy", "m_light", "tau21_heavy", "tau21_light"]
    nan = math.nan
    np.testing.assert_array_equal(features["tau21_heavy"], [0.75, 0.75, 0.25, 0.25, nan, nan])
    np.testing.assert_array_equal(features["tau21_light"], [0.25, 0.25, nan, nan, 0.25, nan])


def test_a_mass_over_pt_is_of_one_and_the_same_jet_and_computed_only_when_asked_for():
    records = make_records([LIGHT, HEAVY], [LIGHT], [])
    features = compute_features(records, RATIOS)
    assert list(features) == ["m_over_pt_heavy", "m_over_pt_light"]  # no groomed masses here
    np.testing.assert_array_equal(features["m_over_pt_heavy"], [500 / 1250, 100 / 1300, math.nan])
    np.testing.assert_array_equal(features["m_over_pt_light"], [100 / 1300, math.nan, math.nan])
    assert not set(features) & set(compute_features(records))


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
    for name in whole:
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

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model.plan import (
    balanced_rows,
    checkpoints_after,
    class_weights,
    learning_rate_at,
    plan_run,
    recommended_learning_rate,
    step_rows,
)

configs = st.builds(
    TrainConfig,
    batch_size=st.integers(1, 9),
    accumulation=st.integers(1, 5),
    epochs=st.sampled_from([0.3, 0.5, 1.0, 1.5, 2.0, 3.0]),
    max_steps=st.none() | st.integers(1, 40),
    checkpoints=st.integers(1, 12),
    checkpoint_every=st.none() | st.integers(1, 50),
    warmup_fraction=st.floats(0.0, 0.99),
    schedule=st.sampled_from(["cosine", "constant"]),
    seed=st.integers(0, 1000),
)
sizes = st.integers(1, 120)


@given(sizes, configs)
def test_the_last_checkpoint_is_the_end_of_the_run(n_train, config):
    plan = plan_run(n_train, config)
    assert plan.checkpoint_steps[-1] == plan.total_steps
    assert list(plan.checkpoint_steps) == sorted(set(plan.checkpoint_steps))
    assert plan.checkpoint_steps[0] >= 1
    if config.checkpoint_every is None:
        assert len(plan.checkpoint_steps) == min(config.checkpoints, plan.total_steps)


def test_a_share_of_an_epoch_is_not_a_prompt_longer_for_the_rounding_of_its_number():
    config = TrainConfig(batch_size=1, accumulation=1, epochs=0.1 + 0.2)
    assert plan_run(10, config).total_steps == 3
    assert plan_run(10, config.model_copy(update={"epochs": 0.31})).total_steps == 4


@given(sizes, configs, st.integers(0, 200))
def test_the_checkpoints_to_come_are_those_after_a_step(n_train, config, step):
    plan = plan_run(n_train, config)
    assert checkpoints_after(step, plan) == tuple(at for at in plan.checkpoint_steps if at > step)


@given(sizes, configs)
def test_every_sample_comes_once_an_epoch(n_train, config):
    plan = plan_run(n_train, config)
    steps = [step_rows(step, n_train, config) for step in range(1, plan.total_steps + 1)]
    stream = np.concatenate(steps)
    for start in range(0, len(stream), n_train):
        epoch = stream[start : start + n_train]
        assert len(set(epoch.tolist())) == len(epoch)
        assert epoch.min() >= 0
        assert epoch.max() < n_train
    if config.max_steps is None:
        assert len(stream) == pytest.approx(config.epochs * n_train, abs=1)


@given(sizes, configs)
def test_only_the_last_step_of_a_run_may_be_short(n_train, config):
    plan = plan_run(n_train, config)
    window = config.batch_size * config.accumulation
    sizes_of = [len(step_rows(step, n_train, config)) for step in range(1, plan.total_steps + 1)]
    assert set(sizes_of[:-1]) <= {window}
    assert 1 <= sizes_of[-1] <= window


def test_two_epochs_have_different_orders_and_a_seed_gives_the_same_again():
    config = TrainConfig(batch_size=50, epochs=2.0, seed=3)
    first, second = (step_rows(step, 50, config) for step in (1, 2))
    assert first.tolist() != second.tolist()
    assert first.tolist() == step_rows(1, 50, config).tolist()
    assert first.tolist() != step_rows(1, 50, config.model_copy(update={"seed": 4})).tolist()


@given(sizes, configs, st.floats(1e-6, 1.0))
def test_the_rate_rises_to_its_peak_and_falls_but_never_to_zero(n_train, config, peak):
    plan = plan_run(n_train, config)
    rates = [learning_rate_at(step, plan, config, peak) for step in range(1, plan.total_steps + 1)]
    top = plan.warmup_steps
    assert rates[top] == pytest.approx(peak)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)


@given(st.lists(st.integers(0, 1), min_size=2).filter(lambda bits: len(set(bits)) == 2))
def test_class_weights_average_to_one_and_balance_the_classes(bits):
    labels = np.array(bits)
    weights = np.array(class_weights(labels))[labels]
    assert weights.mean() == pytest.approx(1.0)
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum())


def test_a_single_class_cannot_be_trained_on():
    with pytest.raises(BadInput, match="3 background and 0 signal"):
        class_weights(np.zeros(3, dtype=np.int64))


def test_no_prompts_make_no_plan():
    with pytest.raises(BadInput, match="no prompt"):
        plan_run(0, TrainConfig())


def test_a_small_model_gets_the_large_rate(smollm2):
    assert recommended_learning_rate(smollm2) == 1e-3


@given(st.integers(2, 40), st.integers(1, 39), st.integers(1, 5), st.integers(1, 3), st.integers(0, 9))
def test_balanced_steps_take_both_classes_in_turn_and_each_event_before_any_again(
    n_train, n_signal, batch_size, accumulation, seed
):
    labels = (
        np.random.default_rng(seed).permutation(np.arange(n_train) < min(n_signal, n_train - 1)).astype(int)
    )
    config = TrainConfig(
        batch_size=batch_size, accumulation=accumulation, epochs=2, seed=seed, sampling="balanced"
    )
    plan = plan_run(n_train, config)
    steps = [balanced_rows(step, labels, config) for step in range(1, plan.total_steps + 1)]
    assert [len(rows) for rows in steps] == [
        len(step_rows(step, n_train, config)) for step in range(1, plan.total_steps + 1)
    ]
    rows = np.concatenate(steps)
    assert labels[rows].tolist() == [place % 2 for place in range(len(rows))]
    for bit in (0, 1):
        times = np.bincount(rows[labels[rows] == bit], minlength=n_train)[labels == bit]
        assert times.max() - times.min() <= 1


def test_balanced_sampling_needs_both_classes():
    with pytest.raises(BadInput, match="both classes"):
        balanced_rows(1, np.ones(8, dtype=int), TrainConfig())

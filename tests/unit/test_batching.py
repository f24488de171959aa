"""Planning of batches: every promise of `plan` for any input."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferstack.batching import Batch, CostFit, CostModel, Limits, partition, plan, seconds


@dataclass(frozen=True)
class Work:
    """A claimed task."""

    number: int
    cost: float = 1.0
    rank: int = 1
    suspect: bool = False


costs = st.integers(min_value=1, max_value=300).map(float)
models = st.builds(
    CostModel,
    st.floats(min_value=0, max_value=10, allow_nan=False),
    st.floats(min_value=0, max_value=1, allow_nan=False),
)


@st.composite
def windows(draw: st.DrawFn, *, suspects: bool = True) -> list[Work]:
    """A claimed window."""
    rows = draw(
        st.lists(
            st.tuples(costs, st.integers(0, 2), st.booleans() if suspects else st.just(False)),
            max_size=80,
        )
    )
    return [Work(i, cost, rank, suspect) for i, (cost, rank, suspect) in enumerate(rows)]


def chunks(items: list[Work], size: int) -> list[Batch[Work]]:
    """First come, first served."""
    parts = [items[i : i + size] for i in range(0, len(items), size)]
    return [Batch(part, max(item.cost for item in part)) for part in parts]


limits = st.builds(
    Limits, st.integers(1, 40), st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from([0.0, 0.1])
)


@given(windows(), limits, models)
def test_every_task_is_in_exactly_one_batch(
    window: list[Work], limits: Limits, model: CostModel
) -> None:
    numbers = [item.number for batch in plan(window, limits, model) for item in batch.items]
    assert sorted(numbers) == [item.number for item in window]


@given(windows(), limits, models)
def test_batches_respect_the_limits_and_know_their_longest(
    window: list[Work], limits: Limits, model: CostModel
) -> None:
    for batch in plan(window, limits, model):
        assert 1 <= len(batch.items) <= limits.max_size
        assert batch.longest == max(item.cost for item in batch.items)


@given(windows(), limits, models)
def test_suspects_run_alone_and_last(window: list[Work], limits: Limits, model: CostModel) -> None:
    batches = plan(window, limits, model)
    exclusive = [batch.exclusive for batch in batches]
    assert exclusive == sorted(exclusive)
    for batch in batches:
        assert batch.exclusive == any(item.suspect for item in batch.items)
        assert len(batch.items) == 1 or not batch.exclusive


@given(windows(suspects=False), limits, models)
def test_batches_run_in_the_order_of_their_highest_lane(
    window: list[Work], limits: Limits, model: CostModel
) -> None:
    ranks = [min(item.rank for item in batch.items) for batch in plan(window, limits, model)]
    assert ranks == sorted(ranks)


@given(windows(suspects=False), st.integers(1, 40), models)
def test_a_partition_is_never_slower_than_arrival_order_or_one_batch(
    window: list[Work], size: int, model: CostModel
) -> None:
    limits = Limits(size, max_seconds=math.inf)
    taken = seconds(partition(window, limits, model), model)
    assert taken <= seconds(chunks(window, size), model) * (1 + 1e-9)
    by_cost = sorted(window, key=lambda item: item.cost)
    assert taken <= seconds(chunks(by_cost, size), model) * (1 + 1e-9)


@given(st.lists(costs, max_size=9), st.integers(1, 9), models)
def test_a_partition_is_the_best_of_all(window: list[float], size: int, model: CostModel) -> None:
    items = sorted((Work(i, cost) for i, cost in enumerate(window)), key=lambda w: w.cost)

    def best(rest: list[Work]) -> float:
        if not rest:
            return 0.0
        return min(
            model.seconds(n, rest[n - 1].cost) + best(rest[n:])
            for n in range(1, min(size, len(rest)) + 1)
        )

    limits = Limits(size, max_seconds=math.inf)
    taken = seconds(partition(items, limits, model), model)
    assert taken == pytest.approx(best(items))


@given(windows(suspects=False), st.integers(1, 40), models, st.floats(0.01, 0.5))
def test_slack_bounds_what_earlier_results_cost(
    window: list[Work], size: int, model: CostModel, slack: float
) -> None:
    least = seconds(partition(window, Limits(size), model), model)
    taken = seconds(partition(window, Limits(size, slack=slack), model), model)
    assert taken <= least * (1 + slack) + 1e-9


@given(windows(suspects=False), st.integers(1, 40), models)
def test_lanes_apart_cost_at_most_their_slack(
    window: list[Work], size: int, model: CostModel
) -> None:
    limits = Limits(size, lane_slack=0.1)
    merged = seconds(partition(window, limits, model), model)
    assert seconds(plan(window, limits, model), model) <= merged * 1.1 + 1e-9


def test_equal_costs_that_fit_are_one_batch() -> None:
    (batch,) = plan([Work(i, 16.0) for i in range(32)], Limits(32), CostModel())
    assert [item.number for item in batch.items] == list(range(32))


@given(windows(), limits, models)
def test_a_batch_of_several_is_predicted_to_end_in_time(
    window: list[Work], limits: Limits, model: CostModel
) -> None:
    for batch in plan(window, limits, model):
        taken = model.rate * len(batch.items) * batch.longest
        assert len(batch.items) == 1 or taken <= limits.max_seconds * (1 + 1e-9)


def test_large_inputs_do_not_share_a_batch_that_looks_like_a_stuck_device() -> None:
    window = [Work(i, 8192.0) for i in range(32)]
    batches = plan(window, Limits(32), CostModel(overhead=0.01, rate=1 / 2800))
    assert [len(batch.items) for batch in batches] == [3] * 10 + [2]


def test_nothing_pending_is_no_batch() -> None:
    assert plan([], Limits(32), CostModel()) == []


def test_short_inputs_do_not_pay_for_a_long_one() -> None:
    window = [Work(i, 10.0) for i in range(8)] + [Work(8, 200.0)]
    batches = plan(window, Limits(32), CostModel(overhead=1.0, rate=0.1))
    assert [len(batch.items) for batch in batches] == [8, 1]


def test_a_dear_batch_start_keeps_short_and_long_inputs_together() -> None:
    window = [Work(i, 10.0) for i in range(8)] + [Work(8, 20.0)]
    batches = plan(window, Limits(32), CostModel(overhead=100.0, rate=0.01))
    assert [len(batch.items) for batch in batches] == [9]


@given(
    st.floats(1e-4, 0.1),
    st.floats(1e-6, 1e-3),
    st.lists(st.tuples(st.integers(1, 64), costs), min_size=2, max_size=40),
)
def test_the_fit_predicts_what_it_was_shown(
    overhead: float, rate: float, shown: list[tuple[int, float]]
) -> None:
    truth, fit = CostModel(overhead, rate), CostFit()
    for n, longest in shown:
        fit.observe(n, longest, truth.seconds(n, longest))
    model = fit.model()
    assert model is not None
    assert model.overhead >= 0
    assert model.rate >= 0
    n, longest = shown[-1]
    assert model.seconds(n, longest) == pytest.approx(truth.seconds(n, longest), rel=1.0)


def test_the_fit_finds_overhead_and_rate() -> None:
    truth, fit = CostModel(0.004, 0.0002), CostFit()
    for n, longest in [(1, 16.0), (8, 16.0), (32, 16.0), (32, 128.0)]:
        fit.observe(n, longest, truth.seconds(n, longest))
    model = fit.model()
    assert model is not None
    assert model.overhead == pytest.approx(0.004, rel=0.01)
    assert model.rate == pytest.approx(0.0002, rel=0.01)


def test_the_fit_remembers_sizes_that_are_rare() -> None:
    fit = CostFit()
    fit.observe(1, 16.0, 0.010)
    for _ in range(1000):
        fit.observe(32, 16.0, 0.130)
    model = fit.model()
    assert model is not None
    assert model.seconds(1, 16.0) == pytest.approx(0.010, rel=0.05)


def test_the_fit_knows_nothing_before_the_first_measurement() -> None:
    assert CostFit().model() is None


def test_one_hiccup_hardly_moves_the_fit() -> None:
    fit = CostFit()
    for _ in range(20):
        fit.observe(32, 16.0, 0.1)
    fit.observe(32, 16.0, 100.0)
    model = fit.model()
    assert model is not None
    assert model.seconds(32, 16.0) < 0.2

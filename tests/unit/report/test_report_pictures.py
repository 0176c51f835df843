"""The pictures of a run's report: what they are drawn of, and how they look."""

import itertools
import json
import re
from functools import partial
from pathlib import Path

import hypothesis
import matplotlib as mpl
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lhcq.cli.main import cli
from lhcq.report.collect import collect_run
from lhcq.report.page import PICTURES
from lhcq.report.plots import (
    draw_by_checkpoint,
    draw_roc,
    nice_edges,
    plot_run,
    reliability,
    running_mean,
)
from lhcq.report.style import DARK, PARAMETERS, SIZE, Plot, darkened, scale_log
from lhcq.workspace import Workspace


def test_equal_views_draw_equal_bytes(finished: Workspace) -> None:
    view = collect_run(finished, "demo")
    once, again = (Plot(draw=partial(draw_roc, view=view), left="demo", right="test").svg() for _ in range(2))
    assert once == again


def test_the_dark_picture_differs_in_colours_alone(finished: Workspace) -> None:
    view = collect_run(finished, "demo")
    plot = Plot(draw=partial(draw_by_checkpoint, view=view, name="accuracy"), left="demo", right="validation")
    light = plot.svg()
    dark = darkened(light)
    assert not any(colour in dark for colour in DARK)
    back = {value: key for key, value in DARK.items()}
    assert re.sub("|".join(back), lambda match: back[match.group()], dark) == light


FORMS = {"png": b"\x89PNG", "pdf": b"%PDF"}
"""How a file of each begins."""


@given(st.lists(st.floats(20, 9000), min_size=1, max_size=200))
def test_histogram_edges_are_round_equal_and_cover_the_bulk(values: list[float]) -> None:
    edges = nice_edges(np.array(values))
    widths = np.diff(edges)
    low, high = np.quantile(values, [0.005, 0.995])
    assert 1 <= widths.size <= 61
    np.testing.assert_allclose(widths, widths[0])
    assert edges[0] <= low + 1e-9
    assert edges[-1] >= high - 1e-9


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.integers(1, 9))
def test_a_running_mean_stays_between_the_extremes(values: list[float], width: int) -> None:
    smooth = running_mean(np.array(values), min(width, len(values)))
    assert smooth.size == len(values)
    assert smooth.min() >= min(values) - 1e-9
    assert smooth.max() <= max(values) + 1e-9


def test_reliability_of_perfectly_calibrated_scores_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    p_signal = rng.random(40_000)
    mean, observed, low, high = reliability((rng.random(40_000) < p_signal).astype(int), p_signal)
    assert mean.size == 10
    assert np.abs(mean - observed).max() < 0.03
    assert np.all((low <= observed) & (observed <= high))


@pytest.mark.usefixtures("undrawn")  # of the page
def test_each_picture_is_written_as_png_and_pdf_the_same_each_time(
    finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(finished.root))
    page, place = tmp_path / "page.html", tmp_path / "figures"
    asked = ["report", "demo", "--out", str(page), "--figures", str(place), "--json"]
    told = json.loads(CliRunner().invoke(cli, asked, catch_exceptions=False).output)
    paths = [Path(path) for path in told["figures"]]
    assert [path.name for path in paths] == [f"demo-{name}.{form}" for name in PICTURES for form in FORMS]
    assert all(path.read_bytes().startswith(FORMS[path.suffix[1:]]) for path in paths)
    # Every other one once more, in either form.
    drawn = list(plot_run(collect_run(finished, "demo")).items())[::2]
    for (name, plot), form in zip(drawn, itertools.cycle(FORMS)):
        assert plot is not None
        assert (place / f"demo-{name}.{form}").read_bytes() == plot.file(form)


@given(low=st.floats(1e-7, 1e3), decades=st.floats(0.02, 9.0))
@hypothesis.settings(max_examples=25)
def test_numbers_of_a_logarithmic_axis_are_there_and_do_not_overlap(low: float, decades: float) -> None:
    with mpl.rc_context(PARAMETERS):
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((0.145, 0.135, 0.82, 0.785))
        scale_log(axes, low, low * 10**decades)
        figure.canvas.draw()
        bottom, top = sorted(axes.get_ylim())
        shown = [
            label.get_window_extent()
            for label in axes.get_yticklabels(which="both")
            if label.get_text() and bottom <= label.get_position()[1] <= top
        ]
    assert len(shown) >= 2
    assert min(box.x0 for box in shown) > 0, "a number is cut off"
    ordered = sorted(shown, key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(ordered))


def test_a_plot_has_all_letters_that_its_titles_are_written_in() -> None:
    def draw(axes: Axes) -> None:
        axes.set_xlabel("τ₂₁ of the heavier jet – 1σ ± … √ [GeV]")
        axes.set_ylabel(r"$\varepsilon_S/$√$\varepsilon_B$, $m_{jj}$, $\tau_{21}$")

    for form in ("svg", "pdf", "png"):  # a letter that is missing is a warning, and so an error here
        assert Plot(draw=draw, left="naïve", right="1σ").file(form)

"""The plots of a dataset: what is counted, what is drawn, and what the page says."""

import base64
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from lhcq.cli.main import cli
from lhcq.errors import BadInput, NotThere
from lhcq.manifests import write_manifest
from lhcq.report.dataset import CLASSES, ClassSpectrum, DatasetView, Spectrum, bin_values, collect_dataset
from lhcq.report.dataset_page import describe_picture, render_dataset, said_config
from lhcq.report.quantities import QUANTITIES, plan_edges, plan_quantities
from lhcq.report.spectra import _LEFT, _PARAMETERS, draw_picture, draw_spectrum, plan_grid
from lhcq.workspace import Workspace

PNG = b"\x89PNG\r\n\x1a\n"
CONFIG = {"algorithm": "antikt", "radius": 1.0, "pt_min": 20.0, "max_jets": 2, "features": "full"}
JET = ("pt", "m", "n_constituents", "tau1", "tau2")
BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}


def make_events(
    n: int, labels: tuple[int | None, ...], *, of_jet: tuple[str, ...] = JET
) -> list[dict[str, Any]]:
    """Plausible events; from the tenth row on, every tenth has one jet and the one after it none."""
    rng = np.random.default_rng(3)
    events = []
    for row in range(n):
        n_jets = {0: 1, 1: 0}.get(row % 10, 2) if row > 1 else 2
        pts = np.sort(rng.uniform(1200, 2000, 2))[::-1]
        jets = [
            {
                "pt": pt,
                "m": rng.exponential(150),
                "n_constituents": int(rng.integers(10, 100)),
                "tau1": rng.uniform(50, 100),
                "tau2": rng.uniform(5, 50),
            }
            for pt in pts[:n_jets]
        ]
        events.append(
            {
                "row": row,
                "label": labels[row % len(labels)],
                "n_particles": int(rng.integers(50, 300)),
                "jets": [{name: jet[name] for name in of_jet} for jet in jets],
                "mjj": float(rng.uniform(2500, 4000)) if n_jets == 2 else None,
            }
        )
    return events


def make_dataset(
    place: Workspace,
    events: list[dict[str, Any]],
    *,
    name: str = "mini",
    source: str = "/data/events_anomalydetection_v2.h5",
    config: dict[str, Any] | None = CONFIG,
    of_jet: tuple[str, ...] = JET,
) -> Path:
    jet = pa.struct(
        [pa.field(one, pa.int32() if one == "n_constituents" else pa.float64()) for one in of_jet]
    )
    fields = {"row": pa.int64(), "label": pa.int8(), "n_particles": pa.int32(), "mjj": pa.float64()}
    fields["jets"] = pa.list_(pa.field("element", jet, nullable=False))
    there = events[0] if events else fields
    schema = pa.schema([(one, kind) for one, kind in fields.items() if one in there])
    final = place.dataset(name)
    final.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(events, schema=schema), final / "events.parquet", row_group_size=50)
    write_manifest(final, name=name, rows=len(events), source=source, source_sha256="ab" * 32, config=config)
    return final


def by_class(view: DatasetView, name: str) -> dict[str, Any]:
    return next(one.classes for one in view.spectra if one.quantity.name == name)


def run(place: Workspace, *arguments: str | Path) -> Any:
    return CliRunner().invoke(
        cli,
        [str(argument) for argument in arguments],
        env={"LHCQ_WORKSPACE": str(place.root)},
        standalone_mode=False,
    )


class Page(HTMLParser):
    """The text, the pictures and every address of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.pictures, self.addresses = "", [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        values = dict(attrs)
        if tag == "img":
            self.pictures.append(values)
        self.addresses += [values[name] for name in ("src", "href", "srcset") if name in values]

    def handle_data(self, data: str) -> None:
        self.text += data


@given(
    low=st.floats(0, 1e4), span=st.floats(0, 1e4), bins=st.integers(5, 60), whole=st.booleans()
)  # fmt: skip
@settings(max_examples=300)
def test_edges_cover_the_range_in_equal_bins_about_as_many_as_asked(low, span, bins, whole):
    edges = plan_edges(low, low + span, bins=bins, whole=whole)
    assert edges[0] <= low
    assert edges[-1] >= low + span
    assert len(edges) - 1 <= 1.6 * bins + 2
    assert np.allclose(np.diff(edges), edges[1] - edges[0])
    if whole:
        assert (edges == np.round(edges)).all()


@given(st.integers(1, 20))
def test_a_grid_has_room_for_every_panel_and_is_no_wider_than_a_slide(n_panels):
    n_columns, n_rows = plan_grid(n_panels)
    assert n_columns * n_rows >= n_panels
    assert n_columns * (n_rows - 1) < n_panels
    assert n_columns <= 4


@given(
    st.lists(
        st.tuples(st.sampled_from([-1, 0, 1]), st.one_of(st.just(np.nan), st.floats(0, 5000))), min_size=1
    )
)
def test_every_event_is_in_a_bin_or_counted_as_missing(events):
    labels = np.array([label for label, _ in events], np.int8)
    values = np.array([value for _, value in events])
    spectrum = bin_values(BY_NAME["mjj"], values, labels)
    if np.isnan(values).all():
        assert spectrum is None
        return
    assert spectrum is not None
    for kind, found in spectrum.classes.items():
        of_class = values[labels == CLASSES[kind]]
        assert found.counts.sum() == found.n_events == np.isfinite(of_class).sum()
        assert found.n_missing == np.isnan(of_class).sum()
        assert np.isclose(found.shares.sum(), 1)


def test_figures_are_those_of_an_event_by_event_loop(place: Workspace):
    events = make_events(230, (0, 0, 1))
    make_dataset(place, events)
    view = collect_dataset(place, "mini")
    background = [event for event in events if event["label"] == 0]

    def ordered(event: dict[str, Any]) -> list[dict[str, Any]]:
        return sorted(event["jets"], key=lambda jet: -jet["m"])

    expected = {
        "pt_leading": [event["jets"][0]["pt"] for event in background if event["jets"]],
        "pt_second": [event["jets"][1]["pt"] for event in background if len(event["jets"]) > 1],
        "mjj": [event["mjj"] for event in background if event["mjj"]],
        "m_heavier": [ordered(event)[0]["m"] for event in background if event["jets"]],
        "m_lighter": [ordered(event)[1]["m"] for event in background if len(event["jets"]) > 1],
        "n_particles": [event["n_particles"] for event in background],
        "tau21_heavier": [
            ordered(event)[0]["tau2"] / ordered(event)[0]["tau1"] for event in background if event["jets"]
        ],
        "n_constituents_heavier": [
            ordered(event)[0]["n_constituents"] for event in background if event["jets"]
        ],
    }
    for name, values in expected.items():
        found = by_class(view, name)["background"]
        assert found.n_events == len(values)
        assert found.n_missing == len(background) - len(values)
        measured = (found.mean, found.median, found.low, found.high)
        assert measured == pytest.approx((np.mean(values), np.median(values), min(values), max(values)))


def test_a_ratio_lacks_its_value_where_the_denominator_is_zero(place: Workspace):
    events = make_events(40, (0, 1))
    events[2]["jets"] = [{**jet, "tau1": 0.0} for jet in events[3]["jets"]]
    expected = sum(not event["jets"] for event in events if event["label"] == 0) + 1
    make_dataset(place, events)
    assert by_class(collect_dataset(place, "mini"), "tau21_heavier")["background"].n_missing == expected


def test_events_without_labels_are_a_class_of_their_own(place: Workspace):
    make_dataset(place, make_events(60, (None,)))
    view = collect_dataset(place, "mini")
    assert view.n_by_class == {"unknown": 60}
    assert set(by_class(view, "mjj")) == {"unknown"}
    assert "Unlabelled" in render_dataset(view, PNG)


def test_what_the_events_lack_is_left_out_and_said(place: Workspace):
    of_jet = ("pt", "m")
    events = [
        {name: value for name, value in event.items() if name != "n_particles"}
        for event in make_events(60, (0, 1), of_jet=of_jet)
    ]
    make_dataset(place, events, of_jet=of_jet, config=None)
    view = collect_dataset(place, "mini")
    assert [one.quantity.name for one in view.spectra] == [
        "pt_leading",
        "pt_second",
        "mjj",
        "m_heavier",
        "m_lighter",
    ]
    text = Page(render_dataset(view, PNG)).text
    assert "Particles in the event: the events have no n_particles." in text
    assert "tau21 of the lighter jet: the jets have no tau2 and no tau1." in text
    assert "imported: the jets were clustered elsewhere" in text


def test_a_quantity_that_no_event_has_is_left_out(place: Workspace):
    events = [{**event, "jets": event["jets"][:1], "mjj": None} for event in make_events(30, (0, 1))]
    make_dataset(place, events)
    view = collect_dataset(place, "mini")
    assert view.left_out["mjj"] == "Dijet mass: no event has one"
    assert "pt_leading" in [one.quantity.name for one in view.spectra]


def test_the_drawn_lines_are_the_shares_of_each_class(place: Workspace):
    make_dataset(place, make_events(230, (0, 0, 1)))
    spectrum = next(one for one in collect_dataset(place, "mini").spectra if one.quantity.name == "m_heavier")
    axes = Figure().add_subplot()
    draw_spectrum(axes, spectrum)
    drawn = [patch.get_data().values for patch in axes.patches]
    for found in spectrum.classes.values():
        assert any(np.allclose(values, found.shares) for values in drawn)
    assert axes.get_xlabel() == r"Heavier jet $m$ [GeV]"
    assert re.fullmatch(r"Fraction / [\d.]+ GeV", axes.get_ylabel())
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[1] > max(
        float((found.shares + found.errors).max()) for found in spectrum.classes.values()
    )


def test_falling_spectra_are_drawn_on_a_logarithmic_axis(place: Workspace):
    make_dataset(place, make_events(230, (0, 1)))
    axes = Figure().add_subplot()
    draw_spectrum(axes, collect_dataset(place, "mini").spectra[0])
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == r"Leading jet $p_\mathrm{T}$ [GeV]"


def test_a_picture_of_one_event_and_of_a_very_long_name_can_be_drawn(place: Workspace):
    make_dataset(place, make_events(1, (1,)), source=f"/data/{'a' * 200}.h5")
    assert draw_picture(collect_dataset(place, "mini")).startswith(PNG)


@pytest.mark.parametrize(
    ("source", "doi"),
    [
        ("/data/events_anomalydetection_v2.features.h5", "10.5281/zenodo.6466204"),
        ("/data/events_LHCO2020_BlackBox1.h5", "10.5281/zenodo.4536624"),
        ("/data/generated.h5", None),
    ],
)
def test_only_a_released_file_is_given_its_doi(place: Workspace, source: str, doi: str | None):
    make_dataset(place, make_events(20, (0, 1)), source=source)
    view = collect_dataset(place, "mini")
    text = Page(render_dataset(view, PNG)).text
    assert view.doi == doi
    assert (f"doi:{doi}" in text) if doi else ("does not have the name of a released file" in text)


def test_the_clustering_is_said_in_the_fields_words():
    assert said_config(CONFIG) == "anti-kt, R = 1, pT > 20 GeV, 2 leading jets kept"
    assert said_config({**CONFIG, "algorithm": "cambridge", "radius": 0.5, "max_jets": None}) == (
        "Cambridge/Aachen, R = 0.5, pT > 20 GeV, all jets kept"
    )


def test_the_command_writes_a_picture_and_a_page_that_needs_nothing_else(place: Workspace, tmp_path: Path):
    make_dataset(place, make_events(230, (0, 0, 1)))
    answer = json.loads(run(place, "plot", "mini", "--json", "--out", tmp_path / "plots").stdout)
    png, html = Path(answer["png"]), Path(answer["page"])
    assert (png, html) == (tmp_path / "plots" / "mini.png", tmp_path / "plots" / "mini.html")
    assert answer["events"] == 230
    assert answer["labels"] == {"background": 154, "signal": 76}
    assert answer["quantities"] == list(BY_NAME)
    assert answer["left_out"] == {}
    page = Page(html.read_text())
    (picture,) = page.pictures
    assert base64.b64decode(picture["src"].removeprefix("data:image/png;base64,")) == png.read_bytes()
    assert png.read_bytes().startswith(PNG)
    assert picture["alt"] == describe_picture(collect_dataset(place, "mini"))
    assert all(address.startswith("data:") for address in page.addresses)
    assert "anti-kt, R = 1, pT > 20 GeV, 2 leading jets kept" in page.text
    assert "doi:10.5281/zenodo.6466204" in page.text


def test_the_alternative_text_names_every_panel_with_its_medians(place: Workspace):
    make_dataset(place, make_events(60, (0, 1)))
    view = collect_dataset(place, "mini")
    said = describe_picture(view)
    for one in view.spectra:
        assert one.quantity.title in said
    median = by_class(view, "mjj")["signal"].median
    assert f"{median:,.1f} GeV for signal" in said


def test_plots_are_replaced_and_stand_in_the_workspace_by_default(place: Workspace):
    make_dataset(place, make_events(60, (0, 1)))
    folder = place.root / "plots" / "mini"
    folder.mkdir(parents=True)
    (folder / "mini.png").write_bytes(b"of last week")
    done = run(place, "plot", "mini")
    assert done.stdout.split() == [str(folder / "mini.png"), str(folder / "mini.html")]
    assert (folder / "mini.png").read_bytes().startswith(PNG)
    assert sorted(path.name for path in folder.iterdir()) == ["mini.html", "mini.png"]


def test_a_dataset_that_is_not_there_or_damaged_or_empty_is_one_clear_line(place: Workspace):
    with pytest.raises(NotThere, match=r"dataset 'gone' does not exist .*`lhcq cluster`"):
        collect_dataset(place, "gone")
    (make_dataset(place, make_events(20, (0,)), name="damaged") / "events.parquet").write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"events\.parquet: differs from its manifest .* Make damaged again"):
        collect_dataset(place, "damaged")
    make_dataset(place, [], name="empty")
    with pytest.raises(BadInput, match="empty: holds no events"):
        collect_dataset(place, "empty")


def test_real_records_have_all_that_is_drawn():
    from lhcq.records.events import schema_of

    assert plan_quantities(schema_of("full")) == (list(QUANTITIES), {})
    drawn, left_out = plan_quantities(schema_of("jets"))
    assert set(left_out) == {"tau21_heavier", "tau21_lighter"}
    assert len(drawn) == len(QUANTITIES) - 2


@pytest.mark.parametrize(("ending", "start"), [("pdf", b"%PDF"), ("PNG", PNG), ("svg", b"<?xml")])
def test_the_picture_alone_is_written_as_the_file_s_ending_says(
    place: Workspace, tmp_path: Path, ending: str, start: bytes
):
    make_dataset(place, make_events(230, (0, 1)))
    out = tmp_path / f"talk.{ending}"
    answer = json.loads(run(place, "plot", "mini", "--json", "--out", out).stdout)
    assert answer[ending.lower()] == str(out)
    assert out.read_bytes().startswith(start)
    assert sorted(tmp_path.glob("talk*")) == [out]


def test_a_file_of_another_ending_is_no_place_for_a_picture(place: Workspace, tmp_path: Path):
    make_dataset(place, make_events(30, (0, 1)))
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    refused = run(place, "plot", "mini", "--out", out)
    assert isinstance(refused.exception, BadInput)
    assert "is a file" in str(refused.exception)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("falls", [1.0, 0.6, 0.2, 0.01, 1e-4])
def test_the_numbers_of_a_falling_spectrum_do_not_reach_into_the_title_of_its_axis(falls: float):
    """However narrow the range of the shares is: `falls` is the last over the first."""
    edges = np.linspace(1000.0, 3000.0, 25)
    counts = np.round(2e6 * np.geomspace(1.0, falls, 24)).astype(np.int64)
    found = ClassSpectrum(
        counts=counts, n_events=int(counts.sum()), n_missing=0, mean=0.0, median=0.0, low=0.0, high=0.0
    )
    quantity = next(one for one in QUANTITIES if one.log)
    with mpl.rc_context(_PARAMETERS):
        figure = Figure(figsize=(_LEFT + 4.0, 4.0))
        axes = figure.add_axes((_LEFT / (_LEFT + 4.0), 0.18, 0.75, 0.75))
        draw_spectrum(axes, Spectrum(quantity=quantity, edges=edges, classes={"background": found}))
        figure.canvas.draw()
        title = axes.yaxis.label.get_window_extent()
        low, high = axes.get_ylim()
        numbers = [
            label.get_window_extent()
            for label in axes.get_yticklabels(which="both")
            if label.get_text() and low <= label.get_position()[1] <= high
        ]
    assert len(numbers) >= 2
    assert all(number.x0 >= title.x1 for number in numbers)
    ordered = sorted(numbers, key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(ordered))

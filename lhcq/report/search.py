"""The page of a search: how sure, where in m_jj, what the events look like, and every spectrum with its fit."""

import math
from pathlib import PurePath
from typing import Any

from lhcq.records.metrics import Sculpting
from lhcq.report.sculpting import said_sculpting
from lhcq.report.search_plots import plot_look, plot_spectrum, plot_tests
from lhcq.report.style import Plot, data_uri, pictured
from lhcq.report.templates import html_template

_CLAIMED = 1e-3
"""Global p-value below which an excess is described as a resonance."""
_POOR_FIT = 0.01
_HOPELESS_FIT = 1e-6
"""P-value of the fit to all events, of which there are many more: below, the function has the wrong shape."""
_UNLIKELY, _MANY_LACK = 1e-3, 0.1
"""P-value of so many events without a value, and their share of the excess's, from which on they are told of."""
_LOOK = "look-"
_MASSES = (("m_sd_heavy", "m_sd_light"), ("m_heavy", "m_light"))
LOOKS = {
    "m_sd_heavy": ("Groomed mass of the heavier jet", "GeV"),
    "m_sd_light": ("Groomed mass of the lighter jet", "GeV"),
    "m_heavy": ("Mass of the heavier jet", "GeV"),
    "m_light": ("Mass of the lighter jet", "GeV"),
    "tau21_heavy": ("τ₂₁ of the heavier jet", ""),
    "tau21_light": ("τ₂₁ of the lighter jet", ""),
    "n_heavy": ("Constituents of the heavier jet", ""),
    "n_light": ("Constituents of the lighter jet", ""),
}
COLUMNS = {
    "learner": "by",
    "region": "region [GeV]",
    "share": "selected",
    "seen": "seen",
    "expected": "expected",
    "p_value": "local p",
    "z": "σ",
    "limit": "95% limit",
    "fit": "fit p",
    "truth": "SIC",
}


def search_verdict(found: dict[str, Any]) -> list[str]:
    """What may be said of a search, in sentences; the answer first."""
    overall, n_tests = found["global"], len(found["tests"])
    beside = _said_beside(found)
    if overall is None:
        reason = next(test["reason"] for test in found["tests"] if test["reason"])
        return [f"No region could be tested ({reason}), so nothing can be said.", *beside]
    best = found["tests"][found["best"]]
    sentences = [
        f"The largest excess is between {best['low']:,.0f} and {best['high']:,.0f} GeV, among the "
        f"{best['share']:.2%} of events that are most signal-like: {best['seen']:,} seen where "
        f"{best['expected']:,.1f} ± {best['error']:,.1f} are expected, p = {best['p_value']:.2g} there "
        f"({best['z']:.1f} σ).",
        _said_global(overall),
    ]
    sentences += _answer(found)
    sentences += _said_lacking(found)
    sentences += beside
    sentences.append(_said_spread(found))
    failed = n_tests - overall["tests"]
    if failed:
        sentences.append(f"{failed} of {n_tests} tests have no number, since their fit failed.")
    peaked = [best] if _peak_fit(found) is not None else []
    poor = [test for test in found["tests"] if test["fit"] and _is_poor(test["fit"]) and test not in peaked]
    if poor:
        where = ", ".join(f"{one['low']:,.0f}–{one['high']:,.0f} GeV at {one['share']:.2%}" for one in poor)
        sentences.append(
            f"The function does not describe the events beside the region (p below {_POOR_FIT:g}) in {where}: an "
            "excess there may be the fit's."
        )
    sculpted = best["sculpting"]
    if sculpted:
        sentences.append(
            said_sculpting(Sculpting.checked(**sculpted), f"the events outside of {_named(best)}")
            + " A smooth change is taken up by the fit; a bump would not be."
        )
    return sentences


def _said_lacking(found: dict[str, Any]) -> list[str]:
    """A warning where the excess may be one of values that are missing."""
    best, lacking = found["tests"][found["best"]], (found["excess"] or {}).get("lacking")
    if lacking is None or lacking["p_value"] > _UNLIKELY or lacking["n"] < _MANY_LACK * best["seen"]:
        return []
    return [
        f"Beware: of the {best['seen']:,} events seen there {lacking['n']:,} lack the value of a feature that the "
        f"classifier reads, as {lacking['share_elsewhere']:.2%} of the events outside of {_named(best)} do: the "
        "excess may be of what is missing. Look where these values got lost before anything else."
    ]


def _said_beside(found: dict[str, Any]) -> list[str]:
    """What the search by trees found that is shown beside this one."""
    if "beside" not in found:
        return []
    other = found["beside"]
    if other is None:
        return ["The search by trees that was to be shown beside this one is gone."]
    if other["global"] is None:
        return [f"By {other['model']} (search {other['name']}) no region could be tested."]
    best, overall = other["tests"][other["best"]], other["global"]
    return [
        f"By {other['model']} (search {other['name']}) the largest excess is between {best['low']:,.0f} and "
        f"{best['high']:,.0f} GeV at {best['share']:.2%}, {best['z']:.1f} σ there; the global p-value is "
        f"{overall['p_value']:.2g}."
    ]


def _said_spread(found: dict[str, Any]) -> str:
    """How far significances go by chance, and what was made of it."""
    measured = [one for one in found["spread"] if one["measured"] is not None]
    if not measured:
        return (
            "Significances are the fits' own, without shuffles: as folds learn from each other, they are spread "
            "wider than 1 by chance, with trees by 10 to 20%, and p-values are too small."
        )
    widths = ", ".join(
        f"{one['measured']:.2f} ± {one['error']:.2f} at {one['share']:.2%} selected ({one['n']} tests)"
        for one in measured
    )
    said = f"Among the same events with each other's m_jj significances are spread by {widths}; "
    if any(one["width"] > 1 for one in measured):
        said += "those here are divided by that, where it is above 1."
    elif any(one["measured"] > 1 for one in measured):
        said += "those here are the fits' own."
    else:
        return said + "those here are the fits' own, as that is not above 1."
    few = ", ".join(f"{one['share']:.2%}" for one in measured if one["width"] == 1 < one["measured"])
    if few:
        said += (
            f" At {few} these tests are too few to divide by their spread, so p-values are too small: give more "
            "--shuffles."
        )
    return said


def _said_global(overall: dict[str, Any]) -> str:
    of_all = f"any of {overall['tests']} tests" if overall["tests"] > 1 else "the one test"
    sigma = f" ({overall['z']:.1f} σ)" if overall["z"] is not None and overall["z"] > 0 else ""
    if overall["how"] == "pseudo-experiments":
        said = (
            f"Of {overall['pseudo_experiments']:,} pseudo-experiments of background alone {overall['beyond']:,} show "
            f"as much in {of_all}: the global p-value is {overall['p_value']:.2g}{sigma}."
        )
        if overall["p_value"] < overall["local_p_value"]:
            said += " That is below the local one, which of so few events is not exact."
        return said
    return (
        f"{overall['beyond']:,} of {overall['pseudo_experiments']:,} pseudo-experiments of background alone show as "
        f"much in {of_all}; the global p-value is at most {overall['p_value']:.2g}{sigma}, by the number of "
        "tests."
    )


def _answer(found: dict[str, Any]) -> list[str]:
    """In the form of the LHC Olympics, where there is something to answer."""
    overall, excess, best = found["global"], found["excess"], found["tests"][found["best"]]
    if overall["p_value"] > _CLAIMED or excess is None:
        return ["No resonance is claimed."]
    of_all = next(one for one in found["inclusive"] if one["low"] == best["low"])
    peak_fit = _peak_fit(found)
    described = not _is_poor(best["fit"]) or peak_fit is not None
    if not described or not of_all["fit"] or _is_poor(of_all["fit"], _HOPELESS_FIT):
        return [
            "No resonance is claimed, since the function does not describe the events beside that region, selected "
            "ones or all: the excess may be the fit's."
        ]
    mass = excess["mass"]
    jets = [excess["looks"][name] for name in _mass_names(excess["looks"])]
    parts = [
        f"p-value {overall['p_value']:.1g}",
        f"mass {mass['value']:,.0f} ± {mass['error']:,.0f} GeV" if mass else "mass not fitted",
        *(
            f"{which} daughter {_median(jet, 'GeV')}"
            for which, jet in zip(("heavier", "lighter"), jets, strict=False)
            if jet["median"] is not None and jet["error"] is not None
        ),
        f"{excess['events']:,.0f} ± {excess['events_error']:,.0f} signal events after the selection",
    ]
    answer = f"Answer: {'; '.join(parts)}. How many there were before it, no search without a model can say."
    if not _is_poor(best["fit"]) or peak_fit is None:
        return [answer]
    return [
        answer,
        f"The function alone does not describe the events beside that region (p = {best['fit']['p_value']:.2g}), and "
        f"with a Gaussian of {mass['sigma']:,.0f} GeV it describes all of them (p = {peak_fit:.2g}): the resonance "
        "reaches over the region, so what is expected there is rather too much.",
    ]


def _peak_fit(found: dict[str, Any]) -> float | None:
    """The p-value of the fit of function and Gaussian to the largest excess's spectrum, where they describe it.

    None where they do not, or where it was not looked at, as in a search of before.
    """
    mass = (found["excess"] or {}).get("mass") or {}
    fit = mass.get("fit")
    return None if fit is None or fit["p_value"] is None or _is_poor(fit) else fit["p_value"]


def _mass_names(looks: dict[str, Any]) -> tuple[str, ...]:
    return next((names for names in _MASSES if all(name in looks for name in names)), ())


def _is_poor(fit: dict[str, Any], level: float = _POOR_FIT) -> bool:
    return fit["p_value"] is not None and fit["p_value"] < level


def _named(test: dict[str, Any]) -> str:
    return f"{test['low']:,.0f} to {test['high']:,.0f} GeV"


def rows_of_tests(found: dict[str, Any]) -> list[dict[str, str]]:
    """The cells of a table of all tests by column, region by region, the inclusive ones with them."""
    own = PurePath(found["config"]["model"]).name  # of a directory or a hub's OWNER/MODEL its own name
    tests = [(own, test, known) for test, known in _with_truth(found)]
    if beside := found.get("beside"):
        tests += [(beside["model"], test, known) for test, known in _with_truth(beside)]
    tests += [("", test, None) for test in found["inclusive"]]
    tests.sort(
        key=lambda one: (one[1]["low"], -one[1]["share"])
    )  # which leaves a search before the one beside it
    return [_row(test, known) | {"learner": learner or "–"} for learner, test, known in tests]


def _with_truth(found: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    truth = found["truth"] or [None] * len(found["tests"])
    return list(zip(found["tests"], truth, strict=True))


def _row(test: dict[str, Any], truth: dict[str, Any] | None) -> dict[str, str]:
    cells = dict.fromkeys(COLUMNS, "–")
    cells["region"] = f"{test['low']:,.0f}–{test['high']:,.0f}"
    cells["share"] = "all" if test["share"] == 1 else f"{test['share']:.2%}"
    if test["z"] is None:
        return cells | {"fit": test["reason"]}
    fit = test["fit"]
    cells |= {
        "seen": f"{test['seen']:,}",
        "expected": f"{test['expected']:,.1f} ± {test['error']:,.1f}",
        "p_value": f"{test['p_value']:.2g}",
        "z": f"{test['z']:.1f}",
        "limit": f"{test['limit']:,.1f}",
        "fit": ("–" if fit["p_value"] is None else f"{fit['p_value']:.2g}") + f" ({fit['parameters']} par.)",
    }
    if truth and truth["improvement"] is not None:
        cells["truth"] = f"{truth['improvement']:.1f}"
    return cells


def table_of_tests(found: dict[str, Any]) -> str:
    """The table for a terminal."""
    headings = columns_of(found)
    rows = [{key: row[key] for key in headings} for row in rows_of_tests(found)]
    widths = {key: max(len(text), *(len(row[key]) for row in rows)) for key, text in headings.items()}
    lines = [headings, *rows]
    return "\n".join("  " + "  ".join(line[key].rjust(widths[key]) for key in headings) for line in lines)


def columns_of(found: dict[str, Any]) -> dict[str, str]:
    """The columns of that table, with their headings: of the truth only where it is known, of who learnt where it was
    not one alone."""
    known = found["truth"] and any(one["improvement"] is not None for one in found["truth"])
    left_out = set() if known else {"truth"}
    left_out |= set() if found.get("beside") else {"learner"}
    return {key: text for key, text in COLUMNS.items() if key not in left_out}


def plots_of_search(found: dict[str, Any]) -> dict[str, Plot]:
    """The plots of the page, by name: all tests, each spectrum that was fitted, and looks of the excess."""
    plots = {"tests": plot_tests(found)}
    for test in found["tests"]:
        if test["fit"] is not None:
            plots[_spectrum_name(test)] = plot_spectrum(found, test)
    if excess := found["excess"]:
        names = [*_mass_names(excess["looks"])]
        names += [name for name in LOOKS if name in excess["looks"] and name.startswith(("tau21", "n_"))]
        plots |= {f"{_LOOK}{name}": plot_look(excess, name, LOOKS[name]) for name in names}
    return plots


def _spectrum_name(test: dict[str, Any]) -> str:
    return f"spectrum-{test['low']:g}-{test['high']:g}-{test['share']:g}"


def render_search(found: dict[str, Any]) -> str:
    """The page as text, from what a search found."""
    plots = plots_of_search(found)
    looks = [name.removeprefix(_LOOK) for name in plots if name.startswith(_LOOK)]
    page: str = html_template("search.html.j2").render(
        found=found,
        facts=_facts(found),
        verdict=search_verdict(found),
        headings=columns_of(found),
        rows=rows_of_tests(found),
        overview=pictured(plots["tests"]),
        spectra=[
            {
                "title": f"{_named(test)}, {test['share']:.2%} selected",
                "best": place == found["best"],
                # Twenty pictures in two colours would be megabytes; these are on white.
                "picture": data_uri(plots[_spectrum_name(test)].svg()),
            }
            for place, test in enumerate(found["tests"])
            if test["fit"] is not None
        ],
        looks=[
            {
                "title": LOOKS[name][0],
                "median": _median(found["excess"]["looks"][name], LOOKS[name][1]),
                **pictured(plots[f"{_LOOK}{name}"]),
            }
            for name in looks
        ],
    )
    return page


def _median(look: dict[str, Any], unit: str) -> str:
    if look["median"] is None or look["error"] is None:
        return "not known"
    digits = max(0, -math.floor(math.log10(look["error"] or 1)))
    return f"{look['median']:,.{digits}f} ± {look['error']:,.{digits}f} {unit}".rstrip()


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    config = found["config"]
    training = []
    if tuning := found.get("tuning"):
        one = tuning["config"]
        until = f", at most {one['max_steps']:,} steps" if one["max_steps"] is not None else ""
        training = [
            (
                "Fine-tuning",
                f"{one['epochs']:g} epochs{until}, {one['batch_size'] * one['accumulation']} prompts a step, rate "
                f"{one['learning_rate']:g}",
            )
        ]
    return [
        ("Dataset", found["dataset"]),
        ("Events in the fit's range", f"{found['n_events']:,}"),
        ("Fit", f"{found['edges'][0]:,.0f} to {found['edges'][-1]:,.0f} GeV"),
        ("Regions", f"{config['low']:,.0f} to {config['high']:,.0f} GeV, {config['width']:,.0f} wide"),
        ("Sidebands", f"{config['sideband']:,.0f} GeV"),
        ("Classifier", f"{config['model']}, {config['folds']} folds, {_trainings(config['seeds'])} each"),
        *training,
        ("Pseudo-experiments", f"{config['pseudo_experiments']:,}"),
        ("It sees", ", ".join(found["template"]["columns"])),
    ]


def _trainings(seeds: int) -> str:
    return "1 training" if seeds == 1 else f"{seeds} trainings"

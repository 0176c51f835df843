"""A value that cannot be is told by the name of the option that it was given by."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lhcq.cli import session
from lhcq.cli.main import VERBS, cli
from lhcq.errors import BadInput
from lhcq.workspace import Workspace

SEARCHED = ["mixed", "--model", "a-language-model"]
ARGUMENTS = {
    "cluster": [["events.h5", "--name", "made"]],
    "generate": [["made.h5", "--background", "1", "--signal", "1"]],
    "import": [["events.h5", "--name", "made"]],
    "inspect": [["events.h5"]],
    "predict": [["run", "mixed"]],
    "prepare": [["mixed", "--split", "made"]],
    "search": [SEARCHED, [*SEARCHED, "--scan", "0,100"]],
    "train": [["split", "--name", "made"]],
}
"""Of the verbs that make a configuration of their options; the numbers of all others are click's to check."""
IMPOSSIBLE = ("-1", "0", "nan", "inf", "1000000000000")


def numeric_options() -> list[Any]:
    context, options = click.Context(cli), []
    for verb, ways in ARGUMENTS.items():
        command = cli.get_command(context, verb)
        assert command is not None
        for option in command.params:
            if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
                for way, arguments in enumerate(ways):
                    name = option.opts[0]
                    options.append(pytest.param(verb, arguments, name, id=f"{verb} {name} {way}"))
    return options


def refused(verb: str, *arguments: str) -> str | None:
    """What the command says of wrong input; None where it found none."""
    error = CliRunner().invoke(cli, [verb, *arguments], standalone_mode=False).exception
    if isinstance(error, click.UsageError):
        return error.format_message()
    return str(error) if isinstance(error, BadInput) else None


@pytest.fixture
def here(place: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    monkeypatch.chdir(tmp_path)
    place.create()

    def begun(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "have_done", begun)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("verb", "arguments", "option"), numeric_options())
def test_every_number_that_cannot_be_is_told_by_its_option(
    verb: str, arguments: list[str], option: str
) -> None:
    told = {value: refused(verb, *arguments, f"{option}={value}") for value in IMPOSSIBLE}
    about_it = [line for line in told.values() if line and "no such file" not in line]
    assert about_it
    assert [line for line in about_it if option not in line or "Config" in line] == []


def test_no_verb_makes_a_configuration_beside_those_that_are_tried() -> None:
    sources = Path(session.__file__).parent.glob("*.py")
    making = {source.stem.rstrip("_") for source in sources if "told_by_option(" in source.read_text("utf-8")}
    assert making - {"options"} <= ARGUMENTS.keys() <= set(VERBS)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--regions", "2900..14000..400"), "HIGH of --regions should be less than 13000."),
        (("--regions", "0..5100..400"), "LOW of --regions should be greater than 0; where the fit begins"),
        (
            ("--regions", "3000..3300..400"),
            "WIDTH of --regions: between 3000 and 3300 GeV no region of 400 GeV fits.",
        ),
        (
            ("--regions", "3000..5000..0"),
            "WIDTH of --regions should be greater than 0; --sideband, that width",
        ),
        (
            ("--regions", "100..2000..400"),
            "where the fit begins, below --regions, should be greater than 0.",
        ),
        (
            ("--fit", "2900..9000"),
            "LOW of --fit: 2900 GeV; a fit has to reach beyond .* below 2900 to above 5100",
        ),
        (("--fit", "2600..14000"), "HIGH of --fit should be less than or equal to 13500."),
        (("--select", "0.1,2"), "--select: each selection is a share between 0 and 1."),
        (("--template", "wide"), "--template: wide holds m_jj or determines it"),
        (
            ("--scan", "0,100", "--regions", "2900..14000..400"),
            "HIGH of --regions should be less than 13000.",
        ),
    ],
)
def test_what_a_search_cannot_look_at_is_told_by_its_options(
    arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        raise BadInput(refused("search", "mixed", *arguments))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("prepare", ("--ratio", "2:1"), "--ratio: '2:1' is neither 'natural' nor '1:K'."),
        ("prepare", ("--template", "diary", "--copies", "2"), "--copies: whole numbers are moved"),
        (
            "prepare",
            ("--constituents", "20"),
            "--constituents: is of what template particles writes, and compact",
        ),
        ("prepare", ("--frame", "detector"), "--frame: is of what template particles writes"),
        ("cluster", ("--padding", "inf"), "--padding: it is neither 'nan' nor a finite number."),
        ("cluster", ("--radius", "4", "--pt-min", "-1"), "--radius should be .* 3; --pt-min should be .* 0."),
        ("inspect", ("--label-map", "12345678901=1"), "--label-map: '12345678901' is no label"),
    ],
)
def test_a_value_that_others_do_not_allow_is_told_by_its_option(
    verb: str, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        raise BadInput(refused(verb, *ARGUMENTS[verb][0], *arguments))

"""The commands of the tutorial, in an empty directory on the real events: they end well and print what it says."""

from pathlib import Path

import pytest

from docs.make_tutorial import PAGE, commands, remade, without_numbers


def test_the_tutorial_goes_from_a_file_to_a_report() -> None:
    verbs = [command.split()[1] for command in commands(PAGE.read_text("utf-8"))]
    assert verbs[:7] == ["fetch", "inspect", "cluster", "plot", "prepare", "train", "report"]


def test_numbers_of_another_machine_are_no_difference_and_words_are() -> None:
    said = "  test         signal      14\nchunks  1,000 in 5.3 s"
    assert without_numbers(said) == without_numbers("  test         signal       9\nchunks  1,024 in 12.61 s")
    assert without_numbers(said) != without_numbers(said.replace("chunks", "parts"))


@pytest.mark.torture  # trains
@pytest.mark.timeout(3600)
def test_its_commands_print_what_it_says(test_data: Path, smollm2: Path, tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")
    again = remade(text, tmp_path, test_data, smollm2)
    assert (tmp_path / "lhcq-workspace/runs/first/report.html").is_file()
    assert without_numbers(again) == without_numbers(text)

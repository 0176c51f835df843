"""How long a whole search by trees takes, what a second worker brings, and that a kill costs nothing but time.

    python -m benchmarks.searching_workers WORKSPACE DATASET [--stage pair|killed]

`pair` is `lhcq search DATASET` with every default, by one worker and by two in turns: the command from its start to
its end, page and all, and its chunks alone, from the first that stands to the last. `killed` is the same once more by
two: at a third of its chunks a worker and at a half the command is killed by SIGKILL, and the command is given again;
what it leaves has to be what the undisturbed ones left, byte for byte. The searches are in WORKSPACE. Results are in
results/searching_workers.json, only the stages that ran replaced, and in docs/search.md with what the search found
and the picture docs/search-found.png.
"""

import argparse
import hashlib
import io
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from PIL import Image

from benchmarks.command import start, watch
from benchmarks.rows import RESULTS, Row, circumstances, markdown, put_table, row, say, table, write_result
from benchmarks.searching import DOCUMENT
from lhcq.records.searches import read_found
from lhcq.report.search import plots_of_search, search_verdict
from lhcq.requests.search import search_config, search_request
from lhcq.storage import read_json
from lhcq.workspace import Workspace

RESULT = "searching_workers"
STAGES = ("pair", "killed")
MADE_BY = "python -m benchmarks.searching_workers"
_PICTURE = DOCUMENT.with_name("search-found.png")


class Timed(NamedTuple):
    """A whole search."""

    command: float
    """Seconds from its start to its end."""
    chunks: float
    """Seconds from the first chunk to the last."""


def pair(place: Workspace, dataset: str, rounds: int) -> list[Row]:
    """The search by one worker and by two."""
    took = []
    for _ in range(rounds):
        took.append([_timed(place, dataset, f"by-{n}", n) for n in (1, 2)])
        _say_same(place, "by-1", "by-2")
    found = read_found(place.search("by-2"))
    events, config = sum(found["inclusive"][0]["counts"]), found["config"]
    note = (
        f"{events:,} events in the range of the fit, {len(found['inclusive'])} regions, {config['folds']} folds, "
        f"{config['shuffles']} shuffles, {config['pseudo_experiments']:,} pseudo-experiments"
    )
    _draw(found)
    load = os.getloadavg()[0]
    best = found["tests"][found["best"]]
    (of_all,) = (one for one in found["inclusive"] if one["low"] == best["low"])
    said = {"verdict": search_verdict(found), "all_events_z": of_all["z"]}
    return [
        row("pair: by one worker", [one.command for one, _ in took], "s", note=note, load=load, **said),
        row("pair: by two workers", [two.command for _, two in took], "s", at_most=600),
        row(
            "pair: two over one, the chunks",
            [one.chunks / two.chunks for one, two in took],
            "times",
            at_least=1.8,
        ),
        row(
            "pair: two over one, the whole command",
            [one.command / two.command for one, two in took],
            "times",
            note="with what only one process does: start, merge and page",
        ),
    ]


def _draw(found: dict[str, Any]) -> None:
    """The tests, the spectrum of the largest excess, and the masses of its jets, as the page of a search has them."""
    plots = plots_of_search(found)
    best = found["tests"][found["best"]]
    spectrum = f"spectrum-{best['low']:g}-{best['high']:g}-{best['share']:g}"
    names = ("tests", spectrum, "look-m_sd_heavy", "look-m_sd_light")
    pictures = [Image.open(io.BytesIO(plots[name].file("png"))) for name in names]
    width, height = (max(sizes) for sizes in zip(*(one.size for one in pictures), strict=True))
    whole = Image.new("RGB", (2 * width, 2 * height), "white")
    for at, picture in enumerate(pictures):
        whole.paste(picture, (at % 2 * width, at // 2 * height))
    whole.resize((1080, 1080 * height // width)).save(_PICTURE)


def killed(place: Workspace, dataset: str) -> list[Row]:
    """A search that loses a worker at a third of its chunks, and its command at a half."""
    _remove(place, "killed")
    asked = ("search", dataset, "--name", "killed", "--workers", "2")
    chunks, n_chunks = _chunks(place, "killed"), _n_chunks(place, dataset)
    command = start(place.root, *asked, answer=subprocess.DEVNULL)
    _until(chunks, n_chunks // 3)
    pools = [one for one in psutil.Process(command.pid).children() if "worker" in one.cmdline()]
    os.killpg(pools[0].pid, signal.SIGKILL)
    _until(chunks, n_chunks // 2)
    command.send_signal(signal.SIGKILL)
    command.wait()
    stood = _standing(chunks)
    say(f"killed with {stood} of {n_chunks} chunks")
    watch(place.root, *asked)
    return [
        row("killed: chunks that stood when the command was killed", stood, f"of {n_chunks}"),
        row(
            "killed: files that are those of an undisturbed search",
            _say_same(place, "by-2", "killed"),
            f"of {len(_digests(place, 'by-2'))}",
            at_least=len(_digests(place, "by-2")),
        ),
    ]


def _timed(place: Workspace, dataset: str, name: str, workers: int) -> Timed:
    _remove(place, name)
    chunks, n_chunks = _chunks(place, name), _n_chunks(place, dataset)
    seen: dict[int, float] = {}

    def look() -> None:
        seen.setdefault(_standing(chunks), time.perf_counter())

    found = watch(place.root, "search", dataset, "--name", name, "--workers", f"{workers}", look=look)
    first = min(at for standing, at in seen.items() if standing)
    timed = Timed(found.seconds, seen[n_chunks] - first)
    say(f"{name}: {timed.command:.1f} s, its {n_chunks} chunks {timed.chunks:.1f} s")
    return timed


def _n_chunks(place: Workspace, dataset: str) -> int:
    return search_request(place, dataset, search_config(), name="counted").parts


def _chunks(place: Workspace, name: str) -> Path:
    return place.root / "jobs" / f"search-{name}" / "parts"


def _standing(chunks: Path) -> int:
    return len(list(chunks.rglob("[0-9]*.arrows")))


def _remove(place: Workspace, name: str) -> None:
    if place.search(name).exists():
        watch(place.root, "rm", name, "--kind", "search")


def _until(chunks: Path, least: int) -> None:
    while _standing(chunks) < least:
        time.sleep(0.2)


def _digests(place: Workspace, name: str) -> dict[str, str]:
    """Of what a search left, its own name left out; the page holds it in many places and is made of the rest."""
    final = place.search(name)
    return {
        file: hashlib.sha256((final / file).read_bytes().replace(f'"{name}"'.encode(), b"")).hexdigest()
        for file in ("search.json", "scores.parquet", "pseudo.parquet")
    }


def _say_same(place: Workspace, one: str, other: str) -> int:
    """How many files of two searches are the same."""
    there, here = _digests(place, one), _digests(place, other)
    same = [name for name in there if there[name] == here[name]]
    say(f"{one} and {other}: {', '.join(same) or 'nothing'} alike")
    return len(same)


def put_result(stages: Sequence[str], rows: list[Row]) -> list[Row]:
    """Write the rows of these stages beside what is known of the others."""
    path = RESULTS / f"{RESULT}.json"
    earlier = read_json(path)["rows"] if path.exists() else []
    here = circumstances()
    kept = [one for one in earlier if one["figure"].partition(":")[0] not in stages]
    every = sorted(
        [*kept, *(one | {"commit": here["commit"]} for one in rows)],
        key=lambda one: STAGES.index(one["figure"].partition(":")[0]),
    )
    write_result(RESULT, {**here, "rows": every})
    put_table("searching workers", lines_of(every), MADE_BY, DOCUMENT)
    return every


def lines_of(rows: list[Row]) -> list[str]:
    """What the search found, and what it took."""
    said = [f"> {sentence}" for one in rows for sentence in one.get("verdict", ())]
    quoted = [line for sentence in said for line in (sentence, ">")][:-1]
    return [*quoted, "", *markdown([one | {"figure": one["figure"].partition(": ")[2]} for one in rows])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--stage", choices=STAGES, action="append", help="Default: all of them.")
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    place, stages = Workspace(chosen.workspace), chosen.stage or STAGES
    rows: list[Row] = []
    if "pair" in stages:
        rows += pair(place, chosen.dataset, chosen.rounds)
    if "killed" in stages:
        rows += killed(place, chosen.dataset)
    print(table(RESULT, put_result(stages, rows)))


if __name__ == "__main__":
    main()

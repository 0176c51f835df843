"""`lhcq mix NAME`."""

import time

import click

from lhcq.cli.options import answer, json_option, seed_option
from lhcq.cli.parameters import NameOf, example


@click.command("mix", epilog=example("lhcq mix trial --background qcd --signal wprime --signal-events 500"))
@click.argument("name")
@click.option(
    "--background",
    "backgrounds",
    type=NameOf("datasets"),
    multiple=True,
    required=True,
    help="A dataset whose background events are taken. May be given several times.",
)
@click.option(
    "--background-events", type=click.IntRange(min=1), help="How many of them, by chance. Default: all."
)
@click.option(
    "--signal",
    type=NameOf("datasets"),
    required=True,
    help="The dataset from whose signal events some are drawn.",
)
@click.option(
    "--signal-events", type=click.IntRange(min=0), required=True, help="How many signal events to put in."
)
@seed_option
@json_option
def command(
    name: str,
    backgrounds: tuple[str, ...],
    background_events: int | None,
    signal: str,
    signal_events: int,
    seed: int,
    as_json: bool,
) -> int:
    """Make the dataset NAME of background events with some signal events among them, to try a search on.

    The same seed gives the same bytes. Labels stay, so that it is known what was found; no search looks at them.
    """
    from lhcq.cli.session import Waited, open_workspace
    from lhcq.jets.mix import mix_datasets
    from lhcq.records.duplicates import describe_duplicates
    from lhcq.storage import MANIFEST
    from tasks.client import refuse_used_name

    workspace = open_workspace()
    final = workspace.dataset(name)
    stood = (final / MANIFEST).exists()  # the same mixture again is no error
    if not stood:
        refuse_used_name(workspace, "cluster", name, final)
    began = time.monotonic()
    manifest = mix_datasets(
        [workspace.dataset(one) for one in backgrounds],
        workspace.dataset(signal),
        final,
        n_signal=signal_events,
        n_background=background_events,
        seed=seed,
    )
    waited = Waited(code=0, seconds=None if stood else time.monotonic() - began)
    rows, labels = manifest["rows"], manifest["labels"]
    value = {"dataset": str(final), "seconds": waited.seconds, "events_per_second": waited.rate(rows)}
    facts = {
        key: manifest[key] for key in ("rows", "labels", "mixed", "duplicates", "source_sha256", "files")
    }
    text = (
        f"mixed {rows:,} events{waited.took(rows)}: {final}\n"
        f"  signal {labels['signal']:,}, background {labels['background']:,}"
    )
    if manifest["duplicates"]["rows"]:
        text += f"\n  {describe_duplicates(manifest['duplicates'])}: a fold keeps them together"
    answer(as_json, {**value, **facts}, text)
    return 0

"""A dataset mixed from others: so many signal events among background, to see what a search finds of them."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lhcq.errors import BadInput, NameTaken
from lhcq.jets.definitions import axes_of
from lhcq.jets.export_table import nth_jet
from lhcq.manifests import read_manifest, write_manifest
from lhcq.records.commits import differing
from lhcq.records.duplicates import Contents, Duplicates, hash_columns, read_firsts, write_duplicates
from lhcq.records.events import (
    ROW_GROUP,
    events_sha256,
    events_writer,
    names_of_jet,
    read_dataset,
    read_event_batches,
    read_events,
    read_schema,
    with_axes,
)
from lhcq.records.labels import LABELS, count_labels
from lhcq.storage import MANIFEST, sha256_of_json, staged_directory

Integers = NDArray[np.int64]

_TELLING = 4
"""Columns of a jet by which an event is told: its momentum and mass."""


class _Source:
    """The events of one class in one dataset, of which some are taken in order."""

    def __init__(self, directory: Path, label: int) -> None:
        self.directory = directory
        self.label = label
        self.manifest = read_dataset(directory)
        table = read_events(directory, ["row", "label"])
        self.rows: Integers = table["row"].to_numpy()
        self.positions: Integers = np.flatnonzero(table["label"].fill_null(-1).to_numpy() == label)

    def contents(self) -> Contents:
        """What tells each event of the class from others, of other datasets too: m_jj and leading jets, to the bit.

        0 where there is no jet.
        """
        schema = read_schema(self.directory)
        of_event, of_jet = sorted({"mjj"} & set(schema.names)), names_of_jet(schema)[:_TELLING]
        every = [np.zeros(0, np.uint64)]
        for batch in read_event_batches(self.directory, [*of_event, "jets"]):
            jets = [nth_jet(batch["jets"], rank) for rank in (0, 1)]
            columns = [batch[name] for name in of_event]
            columns += [pc.struct_field(jet, name) for jet in jets for name in of_jet]
            every.append(
                hash_columns(column.fill_null(0.0).to_numpy(zero_copy_only=False) for column in columns)
            )
        return np.concatenate(every)[self.positions]

    def batches(self, taken: Integers) -> Iterator[pa.Table]:
        """The events at these rising positions, a batch at a time."""
        begin = 0
        for batch in read_event_batches(self.directory):
            end = begin + batch.num_rows
            here = taken[np.searchsorted(taken, begin) : np.searchsorted(taken, end)] - begin
            if len(here):
                yield pa.Table.from_batches([batch]).take(pa.array(here))
            begin = end


def mix_datasets(
    backgrounds: Sequence[Path],
    signal: Path,
    final: Path,
    *,
    n_signal: int,
    n_background: int | None = None,
    seed: int = 1,
) -> dict[str, Any]:
    """Commit the dataset `final` of background events with `n_signal` signal events among them; gives its manifest.

    Background are the events with that label in the datasets `backgrounds`, one after the other: all, or
    `n_background` of them by chance; signal is drawn from those of `signal`. Which, and where they stand, is decided
    by `seed` alone. Rows are counted anew; labels stay. Raises `BadInput` where there are fewer events than asked
    for, for datasets whose jets differ, and for backgrounds that share events, which would count twice; `NameTaken`
    where another dataset has the name.
    """
    if len(set(backgrounds)) < len(backgrounds):
        raise BadInput("a dataset is named twice as background: its events would stand in the mixture twice.")
    sources = [*(_Source(path, 0) for path in backgrounds), _Source(signal, 1)]
    schema = _common_schema(sources)
    axes = axes_of(sources[0].manifest) if _has_taus(schema) else None
    fields = _asked(sources, final, counts=(n_signal, n_background), seed=seed)
    if (final / MANIFEST).exists():
        return _standing(final, fields)
    contents = [source.contents() for source in sources]
    _check_apart(sources[:-1], contents[:-1])
    taken, is_signal, told = _drawn(
        sources, contents, n_signal=n_signal, n_background=n_background, seed=seed
    )
    duplicates = _duplicates(sources, taken, is_signal, told)
    jets: Counter[int] = Counter()
    with staged_directory(final) as directory:
        write_duplicates(directory, duplicates)
        with events_writer(directory, with_axes(schema, axes)) as writer:
            for table in _mixed(sources, taken, is_signal, schema):
                jets.update(table["n_jets"].to_pylist() if "n_jets" in schema.names else _listed(table))
                writer.write_table(table, row_group_size=ROW_GROUP)
        counted = "events_by_n_jets" if "n_jets" in schema.names else "events_by_listed_jets"
        write_manifest(
            directory,
            **fields,
            kind="mix",
            tau_axes=axes,
            columns=schema.names,
            jet_columns=names_of_jet(schema),
            rows=len(is_signal),
            labels=count_labels({label: int((is_signal == label).sum()) for label in (1, 0)}),
            gaps=[],
            duplicates=duplicates.summary(),
            **{counted: {str(count): jets[count] for count in sorted(jets)}},
        )
    return _standing(final, fields)


def _asked(
    sources: Sequence[_Source], final: Path, *, counts: tuple[int, int | None], seed: int
) -> dict[str, Any]:
    """What a manifest says of what was asked for; the last source is signal, `counts` of signal and background."""
    return {
        "name": final.name,
        "source": ", ".join(source.directory.name for source in sources),
        "source_sha256": sha256_of_json(
            {
                "mixed": [[events_sha256(source.manifest), source.label] for source in sources],
                "counts": list(counts),
                "seed": seed,
            }
        ),
        "labels_sha256": None,
        "config": sources[0].manifest["config"],
        "mixed": {
            "backgrounds": [source.directory.name for source in sources[:-1]],
            "signal": sources[-1].directory.name,
            "seed": seed,
        },
    }


def _drawn(
    sources: Sequence[_Source],
    contents: Sequence[Contents],
    *,
    n_signal: int,
    n_background: int | None,
    seed: int,
) -> tuple[list[Integers], NDArray[np.bool_], Contents]:
    """Rows of each source that are taken; which events of the mixture (n,) are signal; contents of the rows taken."""
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed])))
    offsets = np.cumsum([0, *(len(source.positions) for source in sources[:-1])])
    chosen = _draw(random, int(offsets[-1]), n_background, LABELS[0], sources[0])
    drawn = _draw(random, len(sources[-1].positions), n_signal, LABELS[1], sources[-1])
    picked = [
        chosen[(chosen >= start) & (chosen < stop)] - start for start, stop in itertools.pairwise(offsets)
    ] + [drawn]
    taken = [source.positions[some] for source, some in zip(sources, picked, strict=True)]
    places = np.sort(random.choice(len(chosen) + len(drawn), len(drawn), replace=False, shuffle=False))
    is_signal = np.zeros(len(chosen) + len(drawn), bool)
    is_signal[places] = True
    return taken, is_signal, np.concatenate([one[some] for one, some in zip(contents, picked, strict=True)])


def _standing(final: Path, fields: dict[str, Any]) -> dict[str, Any]:
    manifest = read_manifest(final, what=f"dataset {final.name!r}", remedy="Mix it again.")
    if different := differing(manifest, {name: fields[name] for name in ("source_sha256", "config")}):
        raise NameTaken(f"{final}: exists already, with another {', '.join(different)}. Choose another name.")
    return manifest


def _has_taus(schema: pa.Schema) -> bool:
    return any(name.startswith("tau") for name in names_of_jet(schema))


def _common_schema(sources: Sequence[_Source]) -> pa.Schema:
    """Of all sources, whose jets were made alike."""
    first = sources[0]
    schema = read_schema(first.directory)
    for source in sources[1:]:
        other = read_schema(source.directory)
        ours, theirs = axes_of(first.manifest), axes_of(source.manifest)
        if ours != theirs and _has_taus(schema):
            raise BadInput(
                f"{source.directory.name}: its tau_N are about {theirs} axes, those of {first.directory.name} about "
                f"{ours}. Cluster both with one `--axes`, or import them with the same."
            )
        if not other.equals(schema) or source.manifest["config"] != first.manifest["config"]:
            raise BadInput(
                f"{source.directory.name}: its events have other columns or other jets than those of "
                f"{first.directory.name}. Cluster both alike."
            )
    return schema


def _draw(
    random: np.random.Generator, n_there: int, n_wanted: int | None, label: str, source: _Source
) -> Integers:
    """Positions of events, rising: all, or so many by chance."""
    if n_wanted is None:
        n_wanted = n_there
    if n_wanted > n_there or n_there == 0:
        raise BadInput(
            f"{source.directory.name}: {n_wanted:,} {label} events are asked for "
            f"(--{label}-events), and {n_there:,} have that label."
        )
    return np.sort(random.choice(n_there, n_wanted, replace=False, shuffle=False)).astype(np.int64)


def _mixed(
    sources: Sequence[_Source], taken: Sequence[Integers], is_signal: NDArray[np.bool_], schema: pa.Schema
) -> Iterator[pa.Table]:
    """The mixture, a row group at a time: memory holds that, and a batch of either class."""
    background = _Stream(
        table for source, some in zip(sources[:-1], taken[:-1], strict=True) for table in source.batches(some)
    )
    signal = _Stream(sources[-1].batches(taken[-1]))
    for start in range(0, len(is_signal), ROW_GROUP):
        here = is_signal[start : start + ROW_GROUP]
        n_signal = int(here.sum())
        table = pa.concat_tables(
            [background.next(len(here) - n_signal, schema), signal.next(n_signal, schema)]
        )
        order = np.empty(len(here), np.int64)
        order[~here] = np.arange(len(here) - n_signal)
        order[here] = np.arange(len(here) - n_signal, len(here))
        rows = pa.array(np.arange(start, start + len(here)), pa.int64())
        mixed = table.take(pa.array(order))
        yield (
            mixed.set_column(mixed.schema.get_field_index("row"), schema.field("row"), rows)
            .cast(schema)
            .combine_chunks()
        )


class _Stream:
    """Takes tables and gives as many rows of them as are asked for."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._held: list[pa.Table] = []

    def next(self, n: int, schema: pa.Schema) -> pa.Table:
        """The next `n` rows."""
        while sum(table.num_rows for table in self._held) < n:
            self._held.append(next(self._tables))
        held = pa.concat_tables([schema.empty_table(), *self._held])
        self._held = [held.slice(n)]
        return held.slice(0, n)


def _check_apart(sources: Sequence[_Source], contents: Sequence[Contents]) -> None:
    """Refuse backgrounds that share events, as two datasets of one file do, or a mixture and what it was made of."""
    for place, (source, own) in enumerate(zip(sources, contents, strict=True)):
        for other, theirs in zip(sources[:place], contents[:place], strict=True):
            shared = int(np.isin(own[own != 0], theirs).sum())
            if shared:
                raise BadInput(
                    f"{source.directory.name}: {shared:,} of its background events stand in {other.directory.name} "
                    "as well, and would count twice in the mixture. Leave one of the two out."
                )


def _duplicates(
    sources: Sequence[_Source], taken: Sequence[Integers], is_signal: NDArray[np.bool_], contents: Contents
) -> Duplicates:
    """What stands several times among the events that were taken, by their new rows.

    By the sources' own records, and by the `contents` (n,) of the events, in the order in which they were taken: an
    event that a source has with either label is signal and background here.
    """
    of_signal, of_background = np.flatnonzero(is_signal), np.flatnonzero(~is_signal)
    ends = np.cumsum([len(some) for some in taken[:-1]])
    new_rows = [*np.split(of_background, ends[:-1]), of_signal]
    known = contents != 0
    links = [_alike(np.concatenate(new_rows)[known], contents[known])]
    for source, some, rows in zip(sources, taken, new_rows, strict=True):
        links.append(_alike(rows, read_firsts(source.directory, source.manifest, source.rows[some])))
    every = np.arange(len(is_signal))
    one, another = np.concatenate([pair[0] for pair in links]), np.concatenate([pair[1] for pair in links])
    linked = coo_array((np.ones(len(one), bool), (one, another)), shape=(len(every), len(every)))
    _, group = connected_components(linked, directed=False)
    _, leader, which = np.unique(group, return_index=True, return_inverse=True)
    firsts = leader[which].astype(np.int64)
    later = np.flatnonzero(firsts != every)
    contrary = firsts[later][is_signal[later] != is_signal[firsts[later]]]
    return Duplicates(rows=later, firsts=firsts[later], n_contradictory=len(np.unique(contrary)))


def _alike(rows: Integers, keys: NDArray[Any]) -> tuple[Integers, Integers]:
    """Of the `rows` (n,) that share a key with one before them: they, and the first that has it."""
    _, leader, group = np.unique(keys, return_index=True, return_inverse=True)
    first = rows[leader][group]
    return rows[first != rows], first[first != rows]


def _listed(table: pa.Table) -> list[int]:
    counts: list[int] = pc.list_value_length(table["jets"]).to_pylist()
    return counts

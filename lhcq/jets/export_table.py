"""A dataset as one flat table: an event a row, a column for each number, for pandas, ROOT and spreadsheets."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from lhcq.jets.definitions import axes_of
from lhcq.jets.export import refuse_existing
from lhcq.records.csv_metadata import beside, describe_csv
from lhcq.records.events import (
    AXES_KEY,
    BATCH,
    ROW_GROUP,
    names_of_jet,
    read_dataset,
    read_event_batches,
    read_schema,
    with_axes,
)
from lhcq.storage import staged_file


def export_csv(dataset_dir: Path, path: Path) -> list[Path]:
    """Write the flat table as CSV and give the paths: a line of names, then a line an event in order of row.

    Numbers are the shortest that read back as the same float64; what is unknown is empty. Constituents, which are
    lists, are left out. Where there is tau_N, a second file says about which axes (`lhcq.records.csv_metadata`).
    Raises `NameTaken` where one of them exists.
    """
    axes = axes_of(read_dataset(dataset_dir))
    has_taus = any(name.startswith("tau") for name in names_of_jet(read_schema(dataset_dir)))
    paths = [path, beside(path)] if has_taus else [path]
    for one in paths:
        refuse_existing(one)
    with staged_file(path) as temporary:
        with temporary.open("wb") as stream:
            schema, batches = flatten_dataset(dataset_dir, lists=False)
            stream.write(",".join(schema.names).encode() + b"\n")  # Arrow would put the names into quotes
            options = pyarrow.csv.WriteOptions(include_header=False)
            with pyarrow.csv.CSVWriter(stream, schema, write_options=options) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        for one in paths[1:]:  # before the table, which would say nothing without it
            with staged_file(one) as metadata:
                metadata.write_text(describe_csv(path, axes), encoding="utf-8")
    return paths


def export_parquet(dataset_dir: Path, path: Path) -> Path:
    """Write the flat table as Parquet and give its path; what is unknown is null; the metadata has the axes of tau_N.

    Raises `NameTaken` where `path` exists.
    """
    axes = axes_of(read_dataset(dataset_dir))
    refuse_existing(path)
    with staged_file(path) as temporary:
        schema, batches = flatten_dataset(dataset_dir, size=ROW_GROUP)
        schema = with_axes(schema, axes).with_metadata({AXES_KEY: axes})
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
    return path


def flatten_dataset(
    dataset_dir: Path, *, size: int = BATCH, lists: bool = True
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The flat table's schema and its rows as a stream, at most `size` at a time.

    First the columns of the event, then those of its jets by falling pt: `j1_pt`, `j1_eta`, ..., `j2_pt`, ..., for as
    many jets as the event with most of them has. An event with fewer jets has null for the others. Without `lists`
    each column is a number.
    """
    source = read_schema(dataset_dir)
    n_jets = _longest_list(dataset_dir, names_of_jet(source)[0])
    schema = flat_schema(source, n_jets)
    if not lists:
        schema = pa.schema([field for field in schema if not pa.types.is_list(field.type)])
    return schema, (flatten_batch(batch, schema) for batch in read_event_batches(dataset_dir, size=size))


def flat_schema(source: pa.Schema, n_jets: int) -> pa.Schema:
    """The columns of the flat table of events with at most `n_jets` jets."""
    of_event = [field for field in source if field.name != "jets"]
    jet = source.field("jets").type.value_type
    of_jets = [
        pa.field(f"j{rank}_{jet.field(index).name}", jet.field(index).type)
        for rank in range(1, n_jets + 1)
        for index in range(jet.num_fields)
    ]
    return pa.schema([*of_event, *of_jets])


def flatten_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The rows of `batch` in the columns of `schema`."""
    columns = {name: batch[name] for name in batch.schema.names if name != "jets"}
    jets, rank = batch["jets"], 0
    names = names_of_jet(batch.schema)
    while f"j{rank + 1}_{names[0]}" in schema.names:
        one = nth_jet(jets, rank)
        rank += 1
        columns |= {f"j{rank}_{name}": pc.struct_field(one, name) for name in names}
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def nth_jet(jets: pa.ListArray, rank: int) -> pa.StructArray:
    """The jet number `rank`, from 0, of each event; null where there are fewer."""
    place = pc.add(jets.offsets[:-1], rank)
    there = pc.greater(pc.list_value_length(jets), rank)
    return jets.values.take(pc.if_else(there, place, pa.scalar(None, place.type)))


def _longest_list(dataset_dir: Path, column: str) -> int:
    """The largest number of jets that an event has in its list."""
    longest = 0
    for batch in read_event_batches(dataset_dir, [f"jets.list.element.{column}"]):
        longest = max(longest, pc.max(pc.list_value_length(batch["jets"])).as_py() or 0)
    return longest

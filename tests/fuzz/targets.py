"""What is attacked: everything of lhcq that reads bytes which somebody else may have written."""

import base64
import contextlib
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from lhcq.config import ClusterConfig, Frozen, GenerateConfig, SplitConfig, TrainConfig, check_name
from lhcq.errors import BadInput, LhcqError
from lhcq.evaluate.course import read_course
from lhcq.events.blocks import read_blocks
from lhcq.events.featurefile import OF_JETS, open_feature_file, read_features
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import open_event_file, write_event_file
from lhcq.events.masterkey import read_master_key
from lhcq.events.partial import open_partial
from lhcq.events.pytables import write_frame
from lhcq.events.ranges import Version, check_version, plan_again, plan_request, read_answer
from lhcq.jets.imported import build_records, imported_schema
from lhcq.jets.merge import merge_parts
from lhcq.jets.parts import write_part
from lhcq.jets.plan import events_per_chunk, plan_chunks
from lhcq.jets.records import schema_of
from lhcq.model.checkpoint import newest_checkpoint, recorded_rows, verified_step
from lhcq.model.labels import label_ids
from lhcq.model.preflight import estimate_needs
from lhcq.model.sources import check_model_directory, count_parameters
from lhcq.model.tokens import encode_prompts
from lhcq.prompts.templates import choose_columns, describe_template, render
from lhcq.prompts.writing import write_split
from lhcq.workspace import Workspace, read_manifest, verify_files, write_json, write_manifest
from tasks.admission import refusal
from tasks.controls import wish_of
from tasks.internals import task_and_arguments
from tasks.jobs import Failure, Job, Outcome, failures_of, find_job, list_jobs, outcome_of
from tasks.leases import Holder
from tasks.pending import pending_units, unit_of_key
from tests.fuzz.fuzz import Target
from tests.fuzz.mutation import mutate_bytes, mutate_json, strange_value

Files = dict[str, bytes]
"""By their names below a directory."""

refused = functools.partial(contextlib.suppress, LhcqError)


# HDF5


def _bytes_of(write: Callable[[Path], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        write(Path(place) / "file")
        return (Path(place) / "file").read_bytes()


def _events(n_events: int) -> tuple[Any, Any]:
    random = np.random.Generator(np.random.PCG64(1))
    particles = np.zeros((n_events, 700, 3))
    particles[:, :20] = random.random((n_events, 20, 3))
    return particles, np.arange(n_events) % 2


def _plain_table(path: Path, **storage: Any) -> None:
    particles, labels = _events(3)
    with h5py.File(path, "w") as file:
        values = np.column_stack([particles.reshape(3, 2100), labels])
        file.create_dataset("df/block0_values", data=values, **storage)


@functools.cache
def event_seeds() -> list[bytes]:
    """Small event files: as lhcq writes them, contiguous, deflated, a black box, of the newest format."""
    return [
        _bytes_of(lambda path: write_event_file(path, [_events(6)], 6, storage_rows=2)),
        _bytes_of(lambda path: _plain_table(path, dtype="f4")),
        _bytes_of(lambda path: _plain_table(path, chunks=(1, 2101), compression="gzip", shuffle=True)),
        _bytes_of(lambda path: _plain_table(path, chunks=(2, 700), fletcher32=True, compression="gzip")),
        _bytes_of(_newest_format),
    ]


def _newest_format(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("df/block0_values", data=_events(2)[0].reshape(2, 2100), chunks=(1, 2100))


@functools.cache
def real_seed() -> bytes | None:
    """The published 1,000 events."""
    where = os.environ.get("LHCQ_TEST_DATA")
    return Path(where, "events_anomalydetection_tiny.h5").read_bytes() if where else None


@functools.cache
def _metadata_of_real() -> int:
    """Bytes at the file's beginning in which its structure stands, and that are worth most of the changes."""
    return 65_536


def make_events(random: Random) -> bytes:
    return mutate_bytes(random.choice(event_seeds()), random)


def make_real(random: Random) -> bytes:
    whole = real_seed()
    if whole is None:
        return make_events(random)
    cut = _metadata_of_real() if random.random() < 0.7 else len(whole)
    return mutate_bytes(whole[:cut], random) + whole[cut:]


def attack_events(data: bytes, place: Path) -> None:
    path = place / "events.h5"
    path.write_bytes(data)
    with refused():
        inspect_file(path)
    file = open_event_file(path)
    plan_chunks(file.n_events, storage_rows=file.storage_rows, target=events_per_chunk(file.n_events, "jets"))
    for _ in read_blocks(file, 0, min(file.n_events, 64), skip_wrong=True):
        pass


@functools.cache
def feature_seeds() -> list[bytes]:
    """Small features files: named columns, numbered ones, two blocks."""
    values = np.random.Generator(np.random.PCG64(2)).random((5, 14)) + 1.0
    return [
        _bytes_of(lambda path: write_frame(path, [values], rows=5, columns=OF_JETS, storage_rows=2)),
        _bytes_of(lambda path: _two_blocks(path, values)),
    ]


def _two_blocks(path: Path, values: Any) -> None:
    with h5py.File(path, "w") as file:
        file["df/axis0"] = np.arange(15)
        file["df/block0_items"], file["df/block0_values"] = np.arange(14), values
        file["df/block1_items"], file["df/block1_values"] = np.array([14]), np.ones((5, 1), np.int64)


def make_features(random: Random) -> bytes:
    return mutate_bytes(random.choice(feature_seeds()), random)


def attack_features(data: bytes, place: Path) -> None:
    path = place / "features.h5"
    path.write_bytes(data)
    with refused():
        inspect_file(path)
    file = open_feature_file(path)
    schema = imported_schema(file.columns)
    for block in read_features(file, rows=16_384):
        build_records((block.rows, block.values, block.labels), schema)


def make_frame(random: Random) -> tuple[list[str], int]:
    names = [str(strange_value(random)) if random.random() < 0.2 else name for name in OF_JETS]
    return names[: random.randrange(1, 15)], random.randrange(1, 9)


def attack_frame(data: tuple[list[str], int], place: Path) -> None:
    """What `lhcq export` writes is read again, whatever the columns are called."""
    names, rows = data
    path = place / "frame.h5"
    if any("\ud800" in name or "\0" in name for name in names):
        return  # no column of lhcq's: its names are constants
    write_frame(path, [np.ones((rows, len(names)))], rows=rows, columns=names, storage_rows=2)
    file = open_feature_file(path)
    for _ in read_features(file, rows=4):
        pass


# Text


def make_key(random: Random) -> tuple[bytes, int]:
    n_events = random.randrange(1, 40)
    text = b"".join(random.choice((b"0\n", b"1\n", b"2\n", b"0.0\r\n", b"1e0\n")) for _ in range(n_events))
    return (mutate_bytes(text, random) if random.random() < 0.9 else random.randbytes(200)), n_events


def attack_key(data: tuple[bytes, int], place: Path) -> None:
    text, n_events = data
    (place / "key").write_bytes(text)
    labels = read_master_key(place / "key", n_events)
    assert labels.shape == (n_events,)
    assert set(labels.tolist()) <= {0, 1}


_HEADERS = (
    "content-range",
    "content-length",
    "etag",
    "last-modified",
    "retry-after",
    "location",
    "content-type",
)
_VALUES = (
    "bytes 5-9/10", "bytes */10", "bytes 5-99999999999999999999/1", "10", "-1", "9" * 30, '"md5:' + "a" * 32 + '"',
    'W/"x"', "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Foo 9999", "0", "1e9", "text/html", "gzip", "", "\0", "é" * 9,
)  # fmt: skip
URL = "https://example.org/file"


def make_download(random: Random) -> tuple[bytes, int, dict[str, str], int]:
    note = Version(url=URL, etag='"abc"', last_modified="Thu, 01 Jan 1970 00:00:00 GMT", total=10)
    spoilt = (
        mutate_json(note.model_dump(), random) if random.random() < 0.7 else note.model_dump_json().encode()
    )
    headers = {name: random.choice(_VALUES) for name in _HEADERS if random.random() < 0.5}
    return (
        spoilt,
        random.choice((200, 206, 206, 301, 403, 404, 416, 429, 500, 799)),
        headers,
        random.randrange(12),
    )


def attack_download(data: tuple[bytes, int, dict[str, str], int], place: Path) -> None:
    note, status, headers, done = data
    shutil.rmtree(place / "download", ignore_errors=True)
    final = place / "download" / "file"
    final.parent.mkdir()
    (final.parent / "file.part").write_bytes(b"x" * done)
    (final.parent / "file.part.json").write_bytes(note)
    with open_partial(final) as partial:
        ask = plan_request(done=partial.done, known=partial.version, url=URL, guarded=done % 2 == 0)
        answer = read_answer(ask, url=URL, status=status, headers=headers, known=partial.version)
        plan_again(ask, answer, partial.version)
        if version := getattr(answer, "version", None):
            check_version(version, size=10 if done % 3 else None, md5=None)


# Messages


class _Task:
    """A task as far as its arguments are concerned."""

    @staticmethod
    def run(name: str, index: int) -> None:
        """Take what a part's task takes."""


KNOWN = {"lhcq.cluster_part": _Task(), "celery.map": _Task()}


def make_message(random: Random) -> bytes:
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body: bytes = json.dumps([["made", 3], {}, nothing]).encode()
    if random.random() < 0.6:
        body = mutate_json([["made", 3], {}, nothing], random)
    tag = "0c2ecf1f-8af1-4b53-9ef3-3f3b0c2a8b2a"
    properties = {"correlation_id": tag, "delivery_tag": tag, "body_encoding": "base64", "priority": 0}
    message = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "lhcq.cluster_part", "id": tag, "retries": 0, "timelimit": [None, None]},
        "properties": {**properties, "delivery_info": {"exchange": "", "routing_key": "cpu"}},
    }
    return mutate_json(message, random) if random.random() < 0.7 else json.dumps(message).encode()


def attack_message(data: bytes, _: Path) -> None:
    """What is let in has a known task and the arguments that it takes; what is not is refused by a word."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):  # as the transport does
        return
    reason = refusal(message, KNOWN)
    if reason is None:
        task, (name, index) = task_and_arguments(data.decode())
        check_name(name, what="job")
        assert task == "lhcq.cluster_part"
        assert type(index) is int
        assert index >= 0
    else:
        assert len(ascii(reason)) < 3_000
        raise BadInput(reason)


# Records of the workspace


@functools.cache
def workspace_seed() -> Files:
    """A workspace with a job of each kind, at various stages."""
    with tempfile.TemporaryDirectory() as root:
        place = Workspace(Path(root))
        spec = {"n_events": 40, "storage_rows": 2, "events_per_chunk": 10, "config": {"features": "jets"}}
        terms = {"source": "/events.h5", "bytes": 1, "mtime_ns": 1, "labels": None, "tolerate": 0.0}
        training = {"checkpoint_steps": [10, 20], "total_steps": 20, "config": {}, "split": "made"}
        jobs = [
            Job(kind="cluster", name="made", created=1.0, spec=spec, terms=terms, parts=4),
            Job(kind="prepare", name="made", created=2.0, spec={"dataset": "made", "config": {}}),
            Job(kind="train", name="made", created=3.0, spec=training),
        ]
        for job in jobs:
            write_json(place.job(job.kind, job.name) / "job.json", job.model_dump())
        holder = Holder(host="host", pid=1, since=1.0, log=None)
        failure = Failure(
            unit="lhcq.cluster_part:made:2",
            message="m",
            permanent=False,
            attempts=5,
            by=holder,
            traceback="t",
        )
        write_json(place.job("cluster", "made") / "failed" / "one.json", failure.model_dump())
        outcome = Outcome(state="done", message="m", finished=4.0)
        write_json(place.job("prepare", "made") / "outcome.json", outcome.model_dump())
        run = place.run("made")
        write_json(run / "wish.json", {"wish": "run"})
        step = {"event": "step", "step": 10, "loss": 0.5, "samples_per_second": 3.0}
        (run / "events.jsonl").write_text(json.dumps(step) + "\n")
        checkpoint = place.checkpoint("made", 10)
        write_json(checkpoint / "state.json", {"step": 10, "pass": {"rows": 8, "tokens": 100}})
        write_manifest(checkpoint, step=10, config_hash="0")
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(Path(root).rglob("*"))
            if path.is_file()
        }


def make_workspace(random: Random) -> tuple[str, bytes]:
    return _spoil_one(workspace_seed(), random)


def _spoil_one(files: Files, random: Random) -> tuple[str, bytes]:
    """The name of one file, and what it is to hold."""
    name = random.choice(sorted(files))
    if name.endswith((".json", ".jsonl")) and random.random() < 0.85:
        return name, mutate_json(json.loads(files[name]), random)
    return name, mutate_bytes(files[name], random)


def _lay_out(files: Files, spoilt: tuple[str, bytes], root: Path) -> None:
    for name, content in {**files, spoilt[0]: spoilt[1]}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def attack_workspace(data: tuple[str, bytes], root: Path) -> None:
    """All that `lhcq status`, `why` and the reconciler read."""
    from lhcq.cli.runs import last_step
    from lhcq.cli.status import progress_of

    _lay_out(workspace_seed(), data, root / "workspace")
    place = Workspace(root / "workspace")
    for job in list_jobs(place):
        with refused():
            pending_units(place, job)
        with refused():
            progress_of(place, job, ended=False)
    for kind in ("cluster", "prepare", "train"):
        with refused():
            found = find_job(place, kind, "made")  # type: ignore[arg-type]
            if found is not None:
                outcome_of(place, found)
                [unit_of_key(failure.unit) for failure in failures_of(place, found)]
    run = place.run("made")
    for read in (
        lambda: wish_of(place, "made"),
        lambda: last_step(place, "made"),
        lambda: verified_step(newest_checkpoint(run / "checkpoints")[1]),  # type: ignore[index]
        lambda: recorded_rows(place.checkpoint("made", 10)),
    ):
        with refused():
            read()
    read_course(run, 10)


# Datasets and models


@functools.cache
def dataset_seed() -> Files:
    """A small dataset with its manifest, and a part."""
    with tempfile.TemporaryDirectory() as root:
        directory = Path(root) / "dataset"
        directory.mkdir()
        events = pa.concat_tables([_records(Random(index), "full") for index in range(30)])
        rows, labels = pa.array(range(len(events))), pa.array([n % 2 for n in range(len(events))], pa.int8())
        events = events.set_column(0, events.schema.field(0), rows).set_column(
            1, events.schema.field(1), labels
        )
        write_part(directory / "events.parquet", [events], {"cpu": "any"})
        write_manifest(directory, source_sha256="0" * 64, rows=len(events), labels={"signal": 1}, gaps=[])
        return {path.name: path.read_bytes() for path in directory.iterdir()}


def make_dataset(random: Random) -> tuple[str, bytes]:
    return _spoil_one(dataset_seed(), random)


def attack_dataset(data: tuple[str, bytes], place: Path) -> None:
    """A manifest, the files that it names, and events that are made prompts or merged."""
    directory, final = place / "dataset", place / "split"
    shutil.rmtree(final, ignore_errors=True)
    shutil.rmtree(place / "merged", ignore_errors=True)
    _lay_out(dataset_seed(), data, directory)
    with refused():
        verify_files(directory, read_manifest(directory, what="dataset", remedy="Make it."))
    with refused():
        write_split(directory, final, config=SplitConfig(limit=40))
    merge_parts(
        [directory / "events.parquet"], place / "merged", n_events=120, manifest_fields={}, features="full"
    )


@functools.cache
def model_seed() -> Files:
    """A model directory without a model to speak of."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    words = ["1", "2", "3", ":", "background", "signal", "[UNK]"]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": 6, "content": "[UNK]", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: n for n, word in enumerate(words)}, "unk_token": "[UNK]"},
    }  # fmt: skip
    shape = {"hidden_size": 2, "num_hidden_layers": 1, "vocab_size": 7, "intermediate_size": 2}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "tie_word_embeddings": True}
    return {
        "config.json": json.dumps({"model_type": "llama", **shape, **heads}).encode(),
        "model.safetensors": len(header).to_bytes(8, "little") + header + bytes(16),
        "model.safetensors.index.json": json.dumps({"weight_map": {"w": "model.safetensors"}}).encode(),
        "tokenizer.json": json.dumps(tokenizer).encode(),
        "tokenizer_config.json": json.dumps(
            {"bos_token": {"content": "[UNK]"}, "add_bos_token": False}
        ).encode(),
    }


def make_model(random: Random) -> tuple[str, bytes]:
    return _spoil_one(model_seed(), random)


def attack_model(data: tuple[str, bytes], place: Path) -> None:
    directory = place / "model"
    _lay_out(model_seed(), data, directory)
    with refused():
        check_model_directory(directory)
    with refused():
        count_parameters(directory)
    with refused():
        estimate_needs(directory, TrainConfig(), longest=20, bfloat16=False)
    label_ids(encode_prompts(directory), "1 2 3:")


# Configurations and prompts


_CONFIGURATIONS: tuple[type[Frozen], ...] = (ClusterConfig, SplitConfig, TrainConfig, GenerateConfig)


def make_configuration(random: Random) -> tuple[int, dict[str, Any]]:
    which = random.randrange(len(_CONFIGURATIONS))
    fields = sorted(_CONFIGURATIONS[which].model_fields)
    given = {random.choice(fields): strange_value(random) for _ in range(random.randrange(1, 4))}
    if random.random() < 0.1:
        given[str(strange_value(random))] = strange_value(random)
    return which, given


def attack_configuration(data: tuple[int, dict[str, Any]], _: Path) -> None:
    which, given = data
    _CONFIGURATIONS[which].checked(**given).model_dump_json()


def _records(random: Random, features: Any) -> pa.Table:
    """Four events with numbers as they come."""
    schema = schema_of(features)

    def value(field: pa.Field) -> Any:
        if field.nullable and random.random() < 0.2:
            return None
        if pa.types.is_struct(field.type):
            return {inner.name: value(inner) for inner in field.type}
        if pa.types.is_list(field.type):
            return [value(field.type.value_field) for _ in range(random.randrange(4))]
        if pa.types.is_integer(field.type):
            return random.choice((0, 1, 7, 100))
        return random.choice((0.0, -0.0, 1.5, 357.25, 1e3))

    return pa.Table.from_pylist(
        [{field.name: value(field) for field in schema} for _ in range(4)], schema=schema
    )


def make_prompts(random: Random) -> tuple[pa.Table, str, int | None]:
    table = _records(random, random.choice(("jets", "full")))
    if random.random() < 0.5:
        table = _with_strange_floats(table, random)
    if random.random() < 0.4:
        table = table.drop_columns([random.choice([name for name in table.column_names if name != "jets"])])
    if random.random() < 0.1:
        table = table.slice(0, 0)
    name = random.choice(("compact", "compact", "diary", str(strange_value(random))))
    return table, name, random.choice((None, None, 1, 2, 3, -1, 10**30))


def _with_strange_floats(table: pa.Table, random: Random) -> pa.Table:
    for index, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            strange = [
                random.choice((float("nan"), float("inf"), -1e308, 1e19, 5e-324)) for _ in range(len(table))
            ]
            table = table.set_column(index, field, pa.array(strange))
    return table


def attack_prompts(data: tuple[pa.Table, str, int | None], _: Path) -> None:
    table, name, version = data
    choose_columns(name, table.schema, version=version)
    describe_template(name, table.schema, version=version)
    prompts = render(name, table, version=version)
    assert len(prompts) == len(table)


TARGETS = (
    Target(name="events", share=24, make=make_events, attack=attack_events),
    Target(name="real events", share=2, make=make_real, attack=attack_events),
    Target(name="features", share=16, make=make_features, attack=attack_features),
    Target(name="frames", share=2, make=make_frame, attack=attack_frame),
    Target(name="messages", share=22, make=make_message, attack=attack_message),
    Target(name="workspace", share=14, make=make_workspace, attack=attack_workspace),
    Target(name="dataset", share=2, make=make_dataset, attack=attack_dataset),
    Target(name="master key", share=14, make=make_key, attack=attack_key),
    Target(name="download", share=14, make=make_download, attack=attack_download),
    Target(name="model", share=10, make=make_model, attack=attack_model),
    Target(name="configuration", share=6, make=make_configuration, attack=attack_configuration),
    Target(name="prompts", share=4, make=make_prompts, attack=attack_prompts),
)

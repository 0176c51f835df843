"""Files of other formats that hold events: what is in them, and the command that makes an HDF5 file of it.

Only headers are read. The commands hold the whole table in memory, which lhcq itself never does.
"""

import gzip
import shlex
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from lhcq.config import Axes
from lhcq.events.arrays import NPY, ZIP, named_fields, stored_arrays
from lhcq.events.names import FEATURE_WIDTHS, LABEL, OF_JETS, means_label
from lhcq.events.reduced import REDUCED_WIDTHS
from lhcq.events.signatures import HINT, LONGEST, tell, unpacked_by
from lhcq.events.text_tables import read_head

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
_HDF5 = (".h5", ".hdf5", ".hdf")
_LEAST_COLUMNS, _MOST_COLUMNS = 8, 2101
_LEAST_WIDTH = 30
"""Columns of particles that are read (`lhcq.events.plain`)."""
_SHOWN = 4
_MOST_ARRAYS = 20
_TO_HDF5 = "import h5py, numpy as np{}; d = {}; f = h5py.File('events.h5', 'w'); f['particles'] = {}{}"
_TO_FEATURES = (
    "import numpy as np, pathlib{more}; from lhcq.events.pytables import write_frame; d = {source}; k = {names!r}; "
    "k = {{n: c for n, c in k.items() if d[c].null_count < len(d)}}; "
    "write_frame(pathlib.Path('events.features.h5'), [np.column_stack([d[c]{absent} for n, c in k.items()])], "
    "rows=len(d), columns=list(k){says})"
)
_OF_NO_JET = ".fill_null(0) if n != 'label' else d[c]"
"""In a features file zeros stand for a jet that an event lacks, in lhcq's tables nothing does."""
_OF_A_JET = ("px", "py", "pz", "m", "tau1", "tau2", "tau3")
_OURS = {f"{name}j{rank}": f"j{rank}_{name}" for rank in (1, 2) for name in _OF_A_JET} | {LABEL: LABEL}
"""The columns of a features file, and of lhcq's own tables (`lhcq export --format csv` and `parquet`)."""
_TO_PADDED = (
    "import awkward as ak, h5py, numpy as np; d = ak.from_parquet({path!r}); m = int(ak.max(ak.num(d['pt']))); "
    "p = [ak.to_numpy(ak.fill_none(ak.pad_none(d[k], m, clip=True), 0)) for k in ('pt', 'eta', 'phi')]; "
    "f = h5py.File('events.h5', 'w'); f['particles'] = np.stack(p, axis=2){labels}"
)
_UNKNOWN = f", nor of a format that is known here. {HINT}"
_INDEX = ("", "Unnamed: 0", "__index_level_0__")
"""What the column is called in which pandas wrote the numbers of its rows."""


def describe_foreign(path: Path) -> str:
    """` but ...`: what a file is that is no HDF5, and how it becomes one."""
    with path.open("rb") as stream:
        head = stream.read(LONGEST)
    try:
        if head.startswith(GZIP):
            return f" but packed by gzip. Unpack it: `{unpacked_by('gunzip', path, '.gz', '.tgz')}`{_packed(path)}"
        if head.startswith(ZIP):
            return f" but a zip or .npz archive. {_describe_zip(path, head)}"
        if head.startswith(NPY):
            return f" but a .npy file. {_describe_numpy(path, head)}"
        if head.startswith(PARQUET):
            return f" but a parquet file. {_describe_parquet(path)}"
        told = tell(path, head)
        return f" but {told}" if told else _describe_text(path)
    except Exception:  # whatever a reader makes of a file that only begins like one of its own
        return f" but looks like another format, and is damaged. {HINT}"


def describe_records(path: Path, table: str, names: Sequence[str]) -> str:
    """What to do with an HDF5 data set, called `table`, whose rows are records of fields with these names."""
    source = (
        f"(lambda d: pa.table({{n: d[n] for n in d.dtype.names}}))(h5py.File({str(path)!r})[{table!r}][:])"
    )
    return _describe_columns(names, ", h5py, pyarrow as pa", source, None)


def _packed(path: Path) -> str:
    with gzip.open(path) as stream:
        inside = stream.read(8)
    return "" if inside.startswith(b"\x89HDF") else ", then see what is in it by `lhcq inspect`"


def _describe_zip(path: Path, head: bytes) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith(".npy") for name in names):
        return _describe_numpy(path, head)
    if not any(name.endswith(_HDF5) for name in names):
        return f"It holds {', '.join(names[:_SHOWN]) or 'nothing'}. {HINT}"
    return f"Unpack it: `unzip {shlex.quote(str(path))}`, then `lhcq inspect` what was in it."


def _describe_numpy(path: Path, head: bytes) -> str:
    """Of arrays that cannot be read in place: compressed, in Fortran's order, or of something else than numbers."""
    if (fields := named_fields(path)) is not None:
        source = f"(lambda d: pa.table({{n: d[n] for n in d.dtype.names}}))(np.load({str(path)!r}))"
        return _describe_columns(fields, ", pyarrow as pa", source, None)
    arrays = {one.name: one.shape for one in stored_arrays(path)}
    listed = ", ".join(f"{name} {shape}" for name, shape in list(arrays.items())[:_SHOWN]) or "no numbers"
    if not any(map(_are_events, arrays.values())) or len(arrays) > _MOST_ARRAYS:
        return f"It holds {listed}. {HINT}"
    if head.startswith(NPY):
        again = f"np.save('events.npy', np.ascontiguousarray(np.load({str(path)!r})))"
        return f"It holds an array {arrays['array']}. Write it again: `{_python(f'import numpy as np; {again}')}`."
    again = f"np.savez('events.npz', **{{n: np.ascontiguousarray(d[n]) for n in {list(arrays)!r}}})"
    code = f"import numpy as np; d = np.load({str(path)!r}); {again}"
    return f"It holds {listed}. Write them again without compression: `{_python(code)}`."


def _describe_parquet(path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lhcq.records.events import AXES_KEY

    schema = pq.read_schema(path)
    lists = [field.name for field in schema if pa.types.is_nested(field.type)]
    if lists:
        return _describe_lists(path, schema.names, lists)
    axes = (schema.metadata or {}).get(AXES_KEY.encode(), b"").decode(errors="replace")
    return _describe_columns(schema.names, ", pyarrow.parquet as pq", f"pq.read_table({str(path)!r})", axes)


def _describe_lists(path: Path, names: Sequence[str], lists: Sequence[str]) -> str:
    """Of events as awkward arrays have them, with as many particles as there are."""
    found = f"It has lists or records in {', '.join(lists[:_SHOWN])}."
    labels = [name for name in names if means_label(name)]
    if len(labels) > 1 or not {"pt", "eta", "phi"} <= set(lists):
        return f"{found} Read it by ak.from_parquet, pad it by ak.pad_none. {HINT}"
    last = "".join(f"; f['labels'] = ak.to_numpy({_item(label)})" for label in labels)
    return f"{found} Make an HDF5 file of it: `{_python(_TO_PADDED.format(path=str(path), labels=last))}`."


def _describe_text(path: Path) -> str:
    from lhcq.records.csv_metadata import axes_beside

    found = read_head(path)
    if found is None or (len(found.names) < _LEAST_COLUMNS and len(found.names) not in REDUCED_WIDTHS):
        return _UNKNOWN
    told = _describe_columns(
        found.names, found.more, found.source, axes_beside(path), nameless=found.nameless
    )
    return f" but {found.what}. {told}"


def _describe_columns(
    names: Sequence[str], more: str, source: str, axes: str | None, *, nameless: bool = False
) -> str:
    from lhcq.records.events import AXES_KEY

    listed = [*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])]
    found = f"It has {len(names)} columns ({', '.join(listed)})."
    names = [name for name in names if name not in _INDEX]
    nameless = nameless or all(map(str.isdecimal, names))
    if nameless and len(names) in REDUCED_WIDTHS:
        code = f"import numpy as np{more}; d = {source}; np.save('events.npy', np.column_stack([*d.columns]))"
        return f"{found} Make an array of it: `{_python(code)}`."
    places = {name: column for name, column in _OURS.items() if column in names} if "j1_px" in names else {}
    absent = _OF_NO_JET if places else ""
    if nameless and len(names) in FEATURE_WIDTHS:
        places = dict(zip((*OF_JETS, LABEL), names, strict=False))
    if places or "pxj1" in names:
        says = f", says={ {AXES_KEY: axes}!r}" if axes in get_args(Axes) else ""
        places = places or {name: name for name in names}
        code = _TO_FEATURES.format(more=more, source=source, names=places, absent=absent, says=says)
        return f"{found} Make a features file of it: `{_python(code)}`."
    labels = [name for name in names if means_label(name)]
    particles = [name for name in names if name not in labels]
    if (
        len(labels) > 1
        or len(particles) % 3 > (not labels)
        or not _LEAST_WIDTH <= len(particles) <= _MOST_COLUMNS
    ):
        return f"{found} {HINT}"
    columns = f"np.column_stack([d[k] for k in d.column_names if k not in {[*labels, *_INDEX]!r}])"
    return f"{found} {_command(more, source, columns, [_item(name) for name in labels])}"


def _command(more: str, source: str, particles: str, labels: Sequence[str]) -> str:
    last = "".join(f"; f['labels'] = {label}" for label in labels)
    return f"Make an HDF5 file of it: `{_python(_TO_HDF5.format(more, source, particles, last))}`."


def _python(code: str) -> str:
    """The command that runs `code`, whatever names from the file stand in it: a shell must not read them."""
    return f"python -c {shlex.quote(code)}"


def _item(name: str) -> str:
    return f"d[{name!r}]"


def _are_events(shape: tuple[int, ...]) -> bool:
    """Whether an array may be particles, or features."""
    known = (*REDUCED_WIDTHS, *FEATURE_WIDTHS)
    return (len(shape) == 3 and shape[2] == 3) or (
        len(shape) == 2 and (shape[1] in known or shape[1] >= _LEAST_COLUMNS)
    )

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
from lhcq.events.arrays import NPY, ZIP, stored_arrays
from lhcq.events.names import LABEL, NEAR_LABELS
from lhcq.events.signatures import HINT, LONGEST, tell

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
_HDF5 = (".h5", ".hdf5", ".hdf")
_LEAST_COLUMNS, _MOST_COLUMNS = 8, 2101
_SHOWN = 4
_LONGEST_HEAD = 1 << 18  # bytes, of the names of a few thousand columns
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
            return f" but packed by gzip. Unpack it: `gunzip --keep {shlex.quote(str(path))}`{_packed(path)}"
        if head.startswith(ZIP):
            return f" but a zip or .npz archive. {_describe_zip(path, head)}"
        if head.startswith(NPY):
            return f" but a .npy file. {_describe_numpy(path, head)}"
        if head.startswith(PARQUET):
            return f" but a parquet file. {_describe_parquet(path)}"
        told = tell(path, head)
        return f" but {told}" if told else _describe_csv(path)
    except Exception:  # whatever a reader makes of a file that only begins like one of its own
        return f" but looks like another format, and is damaged. {HINT}"


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
    arrays = {one.name: one.shape for one in stored_arrays(path)}
    listed = ", ".join(f"{name} {shape}" for name, shape in list(arrays.items())[:_SHOWN]) or "no numbers"
    particles = [name for name, shape in arrays.items() if _are_particles(shape)]
    if len(particles) != 1:
        return f"It holds {listed}. {HINT}"
    n = arrays[particles[0]][0]
    labels = [name for name, shape in arrays.items() if shape == (n,) and _means_label(name)]
    source = f"np.load({str(path)!r})"
    if head.startswith(NPY):
        return f"It holds an array {arrays[particles[0]]}. {_command('', source, 'd', [])}"
    return f"It holds {listed}. {_command('', source, _item(particles[0]), [_item(name) for name in labels[:1]])}"


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
    labels = [name for name in names if _means_label(name)]
    if len(labels) > 1 or not {"pt", "eta", "phi"} <= set(lists):
        return f"{found} Read it by ak.from_parquet, pad it by ak.pad_none. {HINT}"
    last = "".join(f"; f['labels'] = ak.to_numpy({_item(label)})" for label in labels)
    return f"{found} Make an HDF5 file of it: `{_python(_TO_PADDED.format(path=str(path), labels=last))}`."


def _describe_csv(path: Path) -> str:
    from lhcq.records.csv_metadata import axes_beside

    with path.open("rb") as stream:
        first = stream.read(_LONGEST_HEAD).split(b"\n", 1)[0]
    try:
        names = first.decode("utf-8").strip("\r").split(",")
    except UnicodeDecodeError:
        return _UNKNOWN
    if len(names) < _LEAST_COLUMNS or not first.isascii() or b"\0" in first:
        return _UNKNOWN
    names = [name.strip('"') for name in names]
    source = f"csv.read_csv({str(path)!r})"
    if _are_numbers(names):  # no names, but the first event
        source = f"csv.read_csv({str(path)!r}, csv.ReadOptions(autogenerate_column_names=True))"
        names = [f"f{place}" for place in range(len(names))]  # which Arrow calls them
    found = _describe_columns(names, ", pyarrow.csv as csv", source, axes_beside(path))
    return f" but a csv file. {found}"


def _describe_columns(names: Sequence[str], more: str, source: str, axes: str | None) -> str:
    from lhcq.records.events import AXES_KEY

    listed = [*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])]
    found = f"It has {len(names)} columns ({', '.join(listed)})."
    names = [name for name in names if name not in _INDEX]
    ours = {name: column for name, column in _OURS.items() if column in names} if "j1_px" in names else {}
    if ours or "pxj1" in names:
        says = f", says={ {AXES_KEY: axes}!r}" if axes in get_args(Axes) else ""
        places = ours or {name: name for name in names}
        code = _TO_FEATURES.format(
            more=more, source=source, names=places, absent=_OF_NO_JET if ours else "", says=says
        )
        return f"{found} Make a features file of it: `{_python(code)}`."
    labels = [name for name in names if _means_label(name)]
    particles = [name for name in names if name not in labels]
    if len(labels) > 1 or len(particles) % 3 > (not labels) or len(particles) > _MOST_COLUMNS:
        return f"{found} {HINT}"
    columns = f"np.column_stack([d[k] for k in d.column_names if k not in {[*labels, *_INDEX]!r}])"
    return f"{found} {_command(more, source, columns, [_item(name) for name in labels])}"


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether a table's first line has no names: they are numbers, and not those that pandas counts columns by."""
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return False
    return numbers != list(range(len(names)))


def _command(more: str, source: str, particles: str, labels: Sequence[str]) -> str:
    last = "".join(f"; f['labels'] = {label}" for label in labels)
    return f"Make an HDF5 file of it: `{_python(_TO_HDF5.format(more, source, particles, last))}`."


def _python(code: str) -> str:
    """The command that runs `code`, whatever names from the file stand in it: a shell must not read them."""
    return f"python -c {shlex.quote(code)}"


def _item(name: str) -> str:
    return f"d[{name!r}]"


def _means_label(name: str) -> bool:
    return name.lower() in (LABEL, *NEAR_LABELS)


def _are_particles(shape: tuple[int, ...]) -> bool:
    return (len(shape) == 3 and shape[2] == 3) or (len(shape) == 2 and shape[1] > _LEAST_COLUMNS)

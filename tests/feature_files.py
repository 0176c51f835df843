"""Features files as pandas writes them, and their import."""

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from lhcq.events.featurefile import LABEL, OF_JETS, open_feature_file, read_features
from lhcq.jets.import_features import imported_schema, write_imported

COLUMNS = (*OF_JETS, LABEL)


BLOSC = hdf5plugin.Blosc(cname="blosclz", clevel=5)


def make_values(n: int, seed: int = 0) -> np.ndarray:
    """(n, 15) features, background first and signal last, of which signal has higher masses."""
    rng = np.random.default_rng(seed)
    signal = np.arange(n) >= n - n // 4
    values = np.empty((n, 15))
    pt = np.sort(rng.uniform(1200, 2000, (n, 2)), axis=1)[:, ::-1]
    for first, column in ((0, 0), (7, 1)):
        phi, eta = rng.uniform(-np.pi, np.pi, n), rng.uniform(-2, 2, n)
        mass = rng.exponential(100, n) + 150 * signal
        momenta = (pt[:, column] * np.cos(phi), pt[:, column] * np.sin(phi), pt[:, column] * np.sinh(eta))
        tau1 = rng.uniform(50, 100, n)
        values[:, first : first + 7] = np.column_stack([*momenta, mass, tau1, tau1 / 2, tau1 / 4])
    values[:, 14] = signal
    return values


def write_index(group: h5py.Group, name: str, items: Any) -> None:
    """An index as pandas stores it: numbers, or strings as bytes of one length."""
    strings = len(items) > 0 and isinstance(items[0], str)
    index = group.create_dataset(name, data=np.array(items, dtype="S" if strings else "i8"))
    index.attrs["kind"] = "string" if strings else "integer"
    index.attrs["transposed"] = True


def write_frame(path: Path, blocks: list[tuple[Any, np.ndarray]], *, key: str = "df", **options: Any) -> Path:
    """A pandas frame in the fixed format: the columns of one type are a block, its items their names."""
    with h5py.File(path, "w") as file:
        group = file.create_group(key)
        group.attrs.update({"pandas_type": "frame", "ndim": 2, "nblocks": len(blocks), "encoding": "UTF-8"})
        write_index(group, "axis0", [item for items, _ in blocks for item in items])
        write_index(group, "axis1", range(len(blocks[0][1])))
        for number, (items, values) in enumerate(blocks):
            stored = group.create_dataset(f"block{number}_values", data=values, **options)
            stored.attrs["transposed"] = True
            write_index(group, f"block{number}_items", items)
    return path


def import_file(path: Path, final: Path, *, rows: int = 1000, labels: Any = None) -> dict[str, Any]:
    file = open_feature_file(path)
    blocks = (
        (block.rows, block.values, block.labels if labels is None else labels[block.rows])
        for block in read_features(file, rows=rows)
    )
    fields = {"name": final.name, "source_sha256": "ab" * 32}
    return write_imported(blocks, final, imported_schema(file.columns), **fields)

"""The C++ programs that clustering is measured against, built from the headers and libraries of FastJet's wheel."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import fastjet
import numpy as np
from numpy.typing import NDArray

from lhcq.jets.vectors import FourVectors

SOURCES = Path(__file__).parent / "cpp"
PROGRAMS = ("plain", "substructure")
MOMENTUM = ("px", "py", "pz", "e")
COLUMNS = {
    "plain": MOMENTUM,
    "substructure": (
        *MOMENTUM,
        *("tau1", "tau2", "tau3", "tau4", "m_sd", "z_g", "width", "z1", "z2", "c2", "d2"),
    ),
}
OPTIONS = ("-std=c++17", "-O3")
LIBRARIES = ("fastjetcontribfragile", "fastjettools", "fastjet")


def compiler() -> str | None:
    """The C++ compiler: `$CXX`, or g++, or none."""
    return shutil.which(os.environ.get("CXX") or "g++")


def build(program: str, directory: Path = SOURCES / "build") -> Path:
    """Compile one of `PROGRAMS` into `directory`, unless it stands there already."""
    found = compiler()
    if found is None:
        raise FileNotFoundError("no C++ compiler: install g++, or set CXX")
    wheel = Path(fastjet.__file__).parent
    place = wheel / "lib64"
    command = [
        *(found, *OPTIONS, f"-I{wheel / 'include'}", str(SOURCES / f"{program}.cc")),
        *(f"-L{place}", f"-Wl,-rpath,{place}", *(f"-l{name}" for name in LIBRARIES)),
    ]
    sources = b"".join(path.read_bytes() for path in (SOURCES / "events.hh", SOURCES / f"{program}.cc"))
    # Another compiler, wheel or source is another program.
    key = hashlib.sha256(" ".join([fastjet.__version__, *command]).encode() + sources).hexdigest()[:12]
    built = directory / f"{program}-{key}"
    if not built.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = built.with_name(f"{built.name}.{os.getpid()}")
        subprocess.run([*command, "-o", str(partial)], check=True)
        partial.replace(built)
    return built


def run(
    program: Path, vectors: FourVectors, *, radius: float = 1.0, pt_min: float = 20.0
) -> tuple[float, NDArray[np.float64]]:
    """CPU seconds of the program's loop over the events, and its values (n_events, 2, n_columns).

    The columns are those of `COLUMNS`, for the two leading jets; NaN where there are fewer.
    """
    with tempfile.TemporaryDirectory() as directory:
        source, out = Path(directory) / "events", Path(directory) / "values"
        with source.open("wb") as stream:
            stream.write(np.int64(len(vectors.counts)).tobytes())
            stream.write(vectors.offsets.tobytes())
            stream.write(np.stack([vectors.px, vectors.py, vectors.pz, vectors.e], axis=1).tobytes())
        done = subprocess.run(
            [program, source, out, repr(radius), repr(pt_min)], check=True, capture_output=True, text=True
        )
        columns = COLUMNS[program.name.partition("-")[0]]
        return float(done.stdout), np.fromfile(out).reshape(len(vectors.counts), 2, len(columns))

"""What a file is by its first bytes, where it holds no table that a command of one line makes an HDF5 file of."""

import shlex
import struct
from pathlib import Path

LONGEST = 512
"""Bytes of a file that tell what it is."""
_PARTICLES = (
    "write its particles as floats (n, M, 3) of pt, eta, phi with M up to 700, and `labels` (n,), into an HDF5 "
    "file."
)
HINT = _PARTICLES[0].upper() + _PARTICLES[1:]
_AGAIN = "Look at it, and download the file again."
_TOLD: tuple[tuple[bytes, str], ...] = (
    (b"root\0", f"a ROOT file. Read its branches by uproot, and {_PARTICLES}"),
    (b"HepMC::", f"events in HepMC's format. Read them by pyhepmc, and {_PARTICLES}"),
    (b"<LesHouchesEvents", f"partons of hard processes (LHE). Shower them, and {_PARTICLES}"),
    (b"ARROW1", f"an Arrow or Feather file. Read it by pyarrow.feather.read_table, and {_PARTICLES}"),
    (b"version https://git-lfs", "a pointer of Git LFS. Get what it points to: `git lfs pull`."),
    (b"<!doctype html", f"a web page, as servers send in place of a file. {_AGAIN}"),
    (b"<html", f"a web page, as servers send in place of a file. {_AGAIN}"),
)
_PACKED: tuple[tuple[bytes, str, str, str], ...] = (
    (b"BZh", "packed by bzip2", "bunzip2", ".bz2"),
    (b"\xfd7zXZ", "packed by xz", "unxz", ".xz"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", "unzstd", ".zst"),
)
"""How it begins, what that is called, what unpacks it, and what the name has to end in for that."""
_TAR, _TAR_AT = b"ustar", 257


def tell(path: Path, head: bytes) -> str | None:
    """What a file that begins with `head` is, and what to do with it; None where that does not say."""
    inside = "then `lhcq inspect` what was in it."
    for sign, what, program, ending in _PACKED:
        if head.startswith(sign):
            return f"{what}. Unpack it: `{unpacked_by(program, path, ending)}`, {inside}"
    if head[_TAR_AT:].startswith(_TAR):
        return f"an archive of tar. Unpack it: `tar xf {shlex.quote(str(path))}`, {inside}"
    plain = head.lstrip().lower()
    for sign, told in _TOLD:
        if plain.startswith(sign.lower()):
            return told
    if head[:1] == b"\x80" and 2 <= head[1] <= 5:
        return f"a Python pickle, which is a program. Open it only if you know who made it, and {_PARTICLES}"
    if _are_tfrecords(head, path.stat().st_size):
        return f"records of TensorFlow. Read them by tf.data.TFRecordDataset, and {_PARTICLES}"
    return None


def unpacked_by(program: str, path: Path, *endings: str) -> str:
    """The command that unpacks a file and keeps it; these programs refuse names without an ending of theirs."""
    if path.name.endswith(endings):
        return f"{program} --keep {shlex.quote(str(path))}"
    return f"{program} < {shlex.quote(str(path))} > {shlex.quote(f'{path}.unpacked')}"


def _are_tfrecords(head: bytes, size: int) -> bool:
    """A length, its checksum, and a message whose first field is a message: an Example of features."""
    return len(head) > 12 and struct.unpack("<Q", head[:8])[0] + 16 <= size and head[12:13] == b"\n"

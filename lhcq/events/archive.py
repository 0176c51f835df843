"""The published files of the LHC Olympics 2020: what they are, where they lie, how to know them again.

Sizes and md5s are those that the archive states for its records. Where it is not known here, it is None, and a
download of that file can be compared with nothing.
"""

import difflib
import urllib.parse

from pydantic import Field

from lhcq.errors import BadInput, NotThere
from lhcq.frozen import Frozen


class Record(Frozen):
    """Where a group of files is published, and how to cite it."""

    page: str
    """Address for people."""
    address: str
    """Address of one file, with a place for its name."""
    doi: str
    licence: str | None
    """None where it is not known here: the page says it."""
    citation: str | None
    """None alike."""

    def cited(self) -> str:
        """How to cite it, in a line."""
        if self.citation is None:
            return f"doi:{self.doi}, as {self.page} says"
        return f"{self.citation}, doi:{self.doi} ({self.licence})"


class ArchiveFile(Frozen):
    """One published file."""

    name: str
    """What people type."""
    file: str
    """The file's own name, in the archive and on the disk."""
    what: str
    record: Record
    size: int | None = Field(default=None, gt=0)
    """Bytes; None where not known."""
    md5: str | None = Field(default=None, pattern="^[0-9a-f]{32}$")
    holds: tuple[int, int, tuple[int, int] | None] | None = None
    """Rows, columns that are read, and background and signal events where it has labels."""


class Companion(Frozen):
    """A file that others published beside the set, of which neither size nor md5 is known here."""

    file: str
    what: str
    page: str


# Zenodo's addresses are `records/ID/files/FILE` since 2023; older forms redirect there.
_ZENODO = "https://zenodo.org/records/{record}/files/{{file}}?download=1"
_RND = Record(
    page="https://zenodo.org/records/6466204",
    address=_ZENODO.format(record=6466204),
    doi="10.5281/zenodo.6466204",
    licence="CC-BY-4.0",
    citation="G. Kasieczka, B. Nachman, D. Shih: R&D Dataset for LHC Olympics 2020 Anomaly Detection Challenge",
)
_BOXES = Record(
    page="https://zenodo.org/records/4536624",
    address=_ZENODO.format(record=4536624),
    doi="10.5281/zenodo.4536624",
    licence="CC-BY-4.0",
    citation="G. Kasieczka, B. Nachman, D. Shih: Official Datasets for LHC Olympics 2020 Anomaly Detection Challenge",
)
_EXTRA = Record(
    page="https://zenodo.org/records/8370758",
    address=_ZENODO.format(record=8370758),
    doi="10.5281/zenodo.8370758",
    licence=None,
    citation=None,
)
# The commit is named, so that the file cannot change under its md5. The repository states no licence of its own:
# the events are the R&D set's.
_EXAMPLE = _RND.model_copy(
    update={
        "page": "https://github.com/lhcolympics2020/parsingscripts",
        "address": "https://raw.githubusercontent.com/lhcolympics2020/parsingscripts/"
        "a464a08fa288d275a97148b5a063cae9aa19cfa7/{file}",
    }
)

_BOX = (1_000_000, 2100, None)

CATALOGUE: tuple[ArchiveFile, ...] = (
    ArchiveFile(
        name="tiny",
        file="events_anomalydetection_tiny.h5",
        what="1,000 events of the R&D set, 93 of them signal: to try things out",
        holds=(1000, 2101, (907, 93)),
        record=_EXAMPLE,
        size=2_587_490,
        md5="818296a20cdeba3b49c83f9f48968740",
    ),
    ArchiveFile(
        name="rnd",
        file="events_anomalydetection_v2.h5",
        what="R&D set: 1M QCD dijet events, 100k W' -> XY -> qq qq, labelled",
        holds=(1_100_000, 2101, (1_000_000, 100_000)),
        record=_RND,
        size=2_908_260_409,
        md5="629789d55813be3860781b084ae7f1de",
    ),
    ArchiveFile(
        name="rnd-features",
        file="events_anomalydetection_v2.features.h5",
        what="jet momenta, masses and tau_N of the R&D set",
        holds=(1_100_000, 15, (1_000_000, 100_000)),
        record=_RND,
        size=74_315_238,
        md5="271cf5e71fc756b2a8d2b32730689bdb",
    ),
    ArchiveFile(
        name="three-prong",
        file="events_anomalydetection_Z_XY_qqq.h5",
        what="100k signal events with three-prong decays, no background",
        holds=(100_000, 2100, None),
        record=_RND,
        size=235_488_994,
        md5="54e123a86143b668f9cb76905152a124",
    ),
    ArchiveFile(
        name="three-prong-features",
        file="events_anomalydetection_Z_XY_qqq.features.h5",
        what="jet momenta, masses and tau_N of the three-prong events",
        holds=(100_000, 14, None),
        record=_RND,
        size=5_176_081,
        md5="1e729f7dff225451182c28afaa4bb411",
    ),
    ArchiveFile(
        name="black-box-1",
        file="events_LHCO2020_BlackBox1.h5",
        what="1M events without label, 834 of them signal",
        holds=_BOX,
        record=_BOXES,
    ),
    ArchiveFile(
        name="black-box-1-key",
        file="events_LHCO2020_BlackBox1.masterkey",
        what="labels of black box 1, one a line: 0 or 1",
        record=_BOXES,
    ),
    ArchiveFile(
        name="black-box-2",
        file="events_LHCO2020_BlackBox2.h5",
        what="1M events without label, no signal (so no master key)",
        holds=_BOX,
        record=_BOXES,
    ),
    ArchiveFile(
        name="black-box-3",
        file="events_LHCO2020_BlackBox3.h5",
        what="1M events without label, 3,200 of them signal of two decay modes",
        holds=_BOX,
        record=_BOXES,
    ),
    ArchiveFile(
        name="black-box-3-key",
        file="events_LHCO2020_BlackBox3.masterkey",
        what="labels of black box 3, one a line: 0, 1 or 2",
        record=_BOXES,
    ),
    ArchiveFile(
        name="background-mc",
        file="events_LHCO2020_backgroundMC_Pythia.h5",
        what="1M QCD dijet events of Pythia 8, to be used with the black boxes",
        holds=_BOX,
        record=_BOXES,
    ),
    ArchiveFile(
        name="extra-qcd",
        file="events_anomalydetection_qcd_extra_inneronly_4vecs_and_features.h5",
        what="more QCD dijet events in the R&D set's signal region: particles, and features of the two leading jets",
        record=_EXTRA,
    ),
    ArchiveFile(
        name="extra-qcd-features",
        file="events_anomalydetection_qcd_extra_inneronly_features.h5",
        what="jet momenta, masses and tau_N of more QCD dijet events in the R&D set's signal region",
        record=_EXTRA,
    ),
)


_SUBJETTINESS = "https://github.com/uhh-pd-ml/treebased_anomaly_detection"
COMPANIONS: tuple[Companion, ...] = (
    Companion(
        file="events_anomalydetection_v2.extratau_2.features.h5",
        what="features of the R&D set with tau_N of beta 0.5, 1 and 2",
        page=_SUBJETTINESS,
    ),
    Companion(
        file="events_anomalydetection_DelphesPythia8_v2_qcd_extra_inneronly_combined_extratau_2_features.h5",
        what="features of more QCD events with tau_N of beta 0.5, 1 and 2",
        page=_SUBJETTINESS,
    ),
)
"""lhcq reads them; it does not load what it cannot verify and whose address it has not confirmed."""


def find_file(name: str) -> ArchiveFile:
    """The file that `name` means: its short name or its own; otherwise `NotThere` with the nearest ones."""
    for entry in CATALOGUE:
        if name in (entry.name, entry.file):
            return entry
    for companion in COMPANIONS:
        if name == companion.file:
            raise NotThere(
                f"{name}: lhcq knows neither its size nor its md5, so it does not load it. Load it from "
                f"{companion.page}; `lhcq inspect` says what can be done with it."
            )
    near = difflib.get_close_matches(name, [entry.name for entry in CATALOGUE], n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    raise NotThere(f"{name!r}: no such file in the catalogue.{guess} `lhcq fetch --list` shows all.")


def file_address(entry: ArchiveFile, mirror: str | None = None) -> str:
    """The URL of a file: in its archive, or `mirror`, a directory on the web that holds it under its own name."""
    if mirror is None:
        return entry.record.address.format(file=entry.file)
    try:
        parts = urllib.parse.urlsplit(mirror)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or not _is_plain(mirror):
        raise BadInput(
            f"{mirror!r} is not the address of a directory on the web. Give it as https://host/directory, without "
            "user name, query or fragment."
        )
    return f"{mirror.rstrip('/')}/{entry.file}"


def _is_plain(address: str) -> bool:
    """Whether a file's name can be put behind an address, and the whole into a request line."""
    return address.isascii() and address.isprintable() and not set(address) & set(" ?#")

"""Tables in text: what separates their columns, whether the first line has their names, and what reads them.

Only the first lines are looked at. Commas, tabs and semicolons go to Arrow's reader, blanks as `numpy.savetxt` writes
them to numpy's.
"""

import re
from pathlib import Path
from typing import NamedTuple

_LONGEST_HEAD = 1 << 18  # bytes, of the names of a few thousand columns
_LEAST_COLUMNS = 6
_SEPARATORS = {"\t": "a table separated by tabs", ";": "a table separated by semicolons", ",": "a csv file"}
"""In the order in which they are looked for: where numbers have commas, others separate them."""


class TextTable(NamedTuple):
    """What the first lines of a text say of it."""

    what: str
    names: list[str]
    """Of its columns, those that the reader gives where the text has none."""
    nameless: bool
    more: str
    """What a program imports for `source`, after `import numpy as np`."""
    source: str
    """The expression that reads it, a table of Arrow."""


def read_head(path: Path) -> TextTable | None:
    """What kind of table a file is; None where it is no text, or no table of at least six columns."""
    with path.open("rb") as stream:
        lines = stream.read(_LONGEST_HEAD).splitlines()[:2]
    if not lines or not lines[0].isascii() or b"\0" in lines[0]:
        return None
    first, second = (line.decode("ascii", errors="replace") for line in (*lines, b"")[:2])
    separator = next((one for one in _SEPARATORS if first.count(one) + 1 >= _LEAST_COLUMNS), None)
    if separator is None:
        return _separated_by_blanks(path, first, second)
    if second and second.count(separator) != first.count(separator):
        return None
    names = [name.strip(' "') for name in first.lstrip("#").split(separator)]
    nameless = _are_numbers(names)
    told = ["csv.ReadOptions(autogenerate_column_names=True)"] if nameless else []
    if separator != ",":
        told.append(f"parse_options=csv.ParseOptions(delimiter={separator!r})")
    if separator == ";" and re.search(r"\d,\d", second or first):
        told.append("convert_options=csv.ConvertOptions(decimal_point=',')")
    source = f"csv.read_csv({', '.join([repr(str(path)), *told])})"
    if nameless:
        names = [f"f{place}" for place in range(len(names))]  # which Arrow calls them
    elif first.lstrip().split(separator) != names:
        source = f"(lambda d: d.rename_columns([n.strip('# \"') for n in d.column_names]))({source})"
    return TextTable(_SEPARATORS[separator], names, nameless, ", pyarrow.csv as csv", source)


def _separated_by_blanks(path: Path, first: str, second: str) -> TextTable | None:
    names = first.lstrip("# ").split()
    numbers = second.split()
    if len(names) < _LEAST_COLUMNS or (second and (len(numbers) != len(names) or not _are_numbers(numbers))):
        return None  # a text
    nameless = _are_numbers(names)
    if nameless:
        names = [f"f{place}" for place in range(len(names))]
        told = f"[f'f{{i}}' for i in range({len(names)})]"
    else:
        words = f"np.loadtxt({str(path)!r}, str, None, max_rows=1)"
        told = f"[n.strip('#') for n in {words} if n != '#']"
    skipped = "" if nameless or first.startswith("#") else ", skiprows=1"
    source = f"pa.table([*np.loadtxt({str(path)!r}, ndmin=2{skipped}).T], names={told})"
    return TextTable("a table separated by blanks", names, nameless, ", pyarrow as pa", source)


def _are_numbers(names: list[str]) -> bool:
    """Whether a table's first line has no names: they are numbers, and not those that pandas counts columns by."""
    try:
        numbers = [float(name.replace(",", ".")) for name in names]
    except ValueError:
        return False
    return numbers != list(range(len(names)))

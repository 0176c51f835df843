#!/usr/bin/env bash
# h5py: where the filter of a table is not installed, the error tells of a directory and not of the filter.
#
# The released events of the LHC Olympics are packed by Blosc, which PyTables brings and h5py alone has not. Reading
# them with h5py ends in "can't open directory (/usr/local/lib/plugin). Please verify its existence": a place where HDF5
# looked for a plugin, which as a rule does not exist. Neither filter nor table is named, and it reads like a damaged
# installation or file. Who makes that directory, or names another one by HDF5_PLUGIN_PATH, is told "can't find plugin", and
# not which. Import hdf5plugin before reading; `h5py.h5z.filter_avail(id)` tells beforehand, with the dataset's filters.
# Seen with h5py 3.16.0 (HDF5 2.0.0) and hdf5plugin 7.1.0, on x86-64.
# Source: this program. Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet h5py==3.16.0 hdf5plugin==7.1.0 numpy==2.4.6
cd "$place"
unset HDF5_PLUGIN_PATH
"$place/venv/bin/python" - <<'PYTHON'
import h5py
import hdf5plugin
import numpy as np

with h5py.File("events.h5", "w") as file:
    file.create_dataset("df/block0_values", data=np.ones((4, 2101)), chunks=(2, 2101), **hdf5plugin.Blosc())
PYTHON
cat > read.py <<'PYTHON'
import h5py

with h5py.File("events.h5") as file:
    events = file["df/block0_values"]
    packed = events.id.get_create_plist().get_filter(0)
    try:
        print("read", events[0, 0], packed[3], h5py.h5z.filter_avail(packed[0]))
    except OSError as error:
        print("refused:", error)
        print("there:", h5py.h5z.filter_avail(packed[0]))
PYTHON
python=$place/venv/bin/python
"$python" -c "import h5py; print('h5py', h5py.__version__, 'HDF5', h5py.version.hdf5_version)"
"$python" read.py | tee alone
mkdir plugins
HDF5_PLUGIN_PATH=$PWD/plugins "$python" read.py | tee with_directory
(echo "import hdf5plugin"; cat read.py) > read_with.py
"$python" read_with.py | tee with_plugin
grep -q "can't open directory (/usr/local/.*plugin)" alone
grep -q "there: False" alone
grep -q "can't find plugin" with_directory
if grep -qi "blosc\|32001" alone with_directory; then echo "the filter is named now"; exit 1; fi
grep -q "read 1.0" with_plugin

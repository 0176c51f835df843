"""What finds jets is compiled, or says why it is not."""

import os
import subprocess
import sys


def test_numba_that_is_told_to_compile_nothing_is_refused_in_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import lhcq.jets.clustering as jets; jets.compile_kernels()"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert said.endswith("NUMBA_DISABLE_JIT is set: what finds jets runs compiled only. Unset it.")

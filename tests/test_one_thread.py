"""The program's matrix products stay on the thread that asks for them.

The other threads of a numerical library wait without sleeping, and on a busy machine what plays would wait for them.
"""

import os
import subprocess
import sys

import pytest

from musichal.installation import processors
from musichal.own_process import THREAD_SETTINGS

_PROGRAM = """
import os, sys
from musichal.__main__ import main
assert "numpy" not in sys.modules
sys.argv[1:] = ["--version"]
try:
    main()
except SystemExit:
    pass
import numpy as np
np.ones((2000, 768)) @ np.ones((768, 640))
sys.stdout.write(f"{len(os.listdir('/proc/self/task'))} threads")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the threads of a process by /proc")
@pytest.mark.skipif(processors() < 2, reason="on one processor, there is one thread in any case")
@pytest.mark.parametrize(("asked", "threads"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2)], ids=["usually", "asked for"])
def test_a_product_of_the_program_wakes_no_other_thread(asked: dict[str, str], threads: int) -> None:
    """Unless the user's environment asks for them: two threads then, which is what this would see without our setting."""
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, env={**environment, **asked}
    )
    assert done.stdout.splitlines()[-1] == f"{threads} threads"

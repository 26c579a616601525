"""The process that holds the input device, with a pause between finding the device and opening it.

Once it has found the device it makes the file ``$PAUSED_INPUT/found``, and goes on when there is a file ``$PAUSED_INPUT/go``:
what happens to the device in between is the test's to say.
"""

import os
import sys
import time
from pathlib import Path

from musichal.live.input import input_process
from musichal.live.input.input_process import AudioDevice

FOLDER = Path(os.environ["PAUSED_INPUT"])


class Paused(input_process._Process):
    def _find(self) -> AudioDevice:
        device = super()._find()
        (FOLDER / "found").touch()
        until = time.monotonic() + 60
        while not (FOLDER / "go").exists() and time.monotonic() < until:
            time.sleep(0.01)
        return device


if __name__ == "__main__":
    input_process._Process = Paused  # type: ignore[misc]
    input_process.main(sys.argv[1])

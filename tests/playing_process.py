"""A main process that plays chords without end, to be killed, stopped or interrupted: ``playing_process.py ADDRESS``.

Says ``{"scheduler": PID}`` when it plays. Chords of six long notes overlap, so that at any moment some sound.
"""

import json
import sys
import time

from musichal.stage.messages import Note
from musichal.stage.monotonic import now_s
from musichal.stage.port_settings import PortSettings
from musichal.stage.scheduler import Scheduler


def main() -> None:
    with Scheduler([PortSettings("out", sys.argv[1])]) as scheduler:
        due_s, chord = now_s() + 0.05, 0
        sys.stdout.write(json.dumps({"scheduler": scheduler.pid}) + "\n")
        sys.stdout.flush()
        while True:
            scheduler.alive()
            while due_s < now_s() + 0.3:
                scheduler.play([Note(due_s, 3.0, "out", 36 + chord % 12 + 7 * k, 90) for k in range(6)])
                due_s, chord = due_s + 0.1, chord + 1
            time.sleep(0.01)


if __name__ == "__main__":
    main()

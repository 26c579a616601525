"""Another program in the Link session of this machine: sets its tempo and transport as it is told.

On standard output it says every 50 ms what it sees, as `musichal.live.input.link` does. On standard input: ``tempo
97``, ``start``, ``stop``; the end of the input ends it.
"""
# ruff: noqa: T201 - talking is its trade.

import asyncio
import json
import os
import sys
import threading

import aalink

from musichal.live.input.link import look


async def main() -> None:
    link = aalink.Link(float(sys.argv[1]))
    link.start_stop_sync_enabled = True
    await asyncio.sleep(1.0)
    link.enabled = True
    loop = asyncio.get_running_loop()

    def obey() -> None:
        for line in sys.stdin:
            word, *values = line.split()
            if word == "tempo":
                loop.call_soon_threadsafe(setattr, link, "tempo", float(values[0]))
            else:
                loop.call_soon_threadsafe(setattr, link, "playing", word == "start")
        os._exit(0)

    threading.Thread(target=obey, daemon=True).start()
    while True:
        print(json.dumps(look(link)), flush=True)
        await asyncio.sleep(0.05)


asyncio.run(main())

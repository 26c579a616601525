"""Fingerprint what the demo and a session in each mode sound like: ``python tools/golden.py`` freezes them.

`tests/test_golden.py` compares them. Only the command line is used, so that a change inside the program cannot change the
question. Of each decision the outcome counts; its weights depend on the processor in their last bits.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden.json"
AUDIO = Path(__file__).resolve().parents[1] / "tests" / "audio"
MODES = ("shadow", "mirror", "couple", "lead", "contrast", "rest", "auto")
OUTCOME = ("time_s", "kind", "rest", "voice", "mode", "state", "source_start_s", "transposition", "notes")
_DECIMALS = 4


Run = Callable[..., None]
"""Runs one command of the program by its arguments; raises where it fails."""


def musichal(*arguments: str | Path) -> None:
    """Run one command of the program in a process of its own; raises `CalledProcessError` where it fails."""
    command = [sys.executable, "-P", "-m", "musichal", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def golden(folder: Path, modes: Sequence[str] = MODES, *, run: Run = musichal) -> dict[str, str]:
    """Play the demo and a session in each mode into `folder`; return a digest of each answer, offline and replayed."""
    demo = folder / "demo"
    run("demo", demo)
    digests = {"demo/reply.mid": digest((demo / "reply.mid").read_bytes())}
    for mode in modes:
        session, reply = folder / mode, folder / f"{mode}.mid"
        run("play", demo / "partner.hal", "--input", AUDIO / "ballad95_guitar.ogg", "--mode", mode, "--seed", "7",
            "--set", "voices=melody,bass", "--session", session)  # fmt: skip
        run("replay", session, "--midi-out", reply)
        digests[f"{mode}/reply.mid"] = digest((session / "reply.mid").read_bytes())
        digests[f"{mode}/replayed.mid"] = digest(reply.read_bytes())
        digests[f"{mode}/decisions"] = digest(canonical((session / "decisions.jsonl").read_text("utf-8"), OUTCOME))
        digests[f"{mode}/percepts"] = digest(canonical((session / "percepts.jsonl").read_text("utf-8")))
    return digests


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def canonical(lines: str, keys: tuple[str, ...] = ()) -> bytes:
    """Return JSON lines with floats rounded, of each line only `keys` where some are named."""

    def rounded(value: object) -> object:
        if isinstance(value, float):
            return round(value, _DECIMALS) + 0.0
        if isinstance(value, dict):
            return {key: rounded(item) for key, item in value.items()}
        return [rounded(item) for item in value] if isinstance(value, list) else value

    records: list[dict[str, object]] = []
    for line in lines.splitlines():
        record = json.loads(line)
        records.append({**records[-1], **record} if "as" in record else record)  # another voice of the same choice
    kept = [{key: record.get(key) for key in keys or record} for record in records]
    return "\n".join(json.dumps(rounded(record), sort_keys=True) for record in kept).encode()


def main() -> int:
    """Freeze what is played now."""
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(golden(Path(folder)), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

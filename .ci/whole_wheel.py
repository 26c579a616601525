"""Build the wheel and check that all that git has of the package is in it, the demo's recordings too."""
# ruff: noqa: D103, S603, S607, T201

import subprocess
import sys
import zipfile
from pathlib import Path


def main(folder: Path) -> int:
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, "."], check=True)
    (wheel,) = folder.glob("*.whl")
    tracked = subprocess.run(["git", "ls-files", "-z", "src/musichal"], capture_output=True, text=True, check=True).stdout
    packed = set(zipfile.ZipFile(wheel).namelist())
    missing = [name for name in tracked.split("\0") if name and name.removeprefix("src/") not in packed]
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {len(packed)} files; missing: {missing or 'none'}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

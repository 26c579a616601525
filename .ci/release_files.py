"""Build the sdist and the wheel and check them: `release_files.py FOLDER`. Needs the extra `release` and git."""
# ruff: noqa: S603, S607, T201

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


def run(*command: str | Path) -> None:
    """Run a module of this Python; raise if it fails."""
    subprocess.run([sys.executable, "-m", *command], check=True)


def main(folder: Path) -> int:
    """Return 0 if both files are complete and pass `twine check` and `check-wheel-contents`."""
    run("build", "--outdir", folder, ".")
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    run("twine", "check", "--strict", wheel, sdist)
    run("check_wheel_contents", wheel)
    listed = subprocess.run(["git", "ls-files", "-z", "src/musichal"], capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.split("\0") if name}
    packed = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    missing = sorted(name for name in tracked if name.removeprefix("src/") not in packed or name not in source)
    foreign = sorted(name for name in packed if not name.startswith(("musichal/", "musichal-")))
    for file in (wheel, sdist):
        print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
    print(f"missing: {missing or 'none'}; foreign: {foreign or 'none'}")
    return 1 if missing or foreign else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""A checkpoint as one value: which network, which weights, what it wants of samples, under which licence.

It is described without torch, but for the digest of a pytorch_model.bin the first time it is seen; then that is remembered
by the SHA-256 of the file.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musichal.arrays import Float32
from musichal.atomic import open_atomically
from musichal.errors import InputError
from musichal.hearing.encoders.learned import hub
from musichal.hearing.encoders.learned.cache import cache_folder
from musichal.hearing.encoders.learned.known import known_by_name, known_by_weights
from musichal.hearing.encoders.learned.layout import Architecture, Layout, parse_layout
from musichal.hearing.encoders.learned.weights import file_sha256, read_weights, tensors_digest
from musichal.text import printable, reason

PREFIX = "hf:"
_MAX_JSON_BYTES = 1 << 20
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEFAULT_RATE_HZ = 16000  # of Wav2Vec2FeatureExtractor, where no file says it
_UNKNOWN_LICENCE = "not stated"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights of the HuBERT family on this machine, and everything about them that shapes a feature.

    `name` is the name on the hub or the folder's own, `revision` the commit on the hub or "". `normalise` says that samples
    want zero mean and unit variance over the window, and `normalise_source` which file says so. `weights_sha256` is of the
    file, `digest` of what is in it: tensors, layout, rate and normalisation, the same for .bin and .safetensors.
    """

    folder: Path
    name: str
    revision: str
    layout: Layout
    sample_rate_hz: int
    normalise: bool
    normalise_source: str
    licence: str
    weights_path: Path
    weights_sha256: str
    digest: str

    @property
    def architecture(self) -> Architecture:
        """Return "mert", "hubert" or "wav2vec2"."""
        return self.layout.architecture

    @property
    def layers(self) -> int:
        """Return how many transformer layers there are: hidden states go from 0 to this."""
        return self.layout.layers

    @property
    def dims(self) -> int:
        """Return the length of a feature vector."""
        return self.layout.dims

    @property
    def frame_samples(self) -> int:
        """Return how many samples one frame sees in the convolutions, at `sample_rate_hz`."""
        return self.layout.frame_samples

    @property
    def stride_samples(self) -> int:
        """Return how many samples lie between frames."""
        return self.layout.stride_samples

    @property
    def default_layer(self) -> int:
        """Return the hidden state that is taken if none is named, the middle one: docs/results/learned-encoders.md says why."""
        return self.layout.layers // 2


def find_checkpoint(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    cache: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Checkpoint:
    """Return the checkpoint in a folder, or of a name on the Hugging Face hub.

    Parameters
    ----------
    name
        A folder, or ``OWNER/NAME`` on the hub; ``hf:`` before either is taken off.
    revision
        A commit, tag or branch on the hub. Of weights that are known here, the known commit if none is given; of others the
        newest.
    offline
        Stay off the network, as ``HF_HUB_OFFLINE=1`` does.
    cache
        Where to keep what is fetched and computed; the hub's and MusicHal's own folders if not given.
    say
        Told the licence before weights are downloaded, and where the cache stands in for the hub.

    Raises
    ------
    InputError
        If there is no such checkpoint, it cannot be reached, it is not of the HuBERT family, its files contradict each
        other, or its weights are damaged, carry code, or are not those that are known under this name.
    MissingExtraError
        If the extra `mert` is needed and not installed.
    """
    tell = say or _say_nothing
    wanted = name.removeprefix(PREFIX)
    folder, commit, known = Path(wanted).expanduser(), "", None
    if not wanted or not folder.is_dir():
        known = known_by_name(_hub_name(wanted, folder))
        wanted = known.name if known else wanted
        revision = revision or (known.revision if known else "main")

        def before_weights(small_files: Path) -> None:
            _read_description(small_files, wanted)  # what cannot be loaded is not worth the download
            licence = known.licence if known else _card_licence(small_files)
            size = f" ({known.weights_bytes / 1e6:.0f} MB)" if known else ""
            tell(f"{wanted}: the licence of these weights is {licence}. Downloading them once{size}")

        fetched = hub.fetch(
            wanted,
            revision=revision,
            offline=offline,
            hub_cache=cache / "hub" if cache else None,
            say=tell,
            before=before_weights,
        )
        folder, commit = fetched.folder, fetched.commit
    elif revision:
        raise InputError(f"{printable(folder)} is a folder: a revision is for names on the hub")
    own_name = wanted if commit else folder.resolve().name
    description = _read_description(folder, own_name)
    weights_path = _weights_in(folder)
    sha256 = file_sha256(weights_path)
    if known and commit == known.revision and sha256 != known.weights_sha256:
        raise InputError(
            f"{printable(weights_path)} is not what {known.name} published: its SHA-256 is {sha256},"
            f" not {known.weights_sha256}; remove it and download it again"
        )
    same_weights = known_by_weights(sha256)
    return Checkpoint(
        folder=folder,
        name=own_name,
        revision=commit,
        layout=description.layout,
        sample_rate_hz=description.sample_rate_hz,
        normalise=description.normalise,
        normalise_source=description.normalise_source,
        licence=same_weights.licence if same_weights else _card_licence(folder),
        weights_path=weights_path,
        weights_sha256=sha256,
        digest=_digest(description, _remembered_digest(weights_path, sha256, description.layout, cache or cache_folder())),
    )


def read_checked_weights(checkpoint: Checkpoint) -> dict[str, Float32]:
    """Return the tensors of a checkpoint by their published names.

    Raises `InputError` where they cannot be read, or are not those that `find_checkpoint` saw.
    """
    tensors = read_weights(checkpoint.weights_path, checkpoint.layout)
    description = _Description(checkpoint.layout, checkpoint.sample_rate_hz, checkpoint.normalise, checkpoint.normalise_source)
    if _digest(description, tensors_digest(tensors)) != checkpoint.digest:
        raise InputError(f"{printable(checkpoint.weights_path)} has changed since it was looked at")
    return tensors


@dataclass(frozen=True)
class _Description:
    """What the small files of a checkpoint say."""

    layout: Layout
    sample_rate_hz: int
    normalise: bool
    normalise_source: str


def _say_nothing(_text: str) -> None:
    pass


def _hub_name(wanted: str, path: Path) -> str:
    """Return `wanted` if it can be a name on the hub; raises `InputError` that says what it is instead."""
    if wanted and path.exists():
        raise InputError(f"{printable(path)} is not a folder: name the folder that has {hub.CONFIG} and the weights")
    if not _HUB_NAME.fullmatch(wanted):
        raise InputError(f"there is no folder '{printable(wanted)}', and it is not a name on the hub (OWNER/NAME)")
    return wanted


def _read_description(folder: Path, where: str) -> _Description:
    where = printable(where)
    config = _read_json(folder / hub.CONFIG, where)
    layout = parse_layout(config, where)
    preprocessor = _read_json(folder / hub.PREPROCESSOR, where)
    kind = preprocessor.get("feature_extractor_type", "Wav2Vec2FeatureExtractor")
    if kind != "Wav2Vec2FeatureExtractor" or preprocessor.get("feature_size", 1) != 1:
        asked = f"{printable(str(kind))[:60]} of size {printable(str(preprocessor.get('feature_size', 1)))[:20]}"
        raise InputError(f"{where} cannot be loaded: it does not take plain samples, its {hub.PREPROCESSOR} asks for {asked}")
    rates = {
        file: values[key]
        for file, values, key in ((hub.CONFIG, config, "sample_rate"), (hub.PREPROCESSOR, preprocessor, "sampling_rate"))
        if key in values
    }
    rate = next(iter(rates.values()), _DEFAULT_RATE_HZ)
    if any(type(value) is not int or not 8000 <= value <= 96000 for value in rates.values()):
        raise InputError(f"{where} cannot be loaded: its sample rate must be from 8000 to 96000 Hz, not {_listed(rates)}")
    if len(set(rates.values())) > 1:
        raise InputError(f"{where} cannot be loaded: its files differ in the sample rate, {_listed(rates)}")
    normalise = preprocessor.get("do_normalize", True)
    if not isinstance(normalise, bool):
        raise InputError(f"{where} cannot be loaded: do_normalize in its {hub.PREPROCESSOR} must be true or false")
    said = f"do_normalize: {str(normalise).lower()}" if "do_normalize" in preprocessor else "do_normalize left out, so true"
    return _Description(layout, rate, normalise, f"{hub.PREPROCESSOR} ({said})")


def _listed(rates: Mapping[str, object]) -> str:
    return " and ".join(f"{printable(str(rate))[:20]} in {file}" for file, rate in rates.items())


def _read_json(path: Path, where: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{where} is not a checkpoint: {printable(path.parent)} has no {path.name}")
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise InputError(f"{where} cannot be loaded: its {path.name} is larger than 1 MB")
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} cannot be loaded: its {path.name} is not JSON") from error
    if not isinstance(values, dict):
        raise InputError(f"{where} cannot be loaded: its {path.name} is not a table")
    return values


def _weights_in(folder: Path) -> Path:
    for file in hub.WEIGHTS:
        if (folder / file).is_file():
            return folder / file
    parts = next((f"{file}.index.json" for file in hub.WEIGHTS if (folder / f"{file}.index.json").exists()), None)
    hint = f": weights in parts ({parts}) are not read" if parts else ""
    raise InputError(f"{printable(folder)} has no weights, none of {' and '.join(hub.WEIGHTS)}{hint}")


def _card_licence(folder: Path) -> str:
    """Return the licence in the front matter of the model card."""
    try:
        with (folder / hub.CARD).open("rb") as stream:
            card = stream.read(_MAX_JSON_BYTES).decode("utf-8", "replace")
    except OSError:
        return _UNKNOWN_LICENCE
    front = re.match(r"\ufeff?---\s*\n(.*?)\n---", card, re.DOTALL)
    stated = re.search(r"^license:[ \t]*(\S.*?)[ \t]*$", front[1], re.MULTILINE) if front else None
    return printable(stated[1].strip("\"'"))[:80].upper() if stated else _UNKNOWN_LICENCE


def _digest(description: _Description, tensors: str) -> str:
    values = [description.layout.digest(), description.sample_rate_hz, description.normalise, tensors]
    return hashlib.sha256(f"checkpoint 1 {json.dumps(values)}".encode()).hexdigest()


def _remembered_digest(weights: Path, sha256: str, layout: Layout, cache: Path) -> str:
    """Return the digest of the tensors: read, checked and computed the first time, remembered by the file's SHA-256 after."""
    note = cache / "digests" / f"{sha256}.{layout.digest()[:16]}"
    with suppress(OSError, UnicodeDecodeError):
        remembered = note.read_text("ascii")
        if _SHA256.fullmatch(remembered):
            return remembered
    digest = tensors_digest(read_weights(weights, layout))
    # A cache that cannot be written costs a second the next time, no more.
    with suppress(OSError, InputError):
        note.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(note) as stream:
            stream.write(digest.encode())
    return digest

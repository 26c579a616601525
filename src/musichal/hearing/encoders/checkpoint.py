"""Checkpoints of learned encoders, in a folder or on the Hugging Face hub, described without torch.

HuBERT (Hsu et al. 2021), wav2vec 2.0 (Baevski et al. 2020) and MERT (Li et al. 2023, its CQT branch and deepnorm off) are one
network with a few switches. A config is a stranger's: every size is bounded, and a switch that would change the computation
is refused. No program of a checkpoint is downloaded or run.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.machine import sha256_of
from musichal.text import printable, reason

EXTRA = "mert"
PREFIX = "hf:"
CONFIG, PREPROCESSOR, CARD = "config.json", "preprocessor_config.json", "README.md"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weights files; the first one present is used."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)

_ARCHITECTURES = {"mert_model": "mert", "hubert": "hubert", "wav2vec2": "wav2vec2"}
_MAX_JSON_BYTES = 1 << 20
_DEFAULT_RATE_HZ = 16000  # of Wav2Vec2FeatureExtractor, if no file names a rate
# Sizes of the network: default, smallest and largest value.
_SIZES = {
    "hidden_size": (768, 1, 8192),
    "num_hidden_layers": (12, 1, 128),
    "num_attention_heads": (12, 1, 256),
    "intermediate_size": (3072, 1, 32768),
    "num_conv_pos_embeddings": (128, 1, 4096),
    "num_conv_pos_embedding_groups": (16, 1, 8192),
}
# Per convolution: default and largest value.
_CONVOLUTIONS: dict[str, tuple[tuple[int, ...], int]] = {
    "conv_dim": ((512,) * 7, 8192),
    "conv_kernel": ((10, 3, 3, 3, 3, 2, 2), 64),
    "conv_stride": ((5, 2, 2, 2, 2, 2, 2), 64),
}
# Switches of the computation, with the values that transformers' HubertModel and Wav2Vec2Model implement; the first is the
# default. The last five must keep it.
_SWITCHES: dict[str, tuple[Any, ...]] = {
    "feat_extract_norm": ("group", "layer"),
    "conv_bias": (False, True),
    "feat_proj_layer_norm": (True, False),
    "do_stable_layer_norm": (False, True),
    "feat_extract_activation": ("gelu",),
    "hidden_act": ("gelu",),
    "feature_extractor_cqt": (False,),
    "deepnorm": (False,),
    "conv_pos_batch_norm": (False,),
    "add_adapter": (False,),
    "adapter_attn_dim": (None,),
}


class MERT:
    """MERT-v1-95M on the hub: the revision that is meant, and the SHA-256 of its weights."""

    name = "m-a-p/MERT-v1-95M"
    revision = "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5"
    sha256 = "a2b8b747f72c06e0595aeae41ae5473f4364938c6b39b2c58be38c48e6bd3fcd"
    licence = "CC-BY-NC-4.0"  # of today's model card; cards of 2023 said MIT for the same bytes, the stricter one counts


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on this machine, and everything about it that shapes a feature.

    `name` is its name on the hub or its folder's, `revision` the commit on the hub or "". `config` has the sizes and switches
    of the network under the names of transformers. `normalise` says whether windows need zero mean and unit variance, and
    `normalise_source` which file says so.
    """

    folder: Path
    name: str
    revision: str
    architecture: str
    config: Mapping[str, Any]
    sample_rate_hz: int
    normalise: bool
    normalise_source: str
    licence: str
    weights_path: Path
    weights_sha256: str

    @property
    def layers(self) -> int:
        """Return the number of transformer layers: hidden states go from 0 to this."""
        return int(self.config["num_hidden_layers"])

    @property
    def default_layer(self) -> int:
        """Return the hidden state used if none is named, the middle one: docs/results/learned-encoders.md says why."""
        return self.layers // 2

    @property
    def dims(self) -> int:
        """Return the length of a feature vector."""
        return int(self.config["hidden_size"])

    @property
    def stride_samples(self) -> int:
        """Return the distance of frames, in samples at `sample_rate_hz`."""
        return math.prod(self.config["conv_stride"])

    @property
    def frame_samples(self) -> int:
        """Return how many samples the convolutions need for one frame."""
        span = 1
        for kernel, stride in zip(reversed(self.config["conv_kernel"]), reversed(self.config["conv_stride"]), strict=True):
            span = (span - 1) * stride + kernel
        return span

    @property
    def digest(self) -> str:
        """Return the SHA-256 of weights, network, rate and normalisation, 64 hexadecimal digits."""
        values = [self.architecture, dict(self.config), self.sample_rate_hz, self.normalise, self.weights_sha256]
        return hashlib.sha256(f"checkpoint 2 {json.dumps(values, sort_keys=True)}".encode()).hexdigest()

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` if there is no such hidden state."""
        if not 0 <= layer <= self.layers:
            raise InputError(f"{self.name} has layers 0 to {self.layers}, not {layer}")


def import_extra(package: str, purpose: str) -> ModuleType:
    """Return a package of the extra `mert`; raises `MissingExtraError` that says what it is needed for."""
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtraError(f"{purpose} needs {package}, of the extra '{EXTRA}'; {install_hint(EXTRA)}") from error


def find_checkpoint(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    hub_cache: Path | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> Checkpoint:
    """Return the checkpoint in a folder, or of a name on the Hugging Face hub (``OWNER/NAME``; a prefix ``hf:`` is ignored).

    `revision` is a commit, tag or branch: by default the published commit of MERT, the newest of others. `offline` uses the
    hub's cache only, as ``HF_HUB_OFFLINE=1`` does. `say` receives the licence before weights are downloaded.

    Raises `InputError` if the checkpoint cannot be reached, is not of the HuBERT family, or its files contradict each other or
    what is published under its name; `MissingExtraError` if huggingface_hub is needed and not installed.
    """
    wanted = name.removeprefix(PREFIX)
    folder, commit = Path(wanted).expanduser(), ""
    if not wanted or not folder.is_dir():
        if wanted and folder.exists():
            raise InputError(f"{printable(folder)} is not a folder: name the folder that has {CONFIG} and the weights")
        if not HUB_NAME.fullmatch(wanted):
            raise InputError(f"there is no folder '{printable(wanted)}', and it is not a name on the hub (OWNER/NAME)")
        is_mert = wanted.lower() == MERT.name.lower()
        wanted = MERT.name if is_mert else wanted
        revision = revision or (MERT.revision if is_mert else "main")
        folder = _fetch(wanted, revision=revision, offline=offline, cache=hub_cache, say=say)
        commit = folder.name
    elif revision:
        raise InputError(f"{printable(folder)} is a folder: a revision is for names on the hub")
    own_name = wanted if commit else folder.resolve().name
    described = _read_description(folder, own_name)
    weights = _weights_in(folder)
    sha256 = sha256_of(weights)
    if (own_name, commit) == (MERT.name, MERT.revision) and sha256 != MERT.sha256:
        raise InputError(
            f"{printable(weights)} is not what {MERT.name} published: its SHA-256 is {sha256}, not {MERT.sha256};"
            " remove it and download it again"
        )
    licence = MERT.licence if sha256 == MERT.sha256 else _card_licence(folder)
    return Checkpoint(
        folder=folder,
        name=own_name,
        revision=commit,
        licence=licence,
        weights_path=weights,
        weights_sha256=sha256,
        **described,
    )


def _read_description(folder: Path, name: str) -> dict[str, Any]:
    """Return what config.json and preprocessor_config.json say, as arguments of `Checkpoint`."""
    where = printable(name)
    config, preprocessor = (_read_json(folder / file, where) for file in (CONFIG, PREPROCESSOR))
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        raise InputError(f"{where} is not a MERT, HuBERT or wav2vec 2.0 checkpoint: its model_type is {_brief(kind)}")
    if preprocessor.get("feature_extractor_type", "Wav2Vec2FeatureExtractor") != "Wav2Vec2FeatureExtractor" or (
        preprocessor.get("feature_size", 1) != 1
    ):
        raise InputError(f"{where} cannot be loaded: its {PREPROCESSOR} does not ask for plain samples")
    rates = [v[key] for v, key in ((config, "sample_rate"), (preprocessor, "sampling_rate")) if key in v]
    if any(type(rate) is not int or not 8000 <= rate <= 96000 for rate in rates):
        raise InputError(f"{where} cannot be loaded: its sample rate must be in [8000, 96000] Hz, got {_brief(rates)}")
    if len(set(rates)) > 1:
        raise InputError(f"{where} cannot be loaded: its files differ in the sample rate, {rates[0]} and {rates[1]} Hz")
    normalise = preprocessor.get("do_normalize", True)
    if not isinstance(normalise, bool):
        raise InputError(f"{where} cannot be loaded: do_normalize in its {PREPROCESSOR} must be true or false")
    said = f"do_normalize: {str(normalise).lower()}" if "do_normalize" in preprocessor else "do_normalize left out, so true"
    return {
        "architecture": _ARCHITECTURES[kind],
        "config": parse_config(config, where),
        "sample_rate_hz": rates[0] if rates else _DEFAULT_RATE_HZ,
        "normalise": normalise,
        "normalise_source": f"{PREPROCESSOR} ({said})",
    }


def parse_config(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the sizes and switches of a network; raises `InputError` if one is out of bounds or not supported."""
    config: dict[str, Any] = {}

    def check(name: str, value: Any, fine: bool, wanted: str) -> None:
        if not fine:
            raise InputError(f"{where} cannot be loaded: {name} must be {wanted}, got {_brief(value)}")
        config[name] = value

    for name, (default, least, most) in _SIZES.items():
        value = values.get(name, default)
        check(name, value, type(value) is int and least <= value <= most, f"a whole number in [{least}, {most}]")
    for name, (defaults, most) in _CONVOLUTIONS.items():
        value = values.get(name, defaults)
        fine = (
            isinstance(value, list | tuple) and 1 <= len(value) <= 16 and all(type(v) is int and 1 <= v <= most for v in value)
        )
        check(name, list(value) if fine else value, fine, f"1 to 16 whole numbers in [1, {most}]")
    for name, allowed in _SWITCHES.items():
        value = values.get(name, allowed[0])
        fine = any(type(value) is type(a) and value == a for a in allowed)
        check(name, value, fine, " or ".join(str(a).lower() for a in allowed))
    epsilon, relax = values.get("layer_norm_eps", 1e-5), values.get("attention_relax", -1.0)
    check("layer_norm_eps", epsilon, type(epsilon) in (int, float) and 1e-12 <= epsilon <= 1e-2, "in [1e-12, 0.01]")
    check("attention_relax", relax, type(relax) in (int, float) and relax <= 0, "off (at most 0)")
    del config["attention_relax"]
    dims = config["hidden_size"]
    for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
        check(name, config[name], dims % config[name] == 0, f"a divisor of hidden_size, {dims}")
    if len({len(config[name]) for name in _CONVOLUTIONS}) > 1:
        raise InputError(f"{where} cannot be loaded: {', '.join(_CONVOLUTIONS)} differ in length")
    if math.prod(config["conv_stride"]) > 1 << 16:
        raise InputError(f"{where} cannot be loaded: its frames are {math.prod(config['conv_stride'])} samples apart")
    return config


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
    for file in WEIGHTS:
        if (folder / file).is_file():
            return folder / file
    raise InputError(f"{printable(folder)} has no weights: needs {' or '.join(WEIGHTS)} (weights in parts are not supported)")


def _card_licence(folder: Path) -> str:
    """Return the licence in the front matter of the model card."""
    card = ""
    with suppress(OSError), (folder / CARD).open("rb") as stream:
        card = stream.read(_MAX_JSON_BYTES).decode("utf-8", "replace")
    front = re.match(r"\ufeff?---\s*\n(.*?)\n---", card, re.DOTALL)
    stated = re.search(r"^license:[ \t]*(\S.*?)[ \t]*$", front[1], re.MULTILINE) if front else None
    return printable(stated[1].strip("\"'"))[:80].upper() if stated else "not stated"


def _brief(value: object) -> str:
    """Return a stranger's value as text that fits a message."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fetch(name: str, *, revision: str, offline: bool, cache: Path | None, say: Callable[[str], None]) -> Path:
    """Return the folder of a checkpoint in the hub's cache, its missing files downloaded.

    huggingface_hub caches, resumes, and falls back to its cache where the hub cannot be reached. Only the files that are read
    are fetched, the weights last: a checkpoint that cannot be loaded is not downloaded.
    """
    hub = import_extra("huggingface_hub", f"looking for {name} on the hub")
    errors = import_extra("huggingface_hub.errors", f"looking for {name} on the hub")

    def get(file: str, at: str) -> Path | None:
        try:
            return Path(hub.hf_hub_download(name, file, revision=at, cache_dir=cache, local_files_only=offline))
        except (errors.LocalEntryNotFoundError, errors.EntryNotFoundError) as error:
            if file == CONFIG:
                raise InputError(_explained(errors, error, name, revision)) from error
            return None
        except Exception as error:  # the hub's client passes on the errors of its HTTP library too
            raise InputError(_explained(errors, error, name, revision)) from error

    config = get(CONFIG, revision)
    assert config is not None
    folder, commit = config.parent, config.parent.name
    for file in (PREPROCESSOR, CARD):
        get(file, commit)
    _read_description(folder, name)
    if not any((folder / file).is_file() for file in WEIGHTS):
        licence = MERT.licence if name == MERT.name else _card_licence(folder)
        say(f"{name}: the licence of these weights is {licence}. Downloading them once")
        if not any(get(file, commit) for file in WEIGHTS):
            raise InputError(f"{name} has none of {' and '.join(WEIGHTS)}, or they cannot be reached")
    return folder


def _explained(errors: ModuleType, error: Exception, name: str, revision: str) -> str:
    """Return one line for an error of the hub's client."""
    # Gated repositories are a kind of those not found, and entries not in the cache one of those not there: order counts.
    known = {
        errors.GatedRepoError: f"{name} wants its terms accepted: do so on its page on the hub, and run `hf auth login`",
        errors.RevisionNotFoundError: f"{name} on the hub has no revision {revision}",
        errors.RepositoryNotFoundError: f"there is no {name} on the hub, and no folder of that name here",
        errors.LocalEntryNotFoundError: f"{name} ({revision[:12]}) is not in the cache of this machine, and the hub cannot be"
        " reached: check the network, or name a folder that has its files",
        errors.EntryNotFoundError: f"{name} on the hub has no {CONFIG}: its layout is not supported",
    }
    text = next((text for kind, text in known.items() if isinstance(error, kind)), None)
    if text is None and isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        text = f"cannot keep {name} in the hub's cache: {reason(error)}"
    why = printable((str(error).strip().splitlines() or [type(error).__name__])[0])[:80]
    return text or f"cannot get {name} from the hub ({why}): check the network, or name a folder that has its files"

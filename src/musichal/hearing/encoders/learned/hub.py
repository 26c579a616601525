"""Checkpoints from the Hugging Face hub: only the files that are read, cached, resumed, and never a program."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from musichal.errors import InputError
from musichal.hearing.encoders.learned.extras import hub_package
from musichal.text import printable, reason

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
CARD = "README.md"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weights files, the first that is there is taken."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Fetched:
    """A checkpoint in the hub's cache: its folder, and the commit that it is of."""

    folder: Path
    commit: str


def fetch(
    name: str,
    *,
    revision: str,
    offline: bool,
    hub_cache: Path | None,
    say: Callable[[str], None],
    before: Callable[[Path], None],
) -> Fetched:
    """Return a checkpoint of the hub, from the hub's cache on this machine or over the network.

    A commit that is in the cache is not asked for again. A branch is, and where the hub cannot be reached, what the cache
    has of it is taken, and said.

    Parameters
    ----------
    name, revision
        ``OWNER/NAME``, and a commit, tag or branch.
    offline
        Stay off the network, as ``HF_HUB_OFFLINE=1`` does.
    hub_cache
        The hub's cache, if not its own choice.
    say
        Told where the cache stands in for the hub.
    before
        Called with the folder once it has everything but the weights, before these are downloaded; what it raises stops
        the download.

    Raises
    ------
    InputError
        If the checkpoint is not there, or cannot be reached or written.
    MissingExtraError
        If huggingface_hub is not installed.
    """
    hub = hub_package(f"looking for {name} on the hub")
    cached = _cached(hub, name, revision, hub_cache)
    offline = offline or bool(hub.constants.HF_HUB_OFFLINE)
    if cached is not None and (offline or _COMMIT.fullmatch(revision)):
        return cached
    if offline:
        raise InputError(
            f"{name} ({revision[:12]}) is not in the cache of this machine, and the network is switched off:"
            " connect once, or name a folder that has its files"
        )
    try:
        info = hub.HfApi().model_info(name, revision=revision)
        listed = {file.rfilename for file in info.siblings or ()}
    except Exception as error:  # the hub's client passes on the errors of its HTTP library too
        explained = _explained(hub, error, name, revision)
        if cached is not None and _is_unreachable(hub, error):
            say(f"{explained}; going on with what the cache has, {cached.commit[:12]}")
            return cached
        raise explained from error
    weights = _weights_of(listed, name)

    def get(file: str, at: str) -> Path:
        try:
            return Path(hub.hf_hub_download(name, file, revision=at, cache_dir=hub_cache))
        except Exception as error:
            raise _explained(hub, error, name, revision) from error

    # Asked for by its branch, the first file makes the cache remember where the branch was; the others are of that commit.
    folder = get(CONFIG, revision).parent
    commit = folder.name
    for file in (PREPROCESSOR, CARD):
        if file in listed:
            get(file, commit)
    if not isinstance(hub.try_to_load_from_cache(name, weights, revision=commit, cache_dir=hub_cache), str):
        before(folder)
        get(weights, commit)
    return Fetched(folder, commit)


def _cached(hub: ModuleType, name: str, revision: str, hub_cache: Path | None) -> Fetched | None:
    def find(file: str) -> Path | None:
        found = hub.try_to_load_from_cache(name, file, revision=revision, cache_dir=hub_cache)
        return Path(found) if isinstance(found, str) else None

    config, preprocessor = find(CONFIG), find(PREPROCESSOR)
    if config is None or preprocessor is None or not any(find(file) for file in WEIGHTS):
        return None
    return Fetched(config.parent, config.parent.name)


def _weights_of(listed: set[str], name: str) -> str:
    for file in (CONFIG, PREPROCESSOR):
        if file not in listed:
            raise InputError(f"{name} on the hub has no {file}: it is not in a layout that can be loaded")
    weights = next((file for file in WEIGHTS if file in listed), None)
    if weights is None:
        raise InputError(f"{name} on the hub has none of {' and '.join(WEIGHTS)}: weights in other files are not read")
    return weights


def _is_unreachable(hub: ModuleType, error: Exception) -> bool:
    errors = hub.errors
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.HFValidationError):
        return False
    return _status(error) is None or _status(error) >= 500


def _status(error: Exception) -> Any:
    return getattr(getattr(error, "response", None), "status_code", None)


def _explained(hub: ModuleType, error: Exception, name: str, revision: str) -> InputError:
    """Return one line for what the hub's client raised."""
    # A gated one is one that is not found too, so the order counts.
    known = {
        hub.errors.GatedRepoError: f"{name} wants its terms accepted: do so on its page on the hub, and run `hf auth login`",
        hub.errors.RevisionNotFoundError: f"{name} on the hub has no revision {revision}",
        hub.errors.RepositoryNotFoundError: f"there is no {name} on the hub, and no folder of that name here",
        hub.errors.HFValidationError: f"{name} is neither a folder nor a name on the hub (OWNER/NAME)",
    }
    for kind, text in known.items():
        if isinstance(error, kind):
            return InputError(text)
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return InputError(f"cannot keep {name} in the hub's cache: {reason(error)}")
    status = _status(error)
    if status is not None and status < 500:
        return InputError(f"the hub refused {name}: status {status}")
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    why = printable((str(cause).strip().splitlines() or [type(cause).__name__])[0])[:80]
    return InputError(f"the hub cannot be reached for {name} ({why}): check the network, or name a folder that has its files")

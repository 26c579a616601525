"""Tensors out of a stranger's weights file: no code of theirs runs, and nothing is taken that the layout does not name.

A pytorch_model.bin is a zip of raw tensors and of a pickle that says which is which. A pickle can call anything, so this
one is read as a text first and refused if it names anything but tensors; only then torch reads it, with `weights_only`.
Tensors keep the names of the checkpoint as it was published: `weight_g` and `weight_v` for the two factors of a
normalised weight, where newer files say `parametrizations.weight.original0` and `1`.
"""

import hashlib
import io
import math
import pickletools
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from musichal.arrays import Float32
from musichal.errors import InputError
from musichal.hearing.encoders.learned.extras import torch_package
from musichal.hearing.encoders.learned.layout import Layout, Shapes
from musichal.text import printable, reason

_MAX_PICKLE_BYTES = 1 << 24
_STORAGES = ("FloatStorage", "HalfStorage", "BFloat16Storage", "DoubleStorage", "LongStorage", "IntStorage", "BoolStorage")
_MAY_BE_NAMED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {storage}" for storage in _STORAGES),
}
_NAMES_UNSEEN = {"STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
_RENAMED = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
_PREFIXES = ("hubert.", "wav2vec2.")
# What published models carry beside the network: heads for speech recognition, classification and pre-training.
_HEADS = ("lm_head.", "classifier.", "projector.", "layer_weights", "quantizer.", "project_hid.", "project_q.")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits; raises `InputError` where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error


def read_weights(path: Path, layout: Layout) -> dict[str, Float32]:
    """Return every tensor of the layout, by its name in the layout, from a .safetensors or a .bin file.

    Raises
    ------
    InputError
        If the file is damaged, carries code, lacks a tensor, has one too many or one of another shape, or if a value is
        not finite.
    MissingExtraError
        If a .bin file is to be read and torch is not installed.
    """
    where = printable(path)
    shapes = layout.shapes()
    parameters = sum(math.prod(shape) for shape in shapes.values())
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read {where}: {reason(error)}") from error
    if 2 * parameters > size:  # two bytes are the least that a number takes
        wanted = f"its config wants {parameters} numbers, it has {size} bytes"
        raise InputError(f"{where} is cut short, or of another network: {wanted}")
    tensors = _read_safetensors(path, shapes) if path.suffix == ".safetensors" else _read_bin(path, shapes)
    for name, array in tensors.items():
        if array.shape != shapes[name]:
            raise InputError(f"{where} does not fit its config: {name} is {array.shape}, the config wants {shapes[name]}")
        if not np.isfinite(array).all():
            raise InputError(f"{where} is damaged: {name} has values that are not finite")
    return tensors


def tensors_digest(tensors: Mapping[str, Float32]) -> str:
    """Return the SHA-256 over names, shapes and values, whatever file they came from, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name], "<f4")
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


def _read_safetensors(path: Path, shapes: Shapes) -> dict[str, Float32]:
    try:
        with safe_open(path, framework="numpy") as file:
            names = _matched(file.keys(), shapes, printable(path))
            tensors = {}
            for name, stored in names.items():
                kind = file.get_slice(stored).get_dtype()
                if kind not in ("F16", "F32", "F64"):
                    raise InputError(f"{printable(path)} cannot be loaded: {stored} is {kind}, not F16, F32 or F64")
                tensors[name] = np.asarray(file.get_tensor(stored), np.float32)
            return tensors
    except (SafetensorError, OSError) as error:
        raise InputError(f"{printable(path)} is damaged or cut short: {_first_line(error)}") from error


def _read_bin(path: Path, shapes: Shapes) -> dict[str, Float32]:
    where = printable(path)
    _refuse_code(path)
    torch = torch_package(f"reading {path.name}")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except MemoryError:
        raise
    except Exception as error:  # torch has no error of its own for a bad file
        raise InputError(f"{where} is damaged or cut short: {_first_line(error)}") from error
    if not isinstance(stored, dict) or not all(isinstance(name, str) for name in stored):
        raise InputError(f"{where} cannot be loaded: it is not a table of named tensors")
    floats = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    tensors = {}
    for name, key in _matched(stored, shapes, where).items():
        tensor: Any = stored[key]
        plain = isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.dtype not in floats or tuple(tensor.shape) != shapes[name]:
            what = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise InputError(f"{where} does not fit its config: {name} is {what}, the config wants floats {shapes[name]}")
        tensors[name] = tensor.detach().to(torch.float32).contiguous().numpy()
    return tensors


def _refuse_code(path: Path) -> None:
    """Raise `InputError` unless the file is an uncompressed zip whose pickle names nothing but tensors."""
    where = printable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            tables = [entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
            if len(tables) != 1 or max(Counter(entry.filename for entry in entries).values()) > 1:
                raise InputError(f"{where} cannot be loaded: it is not what torch.save writes")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or tables[0].file_size > _MAX_PICKLE_BYTES:
                raise InputError(f"{where} cannot be loaded: it is compressed, or its table is too large")
            table = archive.read(tables[0])
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {where}: {reason(error)}") from error
    except Exception as error:  # a damaged archive leads the standard library to many others beside BadZipFile
        hint = "damaged, cut short, or in the format from before torch 1.6, which is not read"
        raise InputError(f"{where} cannot be loaded: it is {hint}") from error
    try:
        for operation, argument, _ in pickletools.genops(io.BytesIO(table)):
            named = str(argument) if operation.name in ("GLOBAL", "INST") else ""
            if operation.name in _NAMES_UNSEEN or (named and named not in _MAY_BE_NAMED):
                what = ".".join(named.split()) or operation.name
                raise InputError(f"{where} is refused: it carries code ({printable(what)[:80]}); nothing of it was run")
    except InputError:
        raise
    except Exception as error:  # pickletools raises whatever the bytes lead it to
        raise InputError(f"{where} is damaged: its table of tensors cannot be read") from error


def _matched(stored: Iterable[str], shapes: Shapes, where: str) -> dict[str, str]:
    """Return the stored name of every tensor of the layout; raises `InputError` unless there is exactly one for each."""
    names: dict[str, str] = {}
    prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in stored)), "")
    unexpected = []
    for full in stored:
        if prefix and full.startswith(_HEADS):
            continue
        name = full.removeprefix(prefix)
        for new, old in _RENAMED.items():
            name = name.replace(new, old)
        if name not in shapes or name in names or not full.startswith(prefix):
            unexpected.append(full)
        else:
            names[name] = full
    missing = [name for name in shapes if name not in names]
    if missing or unexpected:
        complaints = [f"lacks {_some(missing)}" if missing else "", f"has {_some(unexpected)} besides" if unexpected else ""]
        raise InputError(f"{where} does not fit its config: it {' and '.join(filter(None, complaints))}")
    return {name: names[name] for name in shapes}


def _some(names: list[str]) -> str:
    first = printable(names[0])[:80]
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0])[:120].rstrip(".") if lines else type(error).__name__

"""What a MIDI file says, as arrays: in partner files and in the work folders of archives."""

from collections.abc import Mapping

import numpy as np

from musichal.arrays import AnyArray
from musichal.audio.midi_take import KEY_NAME, LABEL_KINDS, Control, Label, MidiTake
from musichal.memory.container import Layout, require, safe_text
from musichal.note import HeardNote

# Type and dimensions of each array.
CONTROL_ARRAYS: Layout = {
    "controls_s": (np.float64, 1),
    "controls": (np.uint8, 2),
    "labels_s": (np.float64, 1),
    "labels": (np.uint8, 1),
}
TAKE_ARRAYS: Layout = {
    "notes_s": (np.float64, 2),
    "notes": (np.uint8, 2),
    "hits_s": (np.float64, 2),
    "hits": (np.uint8, 2),
    "rendered": (np.uint8, 1),
    "beats_s": (np.float64, 1),
    "downbeats_s": (np.float64, 1),
}


def take_to_arrays(take: MidiTake) -> dict[str, AnyArray]:
    """Return what a MIDI file says as arrays."""
    arrays: dict[str, AnyArray] = {"beats_s": take.beats_s, "downbeats_s": take.downbeats_s}
    arrays["rendered"] = np.array([take.is_rendered], dtype=np.uint8)
    for kind, heard in (("notes", take.notes), ("hits", take.hits)):
        arrays[f"{kind}_s"] = np.array([(note.onset_s, note.duration_s) for note in heard]).reshape(-1, 2)
        arrays[kind] = np.array([(note.pitch, note.velocity) for note in heard], dtype=np.uint8).reshape(-1, 2)
    arrays["controls_s"] = np.array([control.time_s for control in take.controls], dtype=np.float64)
    arrays["controls"] = np.array([[*c.data, 0, 0][:3] for c in take.controls], dtype=np.uint8).reshape(-1, 3)
    arrays["labels_s"] = np.array([label.time_s for label in take.labels], dtype=np.float64)
    texts = "\n".join(f"{label.kind} {label.text}" for label in take.labels)
    arrays["labels"] = np.frombuffer(texts.encode(), dtype=np.uint8)
    return arrays


def _controls(arrays: Mapping[str, AnyArray], name: str) -> tuple[tuple[Control, ...], tuple[Label, ...]]:
    """Return the channel messages and the labels of a MIDI file; none in a partner from before they were kept."""
    if not set(CONTROL_ARRAYS) <= set(arrays):
        return (), ()
    lines = arrays["labels"].tobytes().decode(errors="replace").split("\n") if arrays["labels"].size else []
    kinds, _, texts = zip(*(line.partition(" ") for line in lines), strict=True) if lines else ((), (), ())
    for times_s, count in ((arrays["controls_s"], len(arrays["controls"])), (arrays["labels_s"], len(lines))):
        proper = len(times_s) == count and bool(np.isfinite(times_s).all() and (times_s >= 0).all())
        require(proper, f"{name} has improper controls or labels")
    require(arrays["controls"].shape[1:] == (3,) and set(kinds) <= set(LABEL_KINDS), f"{name} has improper labels")
    proper = all(KEY_NAME.fullmatch(text) for kind, text in zip(kinds, texts, strict=True) if kind == "key")
    require(proper, f"{name} has a key that there is not")
    labels = zip(arrays["labels_s"].tolist(), kinds, map(safe_text, texts), strict=True)
    controls = zip(arrays["controls_s"].tolist(), map(bytes, arrays["controls"]), strict=True)
    return tuple(Control(s, d[:2] if d[0] & 0xE0 == 0xC0 else d) for s, d in controls), tuple(Label(*row) for row in labels)


def take_of_arrays(arrays: Mapping[str, AnyArray], name: str) -> MidiTake:
    """Return what `take_to_arrays` was given; raises `InputError` for what no MIDI file could say."""
    heard = []
    for kind in ("notes", "hits"):
        times_s, keys = arrays[f"{kind}_s"], arrays[kind]
        proper = times_s.shape == keys.shape == (len(keys), 2) and bool(np.isfinite(times_s).all())
        require(proper and bool((times_s[:, 0] >= 0).all() and (times_s[:, 1] > 0).all()), f"{name} has improper {kind}")
        require(bool((keys <= 127).all() and (keys[:, 1] > 0).all()), f"{name} has {kind} that MIDI cannot hold")
        rows = zip(times_s.tolist(), keys.tolist(), strict=True)
        heard.append(tuple(HeardNote(onset_s, long_s, pitch, velocity) for (onset_s, long_s), (pitch, velocity) in rows))
    for beats_s in (arrays["beats_s"], arrays["downbeats_s"]):
        rising = bool(np.isfinite(beats_s).all() and (np.diff(beats_s) > 0).all())
        require(rising, f"{name} has beats out of place")
    require(arrays["rendered"].shape == (1,), f"{name} has improper notes")
    rendered, more = bool(arrays["rendered"][0]), _controls(arrays, name)
    return MidiTake(heard[0], heard[1], arrays["beats_s"], arrays["downbeats_s"], rendered, *more)

"""Hearing that tests share: where the same windows came before, a `FeatureExtractor` gives what one gave then.

What it gives is a function of its spec, its encoder and its windows so far; tests/test_listener.py and others see to that. The
suite hears the same clips hundreds of times, which is a third of its time. For tests of other things than hearing:
``pytestmark = pytest.mark.usefixtures("heard_once")``.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from musichal.hearing.listener import FeatureExtractor
from musichal.hearing.percepts import SegmentFeatures, Window

_MOST = 6000
_known: OrderedDict[bytes, Any] = OrderedDict()


class _Stream:
    """The windows of one extractor: a digest of all of them, and those that it has not heard itself."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._unheard: list[Window] = []
        self._past = extractor.spec.fingerprint().encode() + extractor._encoder.digest.encode()
        self._extractor = extractor

    def key(self, *parts: object) -> bytes:
        trackers = [type(tracker).__name__ for tracker in (self._extractor._notes, self._extractor._drums)]
        return hashlib.blake2b(self._past + repr((*parts, trackers)).encode(), digest_size=20).digest()

    def take(self, window: Window) -> bytes:
        numbers = [getattr(window, name) for name in Window.__dataclass_fields__ if name != "samples"]
        self._unheard.append(window)
        self._past = self.key(numbers, hashlib.blake2b(np.ascontiguousarray(window.samples), digest_size=20).digest())
        return self._past

    def catch_up(self, step: Callable[..., SegmentFeatures]) -> SegmentFeatures | None:
        heard = None
        for window in self._unheard:
            heard = step(self._extractor, window)
        self._unheard.clear()
        return heard


def _recalled(key: bytes, make: Callable[[], Any]) -> Any:
    if key not in _known:
        _known[key] = make()
        if len(_known) > _MOST:
            _known.popitem(last=False)
    _known.move_to_end(key)
    return _known[key]


def hear_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let extractors that are made from now on share what they hear, unless something taps them."""
    begin, step = FeatureExtractor.__init__, FeatureExtractor.step
    ends = {name: getattr(FeatureExtractor, name) for name in ("flush", "flush_hits")}

    def shared_begin(self: FeatureExtractor, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.__dict__["shared"] = _Stream(self) if self._tap is None else None

    def shared_step(self: FeatureExtractor, window: Window, analysis: Any = None) -> SegmentFeatures:
        stream: _Stream | None = self.__dict__.get("shared")
        if stream is None or analysis is not None:
            if stream is not None:
                stream.catch_up(step)
                self.__dict__["shared"] = None
            return step(self, window, analysis)
        return _recalled(stream.take(window), lambda: _sealed(stream.catch_up(step)))

    def shared_end(name: str) -> Callable[[FeatureExtractor], Any]:
        def end(self: FeatureExtractor) -> Any:
            stream: _Stream | None = self.__dict__.get("shared")
            if stream is None:
                return ends[name](self)
            return _recalled(stream.key(name), lambda: (stream.catch_up(step), ends[name](self))[1])

        return end

    monkeypatch.setattr(FeatureExtractor, "__init__", shared_begin)
    monkeypatch.setattr(FeatureExtractor, "step", shared_step)
    for name in ends:
        monkeypatch.setattr(FeatureExtractor, name, shared_end(name))


def _sealed(heard: SegmentFeatures | None) -> SegmentFeatures:
    """Return it with arrays that nobody can change."""
    assert heard is not None
    for value in vars(heard).values():
        for array in value if isinstance(value, tuple) else (value,):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)
    return heard

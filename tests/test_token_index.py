"""The token index against a brute-force reference, on strings that repeat much and little, and while it grows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.memory_speed import STRING_KINDS, token_string
from musichal.errors import InputError
from musichal.memory.token_index import CANDIDATE, TokenIndex

SMALL = st.integers(-1, 2)  # few symbols, so that contexts repeat; SILENCE is one of them
STRINGS = st.lists(SMALL, max_size=60)
SEQUENCES = st.lists(st.lists(SMALL, max_size=20), max_size=5)


@st.composite
def situations(draw):
    """A memory of some sequences, and a recent past: drawn by size, so that they are seldom trivial."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    symbols = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    sequences = [rng.integers(-1, symbols - 1, size).tolist() for size in sizes]
    recent = rng.integers(-1, symbols - 1, draw(st.integers(0, 20))).tolist()
    return sequences, recent


def common_suffix(a, b):
    n = 0
    while n < len(a) and n < len(b) and a[-1 - n] == b[-1 - n]:
        n += 1
    return n


class Reference:
    """What the index promises, by looking at every position."""

    def __init__(self, sequences=()):
        self.sequences = [list(s) for s in sequences]

    @property
    def pasts(self):
        """The tokens up to each position, none from another sequence."""
        return [s[: i + 1] for s in self.sequences for i in range(len(s))]

    def lengths(self, recent, max_length):
        recent = list(recent)[-max_length:]
        return [common_suffix(past, recent) for past in self.pasts]

    def repeats(self):
        pasts = self.pasts
        out = []
        for i, past in enumerate(pasts):
            lengths = [common_suffix(past, earlier) for earlier in pasts[:i]]
            best = max(lengths, default=0)
            out.append((best, lengths.index(best) if best else -1))
        return out


def build(sequences):
    index = TokenIndex()
    for sequence in sequences:
        index.start_sequence()
        index.extend(sequence)
    return index


@given(SEQUENCES | situations().map(lambda situation: situation[0]))
def test_repeats_are_exact_and_earlier(sequences):
    index, reference = build(sequences), Reference(sequences)
    assert len(index) == sum(map(len, sequences))
    assert index.symbols().tolist() == [t for s in sequences for t in s]
    expected = reference.repeats()
    assert index.repeat_lengths().tolist() == [length for length, _ in expected]
    assert index.repeat_positions().tolist() == [position for _, position in expected]
    for i, (length, position) in enumerate(expected):
        assert (index.repeat_length(i), index.repeat_position(i)) == (length, position)
        assert position < i  # a suffix link that finds the state itself is a mistake made by others


@given(situations(), st.integers(1, 8))
def test_longest_context_is_exact(situation, max_length):
    sequences, recent = situation
    index, reference = build(sequences), Reference(sequences)
    match = index.longest_context(recent, max_length=max_length)
    lengths = reference.lengths(recent, max_length)
    assert match.length == max(lengths, default=0)
    if match.length:
        assert match.first_position == lengths.index(match.length)
        assert lengths[match.latest_position] == match.length
    else:
        assert (match.first_position, match.latest_position) == (-1, -1)


@given(situations(), st.integers(1, 8))
def test_occurrences_are_all_of_them_when_the_limit_allows(situation, max_length):
    sequences, recent = situation
    index, reference = build(sequences), Reference(sequences)
    match = index.longest_context(recent, max_length=max_length)
    lengths = reference.lengths(recent, max_length)
    expected = [i for i, length in enumerate(lengths) if length == match.length and match.length]
    assert index.occurrences(match, limit=1000).tolist() == expected[::-1]


@given(situations(), st.integers(1, 8), st.integers(1, 5))
def test_candidates_are_exact_and_complete(situation, max_length, min_length):
    sequences, recent = situation
    index, reference = build(sequences), Reference(sequences)
    lengths = reference.lengths(recent, max_length)
    expected = sorted(((length, i) for i, length in enumerate(lengths) if length >= min_length), reverse=True)
    found = index.candidates(recent, limit=1000, min_length=min_length, max_length=max_length)
    assert found.dtype == CANDIDATE
    assert list(zip(found["length"], found["position"], strict=True)) == expected


@given(situations(), st.integers(1, 12))
def test_a_limit_drops_only_shorter_contexts_or_equals(situation, limit):
    sequences, recent = situation
    index, reference = build(sequences), Reference(sequences)
    lengths = reference.lengths(recent, 64)
    found = index.candidates(recent, limit=limit)
    every = sorted((length for length in lengths if length), reverse=True)
    assert found["length"].tolist() == every[:limit]
    assert len(set(found["position"].tolist())) == len(found)
    assert all(lengths[c["position"]] == c["length"] for c in found)


@given(STRINGS, STRINGS, STRINGS)
def test_a_match_stays_valid_while_its_index_grows(first, recent, later):
    """Clones take contexts over from the state that a match names."""
    index = TokenIndex.from_symbols(first)
    match = index.longest_context(recent)
    index.extend(later)
    lengths = Reference([first + later]).lengths(recent, 64)
    expected = [i for i, n in enumerate(lengths) if n >= match.length and match.length]
    assert index.occurrences(match, limit=1000).tolist() == expected[::-1]


@given(situations(), STRINGS)
def test_a_compact_index_answers_and_grows_the_same(situation, later):
    sequences, recent = situation
    plain, compact = build(sequences), build(sequences).compact()
    for _ in range(2):
        assert plain.longest_context(recent) == compact.longest_context(recent)
        assert plain.candidates(recent, limit=7).tolist() == compact.candidates(recent, limit=7).tolist()
        for read in (TokenIndex.symbols, TokenIndex.repeat_lengths, TokenIndex.repeat_positions, TokenIndex.sequence_starts):
            assert read(plain).tolist() == read(compact).tolist()
        for index in (plain, compact):
            index.start_sequence()
            index.extend(later)


@given(STRINGS)
def test_growing_one_by_one_equals_building_at_once(symbols):
    grown = TokenIndex()
    for symbol in symbols:
        grown.append(symbol)
    built = TokenIndex.from_symbols(np.array(symbols, dtype=np.int16))
    assert grown.repeat_lengths().tolist() == built.repeat_lengths().tolist()
    assert grown.repeat_positions().tolist() == built.repeat_positions().tolist()


@pytest.mark.parametrize("symbol", [-2, 1024, 0.5, "a", None])
def test_a_bad_token_is_refused_and_nothing_is_appended(symbol):
    index = TokenIndex.from_symbols([1, 2])
    with pytest.raises(InputError):
        index.append(symbol)
    with pytest.raises(InputError):
        index.extend([3, symbol])
    assert index.symbols().tolist() == [1, 2]


def test_bad_arguments_are_refused():
    index = TokenIndex.from_symbols([1, 2, 1])
    match = index.longest_context([1])
    for call in (
        lambda: index.longest_context([1], max_length=0),
        lambda: index.occurrences(match, limit=0),
        lambda: index.candidates([1], limit=0),
        lambda: index.candidates([1], min_length=0),
    ):
        with pytest.raises(InputError):
            call()
    for position in (-1, 3):
        with pytest.raises(IndexError):
            index.repeat_length(position)


def test_symbols_outside_the_alphabet_match_nothing():
    index = build([[1, 2], [1, 2]])  # the place where the second sequence starts has a key of its own
    assert [index.longest_context([symbol]).length for symbol in (-2, -3, 5000)] == [0, 0, 0]
    assert [index.longest_context(recent).length for recent in ([1, 2], [1, -2], [-2, 1, 2])] == [2, 0, 2]


@pytest.mark.parametrize("kind", [*STRING_KINDS, "periodic"])
def test_long_strings_of_every_kind(kind):
    rng = np.random.default_rng(7)
    n = 9000  # past two growths of the columns
    symbols = np.arange(n) % 7 if kind == "periodic" else token_string(kind, n, rng=rng)
    index = TokenIndex.from_symbols(symbols)
    text = (symbols + 2).astype(np.uint8).tobytes()
    lengths = index.repeat_lengths()
    for i in rng.integers(1, n, 60).tolist():
        length, position = index.repeat_length(i), index.repeat_position(i)
        assert lengths[i] == length
        if length:  # it is where it says, for the first time
            assert text.find(text[i + 1 - length : i + 1]) == position + 1 - length < i + 1 - length
        if length < i:  # and one more token occurs nowhere earlier
            assert text.find(text[i - length : i + 1]) == i - length
    for _ in range(60):
        i = int(rng.integers(64, n))
        recent = symbols[i - 64 : i].copy()
        recent[rng.integers(64)] = rng.integers(0, 64)
        match = index.longest_context(recent)
        wanted = (recent + 2).astype(np.uint8).tobytes()
        assert wanted[64 - match.length :] in text
        assert match.length == 64 or wanted[63 - match.length :] not in text
        found = index.candidates(recent, limit=64)
        assert len(found) == min(64, np.count_nonzero(symbols == recent[-1]))
        for position, length in found.tolist():
            past = text[max(0, position - 63) : position + 1]
            assert common_suffix(past, wanted) == length
        for occurrence in index.occurrences(match, limit=3).tolist():
            assert text[: occurrence + 1].endswith(wanted[64 - match.length :])


def test_what_a_limit_leaves_differs_in_its_past():
    """Of many equal contexts, one stays for each longer past, and each time the latest."""
    rng = np.random.default_rng(0)
    symbols = np.concatenate([np.array([before, 9]) for before in rng.integers(0, 8, 4000)])
    index = TokenIndex.from_symbols(symbols)
    found = index.occurrences(index.longest_context([20, 9]), limit=8)
    assert sorted(symbols[found - 1].tolist()) == list(range(8))
    assert found.tolist() == sorted(found.tolist(), reverse=True)
    for position in found.tolist():
        later = symbols[position + 1 :]
        assert symbols[position - 1] not in later[later != 9]


@given(st.integers(0, 2**32 - 1))
def test_large_alphabets(seed):
    symbols = np.random.default_rng(seed).integers(-1, 1024, 300)
    index, reference = TokenIndex.from_symbols(symbols), Reference([symbols.tolist()])
    assert index.repeat_lengths().tolist() == [length for length, _ in reference.repeats()]

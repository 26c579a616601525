import io
import itertools
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musichal.audio.instrument import find_soundfont, render_notes
from musichal.audio.soundfont import open_soundfont
from musichal.errors import InputError
from musichal.note import Note

RATE = 44100
PIANO, ORGAN, GUITAR, BASS, VIOLIN, FLUTE, WOODBLOCK = 0, 19, 24, 33, 40, 73, 115


@pytest.fixture(scope="module")
def font():
    return open_soundfont(find_soundfont())


def chunk(kind, body):
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def small_font(generators=(), *, samples=None, loop=(0, 100), second=None, common=None, sample_type=1, preset=0, bank=0):
    """A font of one sample, a looped sine of 441 Hz at 44.1 kHz for key 69, with one zone, or two."""
    if samples is None:
        samples = np.round(16384 * np.sin(2 * np.pi * np.arange(400) / 100)).astype("<i2")
    zones = [dict(generators)] if second is None else [dict(generators), dict(second)]
    gens = [[*((k, v) for k, v in zone.items() if k != 53), (53, 0)] for zone in zones]
    if common is not None:
        gens.insert(0, list(common.items()))
    bags = np.cumsum([0, *map(len, gens)])
    igen = b"".join(struct.pack("<Hh", *g) for zone in gens for g in zone) + bytes(4)
    header = struct.pack("<20sIIIIIBbHH", b"sine", 0, len(samples), *loop, 44100, 69, 0, 0, sample_type)
    pdta = [
        (
            b"phdr",
            struct.pack("<20sHHHIII", b"one", preset, bank, 0, 0, 0, 0) + struct.pack("<20sHHHIII", b"EOP", 0, 0, 1, 0, 0, 0),
        ),
        (b"pbag", struct.pack("<4H", 0, 0, 1, 0)),
        (b"pmod", bytes(10)),
        (b"pgen", struct.pack("<Hh", 41, 0) + bytes(4)),
        (b"inst", struct.pack("<20sH", b"one", 0) + struct.pack("<20sH", b"EOI", len(gens))),
        (b"ibag", b"".join(struct.pack("<HH", b, 0) for b in bags)),
        (b"imod", bytes(10)),
        (b"igen", igen),
        (b"shdr", header + struct.pack("<20sIIIIIBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0)),
    ]
    body = chunk(b"LIST", b"INFO" + chunk(b"ifil", struct.pack("<HH", 2, 4)))
    body += chunk(b"LIST", b"sdta" + chunk(b"smpl", samples.tobytes()))
    body += chunk(b"LIST", b"pdta" + b"".join(chunk(*part) for part in pdta))
    return chunk(b"RIFF", b"sfbk" + body)


@pytest.fixture
def opened(tmp_path):
    def open_small(*args, **kwargs):
        path = tmp_path / "small.sf2"
        path.write_bytes(small_font(*args, **kwargs))
        return open_soundfont(path)

    return open_small


def rms(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def pitch_hz(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 16 * len(samples)))
    return spectrum.argmax() * RATE / (16 * len(samples))


LOOPED = {54: 1, 38: -2400}


# What the format says, on a font whose every sample is known.


@pytest.mark.parametrize("key", [33, 57, 69, 70, 81, 100])
def test_looped_samples_are_in_tune(opened, key):
    out = render_notes([Note(0.0, 2.0, key, 127)], opened(LOOPED), gain=1.0)
    heard = pitch_hz(out[4410:88200, 0])
    assert 1200 * np.log2(heard / (441 * 2 ** ((key - 69) / 12))) == pytest.approx(0, abs=0.5)
    assert rms(out[4410:88200]) == pytest.approx(0.25, rel=0.01)


def test_a_sample_may_be_played_octaves_below_its_root(opened):
    # Fonts do this; a limit on the speed once put them out of tune.
    out = render_notes([Note(0.0, 4.0, 55, 127)], opened({**LOOPED, 58: 127}), gain=1.0)
    assert pitch_hz(out[: 4 * RATE, 0]) == pytest.approx(441 / 2**6, rel=0.01)


def test_velocity_is_squared_and_attenuation_and_pan_as_asked(opened):
    font = opened({**LOOPED, 48: 100, 17: 250})
    levels = [rms(render_notes([Note(0.0, 0.5, 69, v)], font)[:22050, 1]) for v in (127, 64, 1)]
    assert levels[1] / levels[0] == pytest.approx((64 / 127) ** 2, rel=1e-3)
    assert levels[2] / levels[0] == pytest.approx((1 / 127) ** 2, rel=1e-3)
    out = render_notes([Note(0.0, 0.5, 69, 127)], font, gain=1.0)[:22050]
    assert rms(out[:, 0]) / rms(out[:, 1]) == pytest.approx(np.tan(np.pi / 8), rel=1e-3)
    # 10 dB asked for, 4 dB played, and a sine of amplitude one half on both sides together.
    assert np.hypot(rms(out[:, 0]), rms(out[:, 1])) == pytest.approx(10 ** (-4 / 20) * 0.5 / np.sqrt(2), rel=0.01)


def test_the_envelope_has_the_times_it_asks_for(opened):
    # Attack 0.25 s, hold 0.25 s, decay to −20 dB at 100 dB in 1 s, release 100 dB in 0.5 s.
    font = opened({54: 1, 34: -2400, 35: -2400, 36: 0, 37: 200, 38: -1200})
    out = render_notes([Note(0.5, 1.5, 69, 127)], font, gain=np.sqrt(2.0))[:, 0]

    def level_db(at_s):
        at = round(at_s * RATE)
        return 20 * np.log10(rms(out[at - 200 : at + 200]) * np.sqrt(2) / 0.5)

    assert not out[: RATE // 2].any()
    assert level_db(0.5 + 0.125) == pytest.approx(-6.02, abs=0.1)
    assert level_db(0.5 + 0.375) == pytest.approx(0, abs=0.1)
    assert level_db(0.5 + 0.6) == pytest.approx(-10, abs=0.2)
    assert level_db(0.5 + 1.4) == pytest.approx(-20, abs=0.1)
    assert level_db(2.1) == pytest.approx(-20 - 20, abs=0.2)
    assert level_db(2.2) == pytest.approx(-20 - 40, abs=0.3)
    assert len(out) / RATE == pytest.approx(2.0 + 0.5 * 0.8, abs=0.001)


def test_ranges_choose_the_region_and_a_key_outside_is_silent(opened):
    low, high = 0 | 60 << 8, 61 | 90 << 8
    font = opened({43: low, **LOOPED}, second={43: high, 44: 100 | 127 << 8, 51: 12, **LOOPED})
    render = lambda *note: render_notes([Note(0.0, 0.5, *note)], font)  # noqa: E731
    assert pitch_hz(render(60, 64)[4410:22050, 0]) == pytest.approx(441 * 2 ** (-9 / 12), rel=1e-3)
    assert pitch_hz(render(61, 100)[4410:22050, 0]) == pytest.approx(882 * 2 ** (-8 / 12), rel=1e-3)
    assert render(61, 99).shape == render(91, 127).shape == (0, 2)


def test_a_global_zone_holds_for_zones_that_do_not_say_otherwise(opened):
    note = [Note(0.0, 0.5, 69, 127)]
    pitches = [
        pitch_hz(render_notes(note, font)[4410:22050, 0])
        for font in (opened(LOOPED, common={51: 12}), opened({**LOOPED, 51: -12}, common={51: 12}))
    ]
    assert pitches == pytest.approx([882, 220.5], rel=1e-3)


def test_a_sample_that_loops_until_release_goes_on_to_its_end(opened):
    wave = np.round(16384 * np.sin(2 * np.pi * np.arange(44100) / 100))
    wave[22050:] = 0
    font = opened({54: 3, 38: 1200}, samples=wave.astype("<i2"), loop=(0, 22000))
    out = render_notes([Note(0.0, 1.8, 69, 127)], font)[:, 0]
    # Four loops end at 1.996 s, 50 samples of sine remain, and the rest is silent.
    assert rms(out[round(1.7 * RATE) : round(1.8 * RATE)]) > 0.05
    assert rms(out[round(2.0 * RATE) + 400 :]) < 1e-4


def test_a_note_of_an_exclusive_class_cuts_the_one_before(opened):
    font = opened({**LOOPED, 57: 1, 38: 1200})
    notes = [Note(0.0, 1.0, 69, 127), Note(0.5, 0.1, 81, 1)]
    out = render_notes(notes, font)
    assert rms(out[20000:22000]) > 0.05
    assert rms(out[round(0.53 * RATE) :]) < 0.001
    # It is faded, in 20 ms, and not chopped.
    assert rms(out[22932 - 220 : 22932]) == pytest.approx(0.144 * rms(out[22050 - 441 : 22050]), rel=0.1)
    apart = render_notes([notes[0], Note(0.5, 0.1, 81, 1, 1)], font)
    assert rms(apart[30000:40000]) > 0.05


def test_the_low_pass_takes_the_top_and_its_envelope_gives_it_back(opened):
    noise = np.random.default_rng(0).integers(-8000, 8000, 44100).astype("<i2")

    def high_share(generators):
        out = render_notes([Note(0.0, 0.9, 69, 127)], opened(generators, samples=noise, loop=(0, 0)))[:, 0]
        power = np.abs(np.fft.rfft(out[2000:30000])) ** 2
        return power[len(power) // 2 :].sum() / power.sum()

    closed = {8: 8400}  # 1047 Hz
    assert high_share({}) > 0.4
    assert high_share(closed) < 0.001
    assert high_share({**closed, 11: 5100}) > 0.4


# What a General MIDI font sounds like.


def test_clicks_are_where_the_events_are(font):
    onsets = np.cumsum([0.05, 0.21, 0.133, 0.5, 0.0871, 0.4, 1.0, 0.333])
    notes = [Note(float(t), 0.05, 76, 100) for t in onsets]
    for rate in (44100, 48000):
        out = np.abs(render_notes(notes, font, sample_rate_hz=rate, programs={0: WOODBLOCK})).max(axis=1)
        for onset in onsets:
            at = round(onset * rate)
            around = out[at - round(0.01 * rate) : at + round(0.03 * rate)]
            # The first sample to rise clear of what still sounds.
            first = np.argmax(around > max(0.1 * around.max(), 2 * around[: round(0.009 * rate)].max()))
            assert first / rate - 0.01 == pytest.approx(0, abs=0.003)


@pytest.mark.parametrize("program", [PIANO, ORGAN, GUITAR, BASS, FLUTE])
def test_louder_is_louder_and_in_tune(font, program):
    levels = [rms(render_notes([Note(0.0, 0.5, 57, v)], font, programs={0: program})) for v in (1, 16, 48, 80, 112, 127)]
    assert all(b > 1.05 * a for a, b in itertools.pairwise(levels))
    out = render_notes([Note(0.0, 1.5, 57, 100)], font, programs={0: program}).mean(axis=1)
    # The strongest partial of key 57 lies at a multiple of 220 Hz.
    partial = pitch_hz(out[8820:66150]) / 220
    assert 1200 * np.log2(partial / max(1, round(partial))) == pytest.approx(0, abs=10)


@pytest.mark.parametrize("program", [PIANO, ORGAN, VIOLIN])
def test_a_note_ends_when_it_should_and_its_tail_is_kept(font, program):
    short, long = (render_notes([Note(0.0, d, 60, 100)], font, programs={0: program}) for d in (0.5, 2.0))
    n = round(0.5 * RATE)
    np.testing.assert_array_equal(short[: n - 1], long[: n - 1])
    assert len(short) > n + round(0.05 * RATE)
    assert rms(short[n : n + 1000]) > 0.25 * rms(short[n - 1000 : n])
    assert np.abs(short[-100:]).max() < 1e-3
    assert rms(long[2 * n : 3 * n]) > 20 * rms(short[2 * n : 3 * n] if len(short) > 2 * n else np.zeros(1))


def test_a_chord_is_the_sum_of_its_notes_in_any_order(font):
    notes = [Note(0.1 * k, 0.4, 50 + 5 * k, 60 + 10 * k, k % 2) for k in range(6)]
    programs = {0: GUITAR, 1: BASS}
    together = render_notes(notes, font, programs=programs)
    np.testing.assert_array_equal(together, render_notes(notes[::-1], font, programs=programs))
    total = np.zeros_like(together)
    for note in notes:
        alone = render_notes([note], font, programs=programs)
        total[: len(alone)] += alone
    np.testing.assert_allclose(together, total, atol=1e-6)


def test_the_drum_channel_plays_the_kit(font):
    kick, tone = (render_notes([Note(0.0, 0.3, 36, 100, channel)], font) for channel in (9, 0))
    assert pitch_hz(kick[:8820, 0]) != pytest.approx(pitch_hz(tone[:8820, 0]), rel=0.05)


def test_nothing_to_play_is_no_sound_and_too_much_is_refused(font):
    assert render_notes([], font).shape == (0, 2)
    with pytest.raises(InputError, match="hours"):
        render_notes([Note(20_000.0, 1.0, 60, 64)], font)


# Fonts that cannot be used.


def test_bytes_behind_a_font_and_a_size_that_was_never_written_do_no_harm(tmp_path):
    font = small_font()
    for number, data in enumerate((font, font + b"TAG" + bytes(998), font[:4] + bytes(4) + font[8:])):
        path = tmp_path / f"{number}.sf2"
        path.write_bytes(data)
        assert np.abs(render_notes([Note(0, 0.1, 69, 100, 0)], open_soundfont(path))).max() > 0.05


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a SoundFont"),
        (b"not a font at all", "not a SoundFont"),
        (chunk(b"RIFF", b"WAVE" + bytes(100)), "not a SoundFont"),
        (b"RIFF\0\0\0\0sfbk", "damaged"),
        (small_font()[:-100], "ends too early"),
        (chunk(b"RIFF", b"sfbk"), "damaged"),
    ],
)
def test_what_is_not_a_font_is_one_clear_line(tmp_path, content, complaint):
    path = tmp_path / "a\nfont.sf2"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint) as caught:
        open_soundfont(path)
    assert "\n" not in str(caught.value)


def test_a_font_that_is_missing_or_a_folder_is_one_clear_line(tmp_path):
    for path in (tmp_path / "none.sf2", tmp_path):
        with pytest.raises(InputError, match="cannot read the soundfont"):
            open_soundfont(path)


@pytest.mark.parametrize(("preset", "bank"), [(0, 0), (40, 0), (5, 8), (0, 128)])
def test_of_a_program_that_the_font_lacks_another_plays_and_it_is_said(opened, preset, bank):
    font = opened(LOOPED, preset=preset, bank=bank)
    assert np.abs(render_notes([Note(0, 1, 69, 100)], font, programs={0: 4})).max() > 0.01
    (said,) = font.remarks(4)
    assert f"has no program 5: {preset + 1} one plays. It has {preset + 1} one" in said
    assert font.remarks(preset) == () or bank
    drums = render_notes([Note(0, 1, 69, 100, 9)], font)
    assert bool(np.abs(drums).max(initial=0) > 0.01) == (bank == 128)  # nothing else is a drum kit


def test_a_damaged_sample_is_left_out_and_the_rest_plays(opened):
    """Its start lies behind its end; a zone of other keys is whole."""
    font = opened({43: 60 << 8, **LOOPED}, second={43: 127 << 8 | 61, 4: 1})
    assert not np.abs(render_notes([Note(0, 1, 69, 100)], font)).max(initial=0) > 0
    assert np.abs(render_notes([Note(0, 1, 50, 100)], font)).max() > 0.01
    keys, said = font.remarks(0)
    assert keys.endswith("program 1 has no sample for 24 keys from C#4 to C6: silent")
    assert said.endswith("damaged samples are left out: sine")
    with pytest.raises(InputError, match="damaged"):
        opened({4: 1}).remarks(0)


def test_a_font_of_ogg_samples_plays(tmp_path, opened):
    sine = 0.5 * np.sin(2 * np.pi * np.arange(44_100) / 100)
    out = io.BytesIO()
    soundfile.write(out, sine, 44_100, format="OGG", subtype="VORBIS")
    packed = np.frombuffer(out.getvalue() + bytes(len(out.getvalue()) % 2), "<i2")
    content = small_font({}, samples=packed, loop=(0, 100), sample_type=0x11)
    content = content.replace(struct.pack("<III", 0, len(packed), 0), struct.pack("<III", 0, 2 * len(packed), 0))
    (tmp_path / "a.sf3").write_bytes(content)
    sound = render_notes([Note(0, 0.5, 69, 100)], open_soundfont(tmp_path / "a.sf3"))
    assert pitch_hz(sound[:20_000, 0]) == pytest.approx(441, rel=0.01)
    with pytest.raises(InputError, match="damaged"):
        opened({}, sample_type=0x11).remarks(0)


@given(st.data())
def test_a_damaged_font_is_an_input_error_or_finite_sound(tmp_path_factory, data):
    content = bytearray(small_font({43: 127 << 8, **LOOPED, 8: 8400, 11: 500}, second={48: 30, 54: 3}))
    tables = content.index(b"pdta")
    for at in data.draw(st.lists(st.integers(tables, len(content) - 1), min_size=1, max_size=6)):
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("font") / "a.sf2"
    path.write_bytes(content)
    complaint, out = "", np.zeros(0)
    try:
        out = render_notes([Note(0.0, 0.1, 60, 100)], open_soundfont(path), sample_rate_hz=8000)
    except InputError as error:
        complaint = str(error)
    assert np.isfinite(out).all()
    assert "\n" not in complaint

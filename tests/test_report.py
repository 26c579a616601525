"""The report of a verification holds what was found, loads nothing, and lets no name speak HTML."""

import base64
import dataclasses
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from PIL import Image

from faults import FAULTS
from musichal.errors import InputError
from musichal.evaluate.alignment import HeardRecording
from musichal.evaluate.checks import GROUPS, Check
from musichal.evaluate.partner_stats import DiversityRow, diversity_row
from musichal.evaluate.verify import OFFSETS, ShiftRow, Verification
from musichal.memory.partner_file import PartnerModel
from musichal.plots.report import (
    draw_histograms,
    draw_parity,
    draw_shift,
    parity_columns,
    report_html,
    token_agreement,
    write_page,
)
from musichal.plots.style import SOURCE_COLOURS
from test_pictures import overlapping_texts

RATE = 24_000
EVIL = "<script>alert('x')</script>\"&\x1b[31m\u202e歌.wav"
VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would find: text, links, images; refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.images: list[tuple[str, bytes]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.links += [str(v) for k, v in attrs if k in ("src", "href", "action", "data", "srcset") or k.startswith("on")]
        if tag == "img":
            source = str(values["src"])
            assert source.startswith("data:image/png;base64,")
            self.images.append((str(values["alt"]), base64.b64decode(source.split(",", 1)[1], validate=True)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.text.append(data.strip())


def row(label: str, tokens: np.ndarray, seconds: float) -> DiversityRow:
    return diversity_row(label, [tokens], size=64, duration_s=seconds)


SHIFT = tuple(
    ShiftRow(offset_samples=n, offset_s=n / RATE, shares=(0.9 - n / 50_000, 0.7 + n / 50_000), pairs=(700, 710))
    for n in (*(1050 * k for k in range(1, OFFSETS + 1)), 4360)
)


@pytest.fixture(scope="module")
def healthy(trained: PartnerModel) -> Verification:
    """A verification of a real partner, with what is real heard alike."""
    stored = trained.recordings[0]
    recording = HeardRecording(
        name=EVIL,
        duration_s=stored.duration_s,
        is_new=False,
        frame_samples=stored.frame_samples,
        stored_tokens=stored.tokens,
        live_frame_samples=stored.frame_samples,
        live_tokens=stored.tokens,
    )
    checks = [Check(group=g, name=f"{g} of {EVIL}", expected="742 of 742", found="742 of 742", passed=True) for g in GROUPS]
    checks.append(Check(group="shift", name="tokens that stay", expected="information", found="81.3%", passed=None))
    training = row("training", stored.tokens, stored.duration_s)
    return Verification(
        partner="rock <i>.hal",
        fingerprint=trained.spec.fingerprint(),
        sample_rate_hz=RATE,
        complete=True,
        checks=tuple(checks),
        recordings=(recording,),
        diversity=(training, dataclasses.replace(training, label="live, all frames")),
        shift=SHIFT,
    )


@pytest.fixture(scope="module")
def healthy_page(healthy: Verification) -> str:
    return report_html(healthy)


@pytest.fixture(scope="module")
def averaged(trained: PartnerModel, healthy: Verification) -> Verification:
    """The same where live hearing averages frames: heard by a listener that is broken in this way."""
    fault = next(f for f in FAULTS if f.name == "mean over frames")
    listener = fault.listener(trained, trained, source_rate_hz=44_100)
    percepts = listener.listen(trained.recordings[0].samples()).percepts
    tokens = np.concatenate([p.tokens for p in percepts], axis=1)
    failed = Check(
        group="parity", name="mix.wav, harmonic", expected="742 of 742", found="255 of 742", passed=False,
        detail="first at frame 0", cause="frames are averaged",
    )  # fmt: skip
    return dataclasses.replace(
        healthy,
        complete=False,
        checks=(*healthy.checks, failed),
        recordings=(dataclasses.replace(healthy.recordings[0], live_tokens=tokens),),
        diversity=(healthy.diversity[0], row("live, all frames", tokens, 10.0)),
    )


def test_the_report_holds_every_check_table_and_picture(healthy: Verification, healthy_page: str) -> None:
    page = Page(healthy_page)
    text = "\n".join(page.text)
    assert "All 7 checks passed" in text
    assert "What failed" not in text
    assert "A quick verification" not in text
    for group in GROUPS:
        assert group.capitalize() in page.text
    assert page.text.count("pass") == 7
    assert page.text.count("info") == 1
    for figures in healthy.diversity[0].diversity:
        assert page.text.count(f"{figures.unique} of 64") >= 2
        assert f"{figures.perplexity:.1f}" in page.text
    assert [alt.split()[0] for alt, _ in page.images] == ["Where", "Share", "Share"]
    for _, data in page.images:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.format == "PNG"
            assert image.width == 1600
            assert len(image.convert("RGB").getcolors(1 << 24)) > 3


def test_what_failed_comes_first_with_its_cause(averaged: Verification) -> None:
    page = Page(report_html(averaged))
    assert "1 of 8 checks failed" in page.text
    assert page.text.index("What failed") < page.text.index("FAIL") < page.text.index("Count")
    assert page.text.count("FAIL") == 2  # among the failures and in its group
    assert page.text.count("frames are averaged") == 2
    assert "A quick verification: some checks were left out." in page.text


def test_nothing_is_loaded_and_no_name_becomes_html(healthy: Verification) -> None:
    html = report_html(healthy)
    page = Page(html)
    assert {link[:22] for link in page.links} == {"data:image/png;base64,"}
    assert not {"script", "link", "iframe", "object", "i", "b"} & set(page.tags)
    assert "http:" not in html.lower() and "https:" not in html.lower() and "url(" not in html.lower()
    assert "default-src 'none'" in html
    assert "\x1b" not in html and "\u202e" not in html
    assert any("<script>alert('x')</script>\"&" in text for text in page.text)  # shown as what it is
    assert "Alignment of rock <i>.hal" in page.text


def test_the_file_is_whole_and_always_the_same(healthy: Verification, healthy_page: str, tmp_path: Path) -> None:
    write_page(tmp_path / "a.html", healthy_page)
    assert (tmp_path / "a.html").read_bytes().decode("utf-8") == healthy_page == report_html(healthy)
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]
    with pytest.raises(InputError, match="does not exist"):
        write_page(tmp_path / "nowhere" / "a.html", healthy_page)


def test_an_empty_verification_still_makes_a_page(healthy: Verification) -> None:
    empty = dataclasses.replace(healthy, checks=(), recordings=(), diversity=(), shift=())
    page = Page(report_html(empty))
    assert page.images == []
    lone = dataclasses.replace(empty, checks=healthy.group("diversity"), diversity=healthy.diversity[:1])
    assert Page(report_html(lone)).images == []


# Pictures


def strips(figure) -> list:
    return [axes.images[0] for axes in figure.axes]


def test_the_strips_show_where_tokens_differ(healthy: Verification, averaged: Verification) -> None:
    figure = draw_parity([dataclasses.replace(healthy.recordings[0], name="mix.wav")], sample_rate_hz=RATE)
    assert [set(np.unique(s.get_array())) for s in strips(figure)] == [{1}, {1}]
    assert overlapping_texts(figure) == []
    recording = averaged.recordings[0]
    figure = draw_parity(averaged.recordings, sample_rate_hz=RATE)
    labels = [axes.child_axes[0].get_yticklabels()[0].get_text() for axes in figure.axes]
    wrong = recording.stored_tokens != recording.live_tokens
    assert labels == [f"{n} differ" for n in wrong.sum(axis=1)]
    for source, strip in enumerate(strips(figure)):
        values = strip.get_array()[0]
        assert values.shape == (recording.frame_samples.size // 2,)
        seconds = (np.flatnonzero(values == 2) + 0.5) / len(values) * recording.duration_s
        frames_s = recording.frame_samples[wrong[source]] / RATE
        # Each coloured column has a differing frame in it, and each such frame colours one.
        half = recording.duration_s / len(values) / 2 + 1e-9
        assert all(np.abs(frames_s - s).min() <= half for s in seconds)
        assert all(np.abs(seconds - s).min() <= half for s in frames_s)
        assert to_hex(strip.cmap(strip.norm(2))) == "#d55e00"


def test_a_frame_that_only_one_stream_has_differs(healthy: Verification) -> None:
    recording = healthy.recordings[0]
    fewer = dataclasses.replace(
        recording, live_frame_samples=recording.frame_samples[5:], live_tokens=recording.live_tokens[:, 5:]
    )
    positions, agrees = token_agreement(fewer, source=0)
    assert np.array_equal(positions, recording.frame_samples)
    assert agrees.tolist() == [False] * 5 + [True] * (len(positions) - 5)
    surplus = dataclasses.replace(
        recording, frame_samples=recording.frame_samples[5:], stored_tokens=recording.stored_tokens[:, 5:]
    )
    assert token_agreement(surplus, source=1)[1].tolist() == agrees.tolist()
    elsewhere = dataclasses.replace(recording, live_frame_samples=recording.frame_samples + 1)
    assert not token_agreement(elsewhere, source=0)[1].any()


@given(st.lists(st.tuples(st.integers(0, 9_999), st.booleans()), max_size=80, unique_by=lambda x: x[0]), st.integers(1, 60))
def test_no_differing_frame_is_lost_in_a_column(frames: list[tuple[int, bool]], columns: int) -> None:
    frames = sorted(frames)
    positions, agrees = np.array([p for p, _ in frames], dtype=np.int64), np.array([a for _, a in frames], dtype=bool)
    strip = parity_columns(positions, agrees, end_sample=10_000, columns=columns)
    for column, value in enumerate(strip):
        own = [a for p, a in frames if p * columns // 10_000 == column]
        assert value == (0 if not own else 1 if all(own) else 2)


def test_of_many_recordings_those_that_differ_are_seen(healthy: Verification, averaged: Verification) -> None:
    many = [dataclasses.replace(healthy.recordings[0], name=f"{n}.wav") for n in range(60)]
    many[50] = dataclasses.replace(averaged.recordings[0], name="bad.wav", is_new=True)
    figure = draw_parity(many, sample_rate_hz=RATE)
    assert len(figure.axes) == 80
    assert figure.axes[0].get_title(loc="left") == "bad.wav, new to the partner"
    assert any("40 of 60 recordings" in t.get_text() for t in figure.texts)


def test_histograms_are_those_of_the_rows_in_the_order_of_training(averaged: Verification) -> None:
    figure = draw_histograms(averaged.diversity)
    assert overlapping_texts(figure) == []
    assert len(figure.axes) == 2
    for source, axes in enumerate(figure.axes):
        trained, live = (np.array(r.histograms[source], dtype=float) for r in averaged.diversity)
        bars = np.array([p.get_height() for p in axes.patches if hasattr(p, "get_height")])
        assert bars == pytest.approx(np.sort(100 * trained / trained.sum())[::-1])
        line = next(p for p in axes.patches if hasattr(p, "get_data")).get_data().values
        order = np.argsort(-trained, kind="stable")
        assert line == pytest.approx(100 * live[order] / live.sum())
        assert axes.get_ylim()[1] >= max(bars.max(), line.max())


def test_a_silent_row_draws_nothing_and_no_alarm(healthy: Verification, recwarn: pytest.WarningsRecorder) -> None:
    silent = row("silence", np.full((2, 50), -1, dtype=np.int16), 1.0)
    assert draw_histograms([silent, silent]).axes[0].get_ylim()[0] == 0
    assert Page(report_html(dataclasses.replace(healthy, diversity=(silent, silent)))).images
    assert [str(w.message) for w in recwarn] == []


def test_shift_bars_are_the_shares() -> None:
    figure = draw_shift(SHIFT)
    assert overlapping_texts(figure) == []
    (axes,) = figure.axes
    labels = [t.get_text() for t in axes.get_xticklabels()]
    assert labels == [*(f"{1000 * r.offset_s:.0f} ms" for r in SHIFT[:-1]), "182 ms\nbetween frames"]
    for source, (bars, colour) in enumerate(zip(axes.containers, SOURCE_COLOURS.values(), strict=True)):
        assert [b.get_height() for b in bars] == pytest.approx([100 * r.shares[source] for r in SHIFT])
        assert to_hex(bars[0].get_facecolor()).upper() == colour

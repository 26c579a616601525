"""The scheduler with its real process: files, OSC, faults, statistics. With JACK: test_scheduler_jack.py."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import mido
import pytest

from midi_notes import read_midi_notes
from midi_receiver import UdpReceiver, unbalanced
from musichal.errors import InputError
from musichal.live.output.note_scheduler import mpe_configuration
from musichal.live.output.routing import LiveOutput, Routing, VoiceRoute, parse_routing, single_port
from musichal.live.output.scheduler import Scheduler, SchedulerSettings, _whole_address
from musichal.live.output.scheduler_protocol import Event, MpeZone, PortSettings, Sent, Trouble
from musichal.machine import now_s
from musichal.note import Note
from musichal.partner.decision import Decision

NOWHERE = [PortSettings("out", "none:")]
# Where it is not about lateness and silence, a test that a busy machine puts aside for a while loses no note by that.
PATIENT = SchedulerSettings(silence_s=20.0, give_up_s=60.0, late_limit_s=20.0)
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def run_until(scheduler: Scheduler, done: Callable[[list[Event]], bool], timeout_s: float = 30.0) -> list[Event]:
    """Run the loop of an engine until `done` of all that happened; returns that."""
    events: list[Event] = []
    until_s = now_s() + timeout_s
    while True:
        scheduler.alive()
        events += scheduler.events()
        if done(events):
            return events
        assert now_s() < until_s, f"after {timeout_s} s: {events[-5:]}"
        time.sleep(0.01)


def check_counts(scheduler: Scheduler, **expected: int) -> None:
    """Check the counts of the statistics; the scheduler tells them four times a second."""
    until_s = now_s() + 20.0
    while True:
        scheduler.alive()
        counted = {name: getattr(scheduler.statistics(), name) for name in expected}
        if counted == expected or now_s() > until_s:
            assert counted == expected
            return
        time.sleep(0.02)


def sent(events: list[Event]) -> list[Sent]:
    return [event for event in events if isinstance(event, Sent)]


def notes_sent(events: list[Event]) -> list[Sent]:
    return [event for event in sent(events) if event.data[0] & 0xF0 in (0x80, 0x90)]


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events if isinstance(event, Trouble)]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] if sys.platform == "linux" else ""
        os.kill(pid, 0)
    except (OSError, FileNotFoundError):
        return False
    return state != "Z"


@pytest.fixture
def nowhere() -> Iterator[Scheduler]:
    with Scheduler(NOWHERE, settings=PATIENT) as scheduler:
        yield scheduler


def test_notes_leave_at_their_moments_in_order_with_their_tags(nowhere: Scheduler) -> None:
    start_s = now_s() + 0.1
    notes = [Note(start_s + 0.02 * k, 0.015, 60 + k, 90) for k in range(20)]
    assert [nowhere.play("out", [note], tag=1000 + k) for k, note in reversed(list(enumerate(notes)))] == [1] * 20
    events = notes_sent(run_until(nowhere, lambda events: len(notes_sent(events)) == 40))
    assert [e.data for e in events[::2]] == [bytes((0x90, 60 + k, 90)) for k in range(20)]
    assert [e.tag for e in events[::2]] == [1000 + k for k in range(20)]
    assert [e.target_s for e in events[::2]] == pytest.approx([n.onset_s for n in notes], abs=1e-9)
    assert all(e.sent_s >= e.target_s for e in events), "nothing leaves early"
    statistics = nowhere.statistics()
    assert statistics.lateness_max_s == max(e.lateness_s for e in events)
    assert statistics.lateness_p50_s <= statistics.lateness_p99_s <= statistics.lateness_max_s
    check_counts(nowhere, struck=20, ended=20)


def test_without_fluidsynth_the_built_in_sound_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert _whole_address("synth:") == "keys:"
    assert _whole_address("synth:piano.sf2") == "synth:piano.sf2"


def test_latency_is_made_up_for() -> None:
    with Scheduler([PortSettings("near", "none:"), PortSettings("far", "none:", latency_s=0.2)], settings=PATIENT) as scheduler:
        due_s = now_s() + 1.0
        for name in ("near", "far"):
            scheduler.play(name, [Note(due_s, 0.1, 60, 90)])
        scheduler.play("far", [Note(due_s - 0.9, 0.4, 62, 90)])
        events = notes_sent(run_until(scheduler, lambda events: len(notes_sent(events)) == 6))
        struck = {(e.port, e.data[1]): e for e in events if e.data[0] == 0x90}
        assert struck["near", 60].target_s == pytest.approx(due_s, abs=1e-9)
        assert struck["far", 60].target_s == pytest.approx(due_s - 0.2, abs=1e-9)
        assert struck["far", 62].sent_s > struck["far", 62].target_s + 0.05, "it could not be sent earlier"
        check_counts(scheduler, behind=1)


def test_panic_and_mute(nowhere: Scheduler) -> None:
    start_s = now_s()
    nowhere.play("out", [Note(start_s, 60.0, 60, 90), Note(start_s + 30.0, 1.0, 61, 90)])
    run_until(nowhere, lambda events: len(notes_sent(events)) == 1)
    nowhere.mute(True)
    assert notes_sent(run_until(nowhere, lambda events: len(notes_sent(events)) == 1))[0].data == bytes((0x80, 60, 0))
    nowhere.play("out", [Note(now_s(), 60.0, 62, 90)])
    check_counts(nowhere, muted=1)  # both at once, and it would be due after all
    nowhere.mute(False)
    nowhere.play("out", [Note(now_s(), 60.0, 63, 90)])
    assert notes_sent(run_until(nowhere, lambda events: len(notes_sent(events)) == 1))[0].data == bytes((0x90, 63, 90))
    nowhere.panic()
    events = sent(run_until(nowhere, lambda events: len(sent(events)) == 1 + 48))
    assert events[0].data == bytes((0x80, 63, 0))
    check_counts(nowhere, struck=2, ended=2, cancelled=1, muted=1)


def test_a_flood_is_refused_beyond_a_bound_and_panic_gets_through() -> None:
    with Scheduler(NOWHERE, settings=replace(PATIENT, capacity=1000)) as scheduler:
        memory = Path(f"/proc/{scheduler.pid}/statm")
        for _ in range(10):
            far_s = now_s() + 100.0
            scheduler.play("out", [Note(far_s, 1.0, 60, 90)] * 10_000)
        if memory.exists():
            before = int(memory.read_text().split()[1])
            for _ in range(10):
                scheduler.play("out", [Note(far_s, 1.0, 60, 90)] * 10_000)
            assert int(memory.read_text().split()[1]) < before + 2000, "pages of memory"
        scheduler.panic()
        time.sleep(0.5)  # it has a heap of messages to read before this one
        scheduler.play("out", [Note(now_s(), 60.0, 72, 90)])
        run_until(scheduler, lambda events: any(e.data[1] == 72 for e in notes_sent(events)))
        check_counts(scheduler, struck=1)
        assert scheduler.statistics().refused > 50_000


def test_events_that_nobody_fetches_are_bounded_and_counted(nowhere: Scheduler) -> None:
    for _ in range(800):
        nowhere.panic()  # 48 messages
        nowhere.alive()
        time.sleep(0.001)
    until_s = now_s() + 20.0
    while not nowhere.statistics().events_lost and now_s() < until_s:
        nowhere.alive()
        time.sleep(0.02)
    assert 0 < nowhere.statistics().events_lost < 800 * 48
    assert len(nowhere.events()) <= 20_000


def test_a_loop_that_hangs_is_noticed_every_note_ends_and_playing_goes_on() -> None:
    with Scheduler(NOWHERE, settings=replace(PATIENT, silence_s=1.0)) as scheduler:
        begun_s = now_s()
        scheduler.play("out", [Note(begun_s, 60.0, 60, 90), Note(begun_s + 5.0, 1.0, 61, 90)])
        hung_s = now_s()
        scheduler.alive()
        time.sleep(2.2)  # the loop hangs
        scheduler.alive()
        scheduler.play("out", [Note(now_s(), 60.0, 62, 90)])
        events = run_until(scheduler, lambda events: len(notes_sent(events)) == 3)
        _, off, again = notes_sent(events)
        assert off.data == bytes((0x80, 60, 0))
        assert 1.0 <= off.sent_s - hung_s < 2.2
        assert again.data == bytes((0x90, 62, 90))
        assert kinds(events) == ["silent", "notice"]
        check_counts(scheduler, silent=1)


def test_a_parent_that_stays_silent_is_given_up() -> None:
    with Scheduler(NOWHERE, settings=SchedulerSettings(silence_s=0.1, give_up_s=0.3)) as scheduler:
        scheduler.alive()
        pid = scheduler.pid
        assert pid is not None
        until_s = now_s() + 20.0
        while is_running(pid) and now_s() < until_s:
            time.sleep(0.01)
        assert not is_running(pid)
        assert not scheduler.alive() or not scheduler.alive()
        assert "gone" in kinds(scheduler.events())


@POSIX
def test_an_output_tells_in_order_that_its_scheduler_ended_and_is_started_anew() -> None:
    with Scheduler([PortSettings("out", "none:")], settings=PATIENT) as scheduler:
        output, news = LiveOutput(scheduler, [single_port("none:")]), []
        assert scheduler.pid is not None
        os.kill(scheduler.pid, signal.SIGKILL)
        until_s = now_s() + 20.0
        while not any("restarted" in text for _, text in news) and now_s() < until_s:
            news += output.tend()
            time.sleep(0.02)
    words = [text for _, text in news]
    assert [text.split(":")[0] for text in words] == ["the scheduler ended", "the scheduler is restarted"]


def test_a_voice_without_a_route_is_told_of_once_and_the_others_are_heard() -> None:
    routing = parse_routing({"voice": {"melody": {"port": "none:"}}})
    notes = (Note(0.0, 0.1, 60, 90),)
    with Scheduler(routing.ports) as scheduler:
        output = LiveOutput(scheduler, [routing])
        taken = [
            output.play(Decision(number, 0.0, "play", duration_s=0.1, notes=notes, voice=voice), lambda _: now_s())
            for number, voice in enumerate(["bass", "melody", "bass", "melody"])
        ]
        assert taken == [0, 1, 0, 1]
        assert [text for kind, text in output.tend() if kind == "voice"] == [
            "the voice 'bass' has no route in the table of voices: it is not played there"
        ]


@POSIX
def test_a_scheduler_that_is_gone_is_told_of_and_started_anew_and_what_it_left_sounding_is_ended(tmp_path: Path) -> None:
    receiver, file = UdpReceiver(), tmp_path / "reply.mid"
    ports = [PortSettings("out", f"osc:127.0.0.1:{receiver.port}"), PortSettings("file", f"file:{file}")]
    try:
        with Scheduler(ports, settings=PATIENT) as scheduler:
            scheduler.play("out", [Note(now_s(), 60.0, 60, 90)])
            scheduler.play("file", [Note(now_s(), 0.1, 61, 90)])
            run_until(scheduler, lambda events: len(notes_sent(events)) == 3)
            until_s = now_s() + 20.0
            while not (file.exists() and read_midi_notes(file)) and now_s() < until_s:
                scheduler.alive()
                time.sleep(0.02)
            assert scheduler.pid is not None
            os.kill(scheduler.pid, signal.SIGKILL)
            until_s = now_s() + 20.0
            while scheduler.alive() and now_s() < until_s:
                time.sleep(0.01)
            assert "gone" in kinds(scheduler.events())
            assert scheduler.play("out", [Note(now_s(), 1.0, 62, 90)]) == 0
            scheduler.restart()
            run_until(scheduler, lambda _: bool(scheduler.opened))
            for port in scheduler.ports:
                scheduler.play(port, [Note(now_s(), 0.1, 64, 90)])
            run_until(scheduler, lambda events: len(notes_sent(events)) >= 4)
            statistics = scheduler.statistics()
            assert statistics.refused == 1
        notes = [(address.rpartition("/")[2], arguments[1]) for address, arguments in receiver.all() if "note" in address]
        assert notes == [("on", 60), ("off", 60), ("on", 64), ("off", 64)]
        played = [[n.pitch for n in read_midi_notes(path)] for path in (file, tmp_path / "reply-2.mid")]
        assert played == [[61], [64]], "what the first has written stays"
    finally:
        receiver.close()


def test_a_stopped_scheduler_is_told_of_and_blocks_nothing() -> None:
    if sys.platform == "win32":
        pytest.skip("needs POSIX signals")
    with Scheduler(NOWHERE, settings=PATIENT) as scheduler:
        assert scheduler.pid is not None
        os.kill(scheduler.pid, signal.SIGSTOP)
        try:
            begun_s = now_s()
            taken = scheduler.play("out", [Note(begun_s + 50.0, 1.0, 60, 90)] * 100_000)
            assert taken < 100_000
            events = run_until(scheduler, lambda events: "unresponsive" in kinds(events))
            assert kinds(events) == ["unresponsive"]
        finally:
            os.kill(scheduler.pid, signal.SIGCONT)
        # It paused for more than a second: to it, the machine was suspended.
        run_until(scheduler, lambda events: "jump" in kinds(events))


def test_osc_notes_reach_a_socket() -> None:
    receiver, setup = UdpReceiver(), (bytes((0xB2, 7, 100)), bytes((0xC1, 5)))
    try:
        with Scheduler([PortSettings("out", f"osc:127.0.0.1:{receiver.port}", setup=setup)], settings=PATIENT) as scheduler:
            begun_s = now_s()
            scheduler.play("out", [Note(begun_s + 0.05, 0.05, 60, 90, channel=2)], tag=2**32 - 1)
            run_until(scheduler, lambda events: len(sent(events)) == 2)
        assert receiver.all() == [
            ("/musichal/midi", [(0, 0xB2, 7, 100)]),
            ("/musichal/midi", [(0, 0xC1, 5, 0)]),
            ("/musichal/note/on", [3, 60, 90, -1]),
            ("/musichal/note/off", [3, 60, -1]),
        ]
    finally:
        receiver.close()


def test_a_midi_file_has_what_was_played_from_the_origin_on(tmp_path: Path) -> None:
    path = tmp_path / "reply.mid"
    origin_s = now_s()
    with Scheduler([PortSettings("out", f"file:{path}")], settings=PATIENT, origin_s=origin_s) as scheduler:
        start_s = now_s() + 0.1
        scheduler.play("out", [Note(start_s + 0.1 * k, 0.08, 60 + k, 90, channel=k % 2) for k in range(5)])
        run_until(scheduler, lambda events: len(notes_sent(events)) == 10)
    notes = read_midi_notes(path)
    assert [(n.pitch, n.channel, n.velocity) for n in notes] == [(60 + k, k % 2, 90) for k in range(5)]
    assert [n.onset_s for n in notes] == pytest.approx([start_s - origin_s + 0.1 * k for k in range(5)], abs=0.0011)
    assert [n.duration_s for n in notes] == pytest.approx([0.08] * 5, abs=0.0011)


def test_live_a_midi_file_has_the_sessions_clock_and_no_track_without_a_note(tmp_path: Path) -> None:
    path = tmp_path / "reply.mid"
    # The file was opened a while before the stream began; another port takes longer to sound.
    ports = (PortSettings("out", f"file:{path}", latency_s=0.02), PortSettings("slow", "none:", latency_s=0.05))
    routes = {"melody": VoiceRoute("out"), "bass": VoiceRoute("slow")}
    with Scheduler(ports, settings=PATIENT, origin_s=now_s() - 3.0) as scheduler:
        output, began_s = LiveOutput(scheduler, [Routing(ports, routes)]), now_s()
        onsets = (0.45, 0.6)
        for number, onset_s in enumerate(onsets):
            note = Note(onset_s, 0.05, 60, 90)
            output.play(
                Decision(number=number, time_s=onset_s, kind="play", voice="melody", notes=(note,)), lambda t: began_s + t
            )
        run_until(scheduler, lambda events: len(notes_sent(events)) == 4)
        scheduler.panic()
        run_until(scheduler, lambda events: len(events) > 20)
    assert [n.onset_s for n in read_midi_notes(path)] == pytest.approx(onsets, abs=0.0011)
    assert len(mido.MidiFile(path).tracks) == 2, "the tempo, and one channel"


@POSIX
def test_a_midi_file_is_whole_after_a_crash_up_to_its_last_second(tmp_path: Path) -> None:
    path = tmp_path / "reply.mid"
    origin_s = now_s()
    with Scheduler([PortSettings("out", f"file:{path}")], settings=PATIENT, origin_s=origin_s) as scheduler:
        start_s = now_s()
        scheduler.play("out", [Note(start_s + 0.1 * k, 0.08, 60, 90) for k in range(1, 36)])
        scheduler.play("out", [Note(start_s, 30.0, 40, 90)])  # sounds all the while
        run_until(scheduler, lambda events: len(notes_sent(events)) >= 60)
        assert scheduler.pid is not None
        os.kill(scheduler.pid, signal.SIGKILL)
        killed_s = now_s()
        notes = read_midi_notes(path)
    assert notes[0].pitch == 40
    # A second, and what a loaded machine takes to write.
    assert max(note.onset_s + note.duration_s for note in notes) > killed_s - origin_s - 2.0
    assert len(notes) >= 10 * (killed_s - start_s - 2.0)


def test_a_disk_that_is_full_is_told_of_and_the_music_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    ports = [PortSettings("file", f"file:{folder / 'reply.mid'}"), PortSettings("out", "none:")]
    with Scheduler(ports, settings=PATIENT) as scheduler:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        for name in ("file", "out"):
            scheduler.play(name, [Note(now_s() + 0.1 * k, 0.08, 60, 90) for k in range(30)])
        events = run_until(scheduler, lambda events: len(notes_sent(events)) == 120 and "port" in kinds(events))
        trouble = next(event for event in events if isinstance(event, Trouble))
        assert trouble.port == "file"
        assert "does not exist" in trouble.text
        folder.mkdir()
    assert len(read_midi_notes(folder / "reply.mid")) == 30


def test_mpe_and_programs_are_set_up_before_anything_else() -> None:
    receiver = UdpReceiver()
    zone = MpeZone(members=3)
    try:
        port = PortSettings("out", f"osc:127.0.0.1:{receiver.port}", zone=zone, setup=(bytes((0xC0, 33)),))
        with Scheduler([port], settings=PATIENT) as scheduler:
            scheduler.play("out", [Note(now_s(), 0.2, 60 + k, 90) for k in range(3)])
            events = run_until(scheduler, lambda events: len(notes_sent(events)) == 6)
            assert unbalanced(e.data for e in notes_sent(events)) == []
            before = len(receiver.all())
            scheduler.panic()  # by then an instrument is connected that was not there when the port was opened
            scheduler.play("out", [Note(now_s(), 0.1, 70, 90)])
            run_until(scheduler, lambda events: len(notes_sent(events)) == 2)
        again = [tuple(arguments[0][1:]) for address, arguments in receiver.all()[before:] if address == "/musichal/midi"]
        first = [tuple(arguments[0][1:]) for address, arguments in receiver.all() if address == "/musichal/midi"]
        setup = [*mpe_configuration(zone), bytes((0xC0, 33))]
        wanted = [tuple(data) + (0,) * (3 - len(data)) for data in setup]
        assert first[: len(setup)] == wanted
        assert any(again[k : k + len(setup)] == wanted for k in range(len(again)))
        assert [a[0] for address, a in receiver.messages if address.endswith("on")] == [2, 3, 4, 2]
    finally:
        receiver.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("osc:127.0.0.1", "osc:HOST:PORT"),
        ("osc:127.0.0.1:70000", "osc:HOST:PORT"),
        ("file:", "name the MIDI file"),
        ("file:/nowhere/at/all/reply.mid", "does not exist"),
        ("synth:/nowhere/font.sf2", "no soundfont"),
        ("", "name a MIDI output"),
    ],
)
def test_a_port_that_cannot_be_is_one_clear_line(address: str, says: str) -> None:
    if address.startswith("synth"):
        pytest.importorskip("fluidsynth", reason="pyfluidsynth or libfluidsynth is not installed", exc_type=ImportError)
    with pytest.raises(InputError, match=says) as caught, Scheduler([PortSettings("out", address)]):
        pass
    assert "\n" not in str(caught.value)


def test_wrong_ports_and_settings_are_refused(nowhere: Scheduler) -> None:
    with pytest.raises(ValueError, match=r"unknown port 'other'\. Valid ports: out"):
        nowhere.play("other", [Note(0.0, 1.0, 60, 90)])
    with pytest.raises(ValueError, match="different names"):
        Scheduler([*NOWHERE, *NOWHERE])
    with pytest.raises(ValueError, match="ports must be"):
        Scheduler([])
    with pytest.raises(ValueError, match="latency_s"):
        PortSettings("out", "none:", latency_s=2.0)
    with pytest.raises(ValueError, match="silence_s"):
        SchedulerSettings(silence_s=20.0)


def test_a_block_that_fails_leaves_no_process_behind() -> None:
    pids = []

    def block() -> None:
        with scheduler:
            pids.append(scheduler.pid)
            raise RuntimeError("ours")

    scheduler = Scheduler(NOWHERE)
    with pytest.raises(RuntimeError, match="ours"):
        block()
    (pid,) = pids
    assert pid is not None
    assert not is_running(pid)
    scheduler.close()
    assert scheduler.alive() is False


def test_the_process_is_small() -> None:
    """It must be there at once, and nothing that it does not need can delay it."""
    code = "import sys, musichal.live.output.scheduler_process\nprint(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "scipy", "mido", "rtmidi", "jack"} & set(modules)

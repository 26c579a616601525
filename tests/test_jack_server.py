"""The fixtures themselves: what the fake microphone plays arrives sample by sample, in a real server."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jack_server import FakeMicrophone, JackServer

pytestmark = pytest.mark.live


def test_what_the_microphone_plays_arrives_sample_by_sample(
    jack_server: JackServer, fake_microphone: Callable[..., FakeMicrophone], tmp_path: Path
) -> None:
    import jack

    sound = np.random.default_rng(1).uniform(0.1, 0.9, 3000).astype(np.float32)
    soundfile.write(tmp_path / "sound.wav", sound, jack_server.rate_hz, subtype="FLOAT")
    microphone = fake_microphone(tmp_path / "sound.wav", before_s=0.1, after_s=0.1)
    client = jack.Client("recorder", servername=jack_server.name, no_start_server=True)
    port = client.inports.register("in_1")
    cycles: list[tuple[int, np.ndarray]] = []
    client.set_process_callback(lambda _n: cycles.append((client.last_frame_time, port.get_array().copy())))
    with client:
        client.connect(microphone.ports[0], port)
        before_s = time.monotonic()
        started = microphone.go()
        after_s = time.monotonic()
        finished = microphone.wait_until_finished()
    if finished.xruns or jack_server.xruns():
        pytest.skip("the server counted an xrun: this machine is busy")
    first = cycles[0][0]
    received = np.concatenate([samples for _, samples in cycles])
    np.testing.assert_array_equal(received[started.frame - first :][: len(sound)], sound)
    assert np.count_nonzero(received) == len(sound)
    assert finished.frame - started.frame == len(sound) + round(0.1 * jack_server.rate_hz)
    assert before_s + 0.09 < started.monotonic_s < after_s + 0.15


def test_servers_of_other_rates_and_periods(jack_server_at: Callable[..., JackServer]) -> None:
    import jack

    server = jack_server_at(rate_hz=44_100, period=256)
    client = jack.Client("asking", servername=server.name, no_start_server=True)
    assert (client.samplerate, client.blocksize) == (44_100, 256)
    client.close()


def test_a_receiver_is_connected_also_to_a_port_that_has_only_just_come(jack_server: JackServer) -> None:
    """A port is listed before its client is active, and takes no connection until then."""
    import jack

    from benchmarks.jack_midi import JackReceiver

    late = jack.Client("late", no_start_server=True)
    late.midi_outports.register("out")
    begin = threading.Timer(0.5, late.activate)
    with JackReceiver() as receiver:
        begin.start()
        for _ in range(2):
            assert receiver.connect("late") == "late:out"
        assert [port.name for port in receiver.client.get_all_connections(receiver._port)] == ["late:out"]
    begin.join()
    late.deactivate()
    late.close()


def test_a_file_of_another_rate_is_refused(
    jack_server: JackServer, fake_microphone: Callable[..., FakeMicrophone], tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "sound.wav", np.zeros(100, np.float32), 44_100)
    with pytest.raises(AssertionError, match="44100 Hz, the server at 48000 Hz"):
        fake_microphone(tmp_path / "sound.wav")
    assert jack_server.process.poll() is None

"""The commands: where each is declared, what it does, and an example; its options are the parameters of its function."""

from typing import NamedTuple


class Place(NamedTuple):
    """Where a command is: a module of `musichal.commands` and its function; its help, and an example below that."""

    function: str
    help: str
    example: str
    has_json: bool = True


COMMANDS = {
    "train": Place(
        "train.train_command",
        "Train a partner: learn the sounds of recordings, and how they follow one another.",
        "`musichal train take1.wav concert/ -o partner.hal`"
        " — how others answered you: `musichal train --player me.wav --others band.wav -o partner.hal`",
    ),
    "play": Place(
        "play.start_command",
        "Let a partner answer a player, live or from a recording, in MIDI and in sound, with a reason for each note.",
        "`musichal play partner.hal --input guitar.wav --midi-out reply.mid --audio-out reply.wav`"
        ' — live: `musichal play partner.hal --input Scarlett --midi-out "IAC Bus 1" --session tonight`',
    ),
    "check": Place(
        "evening.check_command",
        "Look, for ten seconds, at what could go wrong tonight: input, level, ports, power, disk; say what to do.",
        '`musichal check partner.hal --input Scarlett --midi-out "IAC Bus 1" --session tonight --for 20min`'
        " — the options are those of `play`; exits with 1 if something is to be done.",
    ),
    "parameters": Place(
        "reference.parameters_command",
        "Show the parameters: default, range and meaning of each setting.",
        "`musichal parameters temperature`",
    ),
    "modes": Place(
        "reference.modes_command",
        "Show the modes in which the partner plays with you.",
        "`musichal modes --toml > my-modes.toml`",
    ),
    "keys": Place(
        "reference.keys_command",
        "Show the keys that work while playing live.",
        "`musichal keys`",
    ),
    "docs": Place(
        "reference.docs_command",
        "Print the guide: first steps, parameters, modes, form, OSC, files, Python.",
        "`musichal docs osc`",
    ),
    "inspect": Place(
        "inspect.inspect_command",
        "Show what a partner learned: each take, how far its music reaches, whom it suits.",
        "`musichal inspect partner.hal --picture partner.png`",
    ),
    "devices": Place(
        "devices.devices_command",
        "Show audio and MIDI inputs and outputs, what works here, what is missing and how to get it; or measure a latency.",
        "`musichal devices --latency --input Scarlett --midi-out FLUID` — the microphone hears the loudspeaker.",
    ),
    "learn": Place(
        "devices.learn_command",
        "Write a map of MIDI controllers: for each command, move the controller that shall give it.",
        "`musichal learn map.toml temperature mode=shadow,mirror pause --control-in nanoKONTROL`",
    ),
    "replay": Place(
        "session.replay_command",
        "Play a session again: the same MIDI, byte for byte.",
        "`musichal replay session-1` — exits with 1 if the answer differs.",
    ),
    "export": Place(
        "session.export_command",
        "Export a session for a DAW: input, answer and mix as sound, MIDI by voice, tempo, markers, a Reaper project.",
        "`musichal export tonight -o for-the-daw` — a stretch: `--from 1:00 --to 2:30`",
    ),
    "keep": Place(
        "keep.keep_command",
        "Keep what a partner learned live: a partner with what you played in its sessions, or of that alone.",
        "`musichal keep take1 take2 -o richer.hal`",
    ),
    "explain": Place(
        "explain.explain_command",
        "Explain why a session was played as it was: a page of it all, a part, or one moment in full.",
        "`musichal explain take1 --at 1:23 --listen moment`",
    ),
    "moments": Place(
        "explain.moments_command",
        "List the good moments of a session: your marks, the longest agreement, what came back, endings.",
        "`musichal moments tonight --listen moments`",
    ),
    "web": Place(
        "web.web_command",
        "Show sessions and partners in the browser: play, explain, compare and export them; train and verify partners.",
        "`musichal web` — what is in this folder; `musichal web take1` — a session; `musichal web a.hal`.",
        has_json=False,
    ),
    "demo": Place(
        "demo.demo_command",
        "Learn how the bundled rock band answers its guitar, and answer the guitar's next seconds.",
        "`musichal demo my-demo`",
        has_json=False,
    ),
    "verify": Place(
        "check.verify_command",
        "Verify that the partner hears live as in training: frame counts, each token, diversity, repeatability.",
        "`musichal verify partner.hal --report report.html` — exits with 1 if a check fails.",
    ),
    "join": Place(
        "keep.join_command",
        "Make the partner of an archive that was heard in shards, as on a cluster.",
        "`musichal join node1/ node2/ -o partner.hal`",
    ),
    "worker": Place(
        "archive.worker_command",
        "Hear for an archive on another machine (extra `[dask]`), until its scheduler ends.",
        "`musichal worker dask://192.168.1.2:8786`",
        has_json=False,
    ),
    "compare": Place(
        "check.compare_command",
        "Show what two partners hear differently in the same recording.",
        "`musichal compare first.hal second.hal take1.wav`",
    ),
    "rehear": Place(
        "keep.rehear_command",
        "Let a partner hear its recordings again: by this machine's fastest runtime, or for beats that its file lacks.",
        "`musichal rehear partner.hal -o here.hal`",
    ),
    "evaluate": Place(
        "evaluate.evaluate_command",
        "Measure whether a partner listens, beside a deaf one; with --duo, whether it is together with a band.",
        "`musichal evaluate partner.hal guitar.wav --report listening.html`"
        " — a duo: `musichal evaluate --duo guitar.wav band.wav --report duo.html`",
    ),
    "encoder": Place(
        "train.encoder_command",
        "Show a learned encoder's weights and licence, and check that they load and compute correctly.",
        "`musichal encoder m-a-p/MERT-v1-95M --check` — exits with 1 if a check fails.",
    ),
}

"""What a sound file holds, found by walking through it, whatever its header says.

libsndfile decodes well and believes what headers say. It stops a WAV file at a length that a recorder without power never
wrote, an MP3 file at a length guessed from its first frame, and a chain of Ogg streams at its first link; it reads no FLAC in
Ogg and no BW64. So `contents` finds the sound: frames of MPEG audio (ISO/IEC 11172-3), pages of Ogg (RFC 3533), streams of FLAC
(RFC 9639), the data chunk of WAV, RF64, BW64, Wave64, AIFF, CAF and AU. Each `Part` is made of stretches of the file and of
mended headers; `Spliced` is the file that a decoder sees of it.
"""

from musichal.audio.chunks import Chunks, au, chunked, riff
from musichal.audio.parts import Contents, Data, Foreign, after_tags
from musichal.audio.streams import flac, mpeg, ogg

_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_MOST_JUNK_BYTES = 1 << 17
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")


def contents(data: Data) -> Contents | Foreign | None:
    """Return what a file holds; None where it is no sound that is known here."""
    start = after_tags(data, 0)
    head = bytes(data[start : start + 16])
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return riff(data, start)
    for magic, chunks in _CHUNKED.items():
        if head.startswith(magic) and (magic != b"FORM" or head[8:12] in (b"AIFF", b"AIFC")):
            return chunked(data, start, chunks)
    for magic, reader in ((b".snd", au), (b"fLaC", flac), (b"OggS", ogg)):
        if head.startswith(magic):
            return reader(data, start)
    foreign = next((foreign for at, magic, foreign in _FOREIGN if head[at : at + len(magic)] == magic), None)
    if foreign is not None:
        return foreign
    page = data.find(b"OggS\0", start, start + _MOST_JUNK_BYTES)  # a stream that was recorded from its middle on
    return mpeg(data, start, len(data)) if page < 0 else ogg(data, page)


_CHUNKED = {
    b"FORM": Chunks("AIFF", b"SSND", 12, ">I"),
    b"caff": Chunks("CAF", b"data", 8, ">Q", alignment=1),
    _W64_RIFF: Chunks("W64", _W64_DATA, 40, "<Q", size_includes_header=True, alignment=8),
}
_FOREIGN = (
    (4, b"ftyp", Foreign("MP4 (AAC or ALAC)", "mov")),
    (4, b"moov", Foreign("QuickTime", "mov")),
    (4, b"mdat", Foreign("QuickTime", "mov")),
    (0, bytes.fromhex("3026b2758e66cf11"), Foreign("WMA", "asf")),
    (0, b"\x1aE\xdf\xa3", Foreign("Matroska or WebM", "matroska")),
    (0, b"wvpk", Foreign("WavPack", "wv")),
    (0, b"MAC ", Foreign("Monkey's Audio", "ape")),
    (0, b"TTA1", Foreign("True Audio", "tta")),
    (0, b"MP+", Foreign("Musepack", "mpc")),
    (0, b"MPCK", Foreign("Musepack", "mpc8")),
    (0, b"#!AMR", Foreign("AMR", "amr")),
    (0, b"DSD ", Foreign("DSD", "dsf")),
    (0, b"FRM8", Foreign("DSD", "iff")),
    (0, b"ADIF", Foreign("AAC", "aac")),
    (0, b"\x0bw", Foreign("AC-3", "ac3")),
    (8, b"AVI ", Foreign("AVI", "avi")),
    *((0, b"\xff" + bytes([second]), Foreign("AAC", "aac")) for second in (0xF0, 0xF1, 0xF8, 0xF9)),
)
FOREIGN_SUFFIXES = frozenset(
    {".3gp", ".aac", ".ac3", ".alac", ".amr", ".ape", ".asf", ".avi", ".dff", ".dsf", ".m4a", ".m4b", ".m4v", ".mka", ".mkv"}
    | {".mov", ".mp4", ".mpc", ".spx", ".tta", ".webm", ".wma", ".wv"}
)
"""What is taken from a folder, and read where FFmpeg's libraries are."""

"""A thin binding to eSpeak NG: text in, 16-bit speech out, through ctypes and the optional package `espeakng_loader`.

eSpeak NG keeps state between utterances (phase, noise, pitch): the same text spoken twice in one process differs, while
the same sequence of texts in a fresh process, its random numbers seeded, is bit-identical (`speak_afresh`).
"""

# ruff: noqa: SIM905  names are read and mended more easily without seventy pairs of quotes
import atexit
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from asr_lab.errors import DataError, nearest

if TYPE_CHECKING:
    import numpy as np

SAMPLE_RATE = 22_050  # Hz, of every voice

# Variants that sound like different people. Left out: whispers, robots, near copies of a voice kept here, and voices
# whose spoken digits a template matcher confuses.
HIGH_VOICES = (
    "Andrea Annie anika aunty belinda f1 f2 f3 f4 f5 grandma linda shelby steph zac"  # 170 Hz and above
).split()
LOW_VOICES = (
    "Alex Andy Denis Diogo Gene Gene2 Henrique Jacky Marco Mario Michael Mike Nguyen RicishayMax RicishayMax2 "
    "Storm adam announcer antonio boris ed edward gustave ian iven4 john klatt4 m1 m2 m3 m4 m5 m6 m7 m8 marcelo "
    "max miguel norbert pablo paul pedro quincy rob robert sandro travis victor"
).split()
ACCENTS = ("en", "en-us", "en-us-nyc", "en-029", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd")


class Voice(NamedTuple):
    """A voice and its habits."""

    name: str = "en"  # language and, after a plus, a variant: "en-us+f3"
    rate: int = 175  # words per minute, 80 to 450
    pitch: int = 50  # base pitch on eSpeak's scale of 0 to 99; the variant says what 50 means in hertz
    pitch_range: int = 50  # liveliness of the melody, 0 (monotone) to 99


DEFAULT_VOICE = Voice()

# Constants of espeak-ng/speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000  # an error code instead of exit(1) when the data folder is missing
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CHARS_UTF8 = 1
_HEADROOM = 50  # half of eSpeak's usual volume: at 100 some voices run into its limiter

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_chunks: list[bytes] = []


@_CALLBACK
def _collect(samples, n_samples: int, _events) -> int:
    if samples and n_samples > 0:
        _chunks.append(ctypes.string_at(samples, 2 * n_samples))
    return 0  # go on


@cache
def _library() -> ctypes.CDLL:
    """The library, loaded and initialised once per process."""
    try:
        import espeakng_loader
    except ImportError:
        raise DataError(
            "eSpeak NG is not installed, and speech is made with it: pip install 'asr-lab[synth]'"
        ) from None
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        *(ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),  # position, its type, end position, flags
        *(ctypes.c_void_p, ctypes.c_void_p),  # identifier, user data
    ]
    data = _short(Path(espeakng_loader.get_data_path()))
    rate = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, os.fsencode(data), _DONT_EXIT)
    if rate != SAMPLE_RATE:
        raise DataError(f"eSpeak NG cannot start with its data in {data} (answer {rate}); reinstall espeakng-loader")
    library.espeak_SetSynthCallback(_collect)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # starts from the time of day, which rough and breathy voices hear
    return library


@cache
def _variants() -> frozenset[str]:
    import espeakng_loader

    return frozenset(os.listdir(Path(espeakng_loader.get_data_path(), "voices", "!v")))


def _short(data: Path) -> Path:
    """`data`, through a link where its path is longer than the 160 bytes that eSpeak NG has room for."""
    if len(os.fsencode(data)) < 150:
        return data
    folder = tempfile.mkdtemp(prefix="espeak-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    link = Path(folder, "data")
    link.symlink_to(data)
    return link


def version() -> str:
    """Version of the library, for example `1.52.0`."""
    return _library().espeak_Info(None).decode().split()[0]


def speak(text: str, voice: Voice = DEFAULT_VOICE) -> "np.ndarray":
    """`text` spoken in this process: int16 samples (S,) at `SAMPLE_RATE`."""
    import numpy as np

    return np.frombuffer(_speak(text, voice), dtype=np.int16)


def speak_afresh(orders: list[tuple[str, Voice]]) -> "tuple[list[np.ndarray], str]":
    """Each text in its voice, spoken in this sequence by a fresh process: int16 arrays (S,), eSpeak NG's version."""
    import numpy as np

    package_root = str(Path(__file__).resolve().parents[2])
    search_path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    child = subprocess.run(
        [sys.executable, "-P", "-m", __spec__.name],  # -P: nothing of the working directory is imported by accident
        input=json.dumps(orders).encode(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": search_path},
        check=False,
    )
    if child.returncode:
        message = child.stderr.decode(errors="replace").strip()
        raise DataError(message or f"eSpeak NG ended with status {child.returncode}")
    header, pcm = child.stdout.split(b"\n", 1)
    answer = json.loads(header)
    ends = np.cumsum(answer["n_samples"])
    return np.split(np.frombuffer(pcm, dtype=np.int16), ends[:-1]), answer["version"]


def _speak(text: str, voice: Voice) -> bytes:
    library = _library()
    _, plus, variant = voice.name.partition("+")  # for an unknown variant eSpeak NG silently takes the plain voice
    if (plus and variant not in _variants()) or library.espeak_SetVoiceByName(voice.name.encode()) != 0:
        hint = nearest(variant, _variants()) if plus else nearest(voice.name, ACCENTS)
        raise DataError(f"eSpeak NG has no voice '{voice.name}'{hint}")
    settings = ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range), (_VOLUME, _HEADROOM))
    for parameter, value in settings:
        library.espeak_SetParameter(parameter, value, 0)
    _chunks.clear()
    encoded = text.encode() + b"\0"
    if library.espeak_Synth(encoded, len(encoded), 0, 0, 0, _CHARS_UTF8, None, None) != 0 or not _chunks:
        raise DataError(f"eSpeak NG could not speak {text!r} with voice '{voice.name}'")
    return b"".join(_chunks)


def _main() -> None:
    """The fresh process: texts and voices on standard input; a line of JSON and the samples on standard output."""
    try:
        spoken = [_speak(text, Voice(*fields)) for text, fields in json.load(sys.stdin)]
        header = {"version": version(), "n_samples": [len(pcm) // 2 for pcm in spoken]}
    except DataError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + b"".join(spoken))


if __name__ == "__main__":
    _main()

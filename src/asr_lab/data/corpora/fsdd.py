"""Free Spoken Digit Dataset (Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset)."""

import re
from pathlib import Path

from asr_lab.data.corpora.layout import named
from asr_lab.data.recordings import Recording
from asr_lab.errors import DataError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<take>\d+)")


def recordings(folders: list[Path], n_test_takes: int) -> list[Recording]:
    """`recordings/<digit>_<speaker>_<take>.wav`; the first takes of every digit and speaker are the test.

    Raises:
        DataError: another layout, or no file of this form.
    """
    found = []
    for path in named(folders, "recordings", "*.wav"):
        if name := _NAME.fullmatch(path.stem):
            split = "test" if int(name["take"]) < n_test_takes else "train"
            found.append(Recording(path.stem, path, DIGITS[int(name["digit"])], split, name["speaker"]))
    if not found:
        raise DataError(f"{', '.join(map(str, folders))}: no file like recordings/7_jackson_32.wav; fetch FSDD again")
    return found

"""yesno (https://www.openslr.org/1/): one speaker, eight words a file; the file's name is its transcript."""

import re
from pathlib import Path

from asr_lab.data.corpora.layout import named
from asr_lab.data.recordings import Recording
from asr_lab.errors import DataError

SPEAKER = "yesno_m1"


def recordings(folders: list[Path], n_train: int) -> list[Recording]:
    """`waves_yesno/1_0_...wav`, 1 for yes; the first `n_train` in alphabetical order are for training, as in Kaldi.

    Raises:
        DataError: another layout, or too few files.
    """
    files = [f for f in named(folders, "waves_yesno", "*.wav") if re.fullmatch(r"[01](_[01])*", f.stem)]
    if len(files) <= n_train:
        raise DataError(
            f"{', '.join(map(str, folders))}: has {len(files)} recordings like waves_yesno/0_1_1.wav, more than "
            f"{n_train} are wanted; fetch yesno again"
        )
    return [
        Recording(
            id=path.stem,
            audio=path,
            text=" ".join("yes" if c == "1" else "no" for c in path.stem.split("_")),
            split="train" if number < n_train else "test",
            speaker=SPEAKER,
        )
        for number, path in enumerate(files)
    ]

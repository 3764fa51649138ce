"""yesno (https://www.openslr.org/1/): one speaker, eight words a file; the file's name is its transcript."""

import re
from pathlib import Path

from asr_lab.data.corpora.layout import holder
from asr_lab.data.recordings import Recording
from asr_lab.errors import DataError

SPEAKER = "yesno_m1"


def recordings(folders: list[Path], n_train: int) -> list[Recording]:
    """`waves_yesno/1_0_...wav`, 1 for yes; the first `n_train` in alphabetical order are for training, as in Kaldi.

    Raises:
        DataError: another layout, or too few files.
    """
    here = [folder for folder in folders if folder.name == "waves_yesno"]
    home = here[0] if here else holder(folders, "waves_yesno", "yesno") / "waves_yesno"
    files = sorted(path for path in home.glob("*.wav") if re.fullmatch(r"[01](_[01])*", path.stem))
    if len(files) <= n_train:
        raise DataError(f"{home}: has {len(files)} recordings, more than {n_train} are wanted; fetch the corpus again")
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

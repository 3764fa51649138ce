"""AISHELL-1 (Bu et al. 2017, https://www.openslr.org/33/): 400 Mandarin speakers, 178 hours."""

import logging
from pathlib import Path

from asr_lab.data.corpora.layout import holder, lines
from asr_lab.data.recordings import Recording
from asr_lab.errors import DataError

TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"


def recordings(folders: list[Path]) -> list[Recording]:
    """`wav/{train,dev,test}/<speaker>/<id>.wav`, with the spaces between the transcripts' words taken out.

    The corpus has a few hundred recordings without a transcript; they are left out, and counted in the log.

    Raises:
        DataError: another layout; speakers that are still packed; a split none of whose recordings has a text.
    """
    home = holder(folders, TRANSCRIPT, "AISHELL-1")
    texts = {}
    for line in lines(home / TRANSCRIPT):
        name, _, text = line.partition(" ")
        texts[name] = "".join(text.split())
    if packed := sorted((home / "wav").glob("*.tar.gz")):
        raise DataError(
            f"{packed[0]}: a speaker that is still packed; give data_aishell.tgz itself, or unpack them all"
        )
    found, n_silent = [], 0
    for split in ("train", "dev", "test"):
        files = sorted((home / "wav" / split).glob("*/*.wav"))
        spoken = [f for f in files if f.stem in texts]
        if not spoken:
            raise DataError(f"{home / 'wav' / split}: no recording with a transcript in it; fetch the corpus again")
        n_silent += len(files) - len(spoken)
        found += [Recording(f.stem, f, texts[f.stem], split, f.parent.name) for f in spoken]
    if n_silent:
        logging.getLogger(__name__).warning("%s: %d recordings without transcript are left out", home, n_silent)
    return found

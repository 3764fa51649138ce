"""LibriSpeech (Panayotov et al. 2015, https://www.openslr.org/12/) and Mini LibriSpeech (https://www.openslr.org/31/)."""

from pathlib import Path

from asr_lab.data.corpora.layout import lines, named
from asr_lab.data.recordings import Recording
from asr_lab.errors import DataError


def recordings(folders: list[Path], splits: dict[str, list[str]]) -> list[Recording]:
    """The utterances of the named subsets: `<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac`.

    Args:
        splits: the subsets of each split, such as {"train": ["train-clean-100"]}.

    Raises:
        DataError: a subset is missing or has no transcripts.
    """
    return [r for split, subsets in splits.items() for subset in subsets for r in _subset(folders, subset, split)]


def _subset(folders: list[Path], subset: str, split: str) -> list[Recording]:
    transcripts = named(folders, subset, "*/*/*.trans.txt")
    if not transcripts:
        raise DataError(f"no transcripts of {subset} in what was given; give {subset}.tar.gz too (--from)")
    found: dict[str, Recording] = {}
    for transcript in transcripts:
        for line in lines(transcript):
            name, _, text = line.partition(" ")
            speaker = transcript.parent.parent.name
            found.setdefault(name, Recording(name, transcript.parent / f"{name}.flac", text.strip(), split, speaker))
    return list(found.values())

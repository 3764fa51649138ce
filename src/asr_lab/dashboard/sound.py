"""The sound of an utterance: the one thing that is not in the outputs folder.

A request names a run, a split and an utterance, never a file. The utterance must be one that the run itself was scored
on (a line of its hyps.<split>.jsonl), and the file is what the run's own manifest says of that id. What is sent is not
the file but its samples, decoded and written anew as WAV: a path that leads to something else gives an error.
"""

import io
import json
from pathlib import Path
from typing import Any

from asr_lab.dashboard.answers import Kept
from asr_lab.dashboard.configs import Configs
from asr_lab.dashboard.places import AbsentError, Places
from asr_lab.dashboard.utterances import Utterances
from asr_lab.data.manifest import Utterance, parse_manifest
from asr_lab.errors import AsrLabError, DataError

LONGEST_S = 600.0


class Sounds:
    """Utterances as WAV; the last ones are kept."""

    def __init__(self, places: Places, utterances: Utterances, configs: Configs):
        self.places, self.utterances, self.configs = places, utterances, configs
        self._manifests: Kept[dict[str, Utterance]] = Kept(8)
        self._waves: Kept[bytes] = Kept(32)

    def wave(self, run: Path, split: str, id_: str) -> bytes:
        """
        Raises:
            AbsentError: the run was not scored on such an utterance.
            DataError: its manifest does not say where it is, or the audio cannot be read.
        """
        hypotheses = self.utterances.hypotheses(run, split)
        if id_ not in hypotheses.by_id:
            raise AbsentError(id_)
        manifest, channel = self._source(run)
        try:
            stamp = manifest.stat()
        except OSError:
            raise DataError("the manifest of the run's data is not on this machine") from None
        mark = (stamp.st_mtime_ns, stamp.st_size, self.utterances.mark(run, split))
        known = self._manifests.get((manifest, run, split), mark, lambda: _wanted(manifest, hypotheses.by_id.keys()))
        if id_ not in known:
            raise DataError("the manifest of the run's data has no such utterance any more")
        utterance = known[id_]
        return self._waves.get((run, split, id_), mark, lambda: _wave(utterance, channel))

    def _source(self, run: Path) -> tuple[Path, int | str]:
        """The run's manifest and channel, as its result.json says, or for older runs its config.yaml."""
        config = self.configs.read(run).data
        channel = config.get("channel", "mix")
        channel = channel if isinstance(channel, int) and not isinstance(channel, bool) else "mix"
        result = self._json(run / "result.json")
        data = result.get("data")
        recorded = data.get("manifest") if isinstance(data, dict) else None
        if isinstance(recorded, str) and Path(recorded).is_absolute():
            return Path(recorded), channel
        if isinstance(config.get("manifest"), str):
            from asr_lab.data.corpus import corpora_dirs, locate

            root = config.get("root")
            roots = corpora_dirs(root if isinstance(root, str) else None) if config.get("prepare") else []
            return locate(str(config.get("name")), config["manifest"], roots), channel
        raise DataError("an older run: it does not say where the manifest of its data is")

    def _json(self, path: Path) -> dict[str, Any]:
        if self.places.stamp(path) is None:
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _wanted(manifest: Path, ids: Any) -> dict[str, Utterance]:
    try:
        return {u.id: u for u in parse_manifest(manifest) if isinstance(u, Utterance) and u.id in ids}
    except AsrLabError:
        raise DataError("the manifest of the run's data cannot be read") from None


def _wave(u: Utterance, channel: int | str) -> bytes:
    """16-bit WAV of the utterance's own segment and channel."""
    import soundfile

    from asr_lab.data import audio

    try:
        info = audio.probe(u.audio, u.member)
        lasts = info.n_samples / info.sample_rate if u.offset is None else u.duration
        if lasts > LONGEST_S:
            raise DataError(f"longer than {LONGEST_S:g} s, which is too long for a page")
        samples, rate = audio.read(
            u.audio, u.member, u.offset, u.duration, u.channel if u.channel is not None else channel
        )
    except DataError as error:  # without the path, which is nobody's business
        raise DataError(str(error).partition(":")[0]) from None
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()

"""`asr-lab transcribe RUN FILES`: what is said in recordings."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from asr_lab.errors import ConfigError, DataError, DiskFullError, is_disk_full, nearest
from asr_lab.text.subtitles import FORMATS, Passage

if TYPE_CHECKING:
    from asr_lab.transcribe import Source


def add(app: typer.Typer) -> None:
    app.command()(transcribe)


def transcribe(
    run: str = typer.Argument(help="A run's folder, or the beginning of its cell name or fingerprint."),
    files: list[str] = typer.Argument(
        help="Audio files, or - for raw 16-bit mono samples from standard input; and Hydra overrides of decoding and "
        "lm: decoding.beam=8."
    ),
    form: str = typer.Option("text", "--format", help="text, json (a line a segment), srt or vtt."),
    out: Path | None = typer.Option(None, help="Folder for a file each; what is there is not done again."),
    rate: int | None = typer.Option(None, help="Sampling rate of standard input.", show_default=False),
    channel: str | None = typer.Option(None, help="From 0, or mix.  [default: data.channel of the run]"),
    max_segment: float = typer.Option(20.0, help="Seconds; a longer file is cut at its pauses."),
    pause: float = typer.Option(0.5, help="Seconds of silence that end a segment of standard input."),
    batch_seconds: float = typer.Option(80.0, help="Padded seconds of audio recognised at once."),
    checkpoint: str = typer.Option("best", help="best or last."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Recognise audio files, of any length and sampling rate, or a live stream (Ctrl-C ends it).

    arecord -f S16_LE -r 16000 -t raw | asr-lab transcribe RUN - --rate 16000
    """
    from asr_lab.run import find_run

    overrides = [f for f in files if _is_override(f)]
    names = [f for f in files if not _is_override(f)]
    _check(names, rate, max_segment, pause, batch_seconds)
    paths = _paths(names, form, out)
    found = find_run(run, outputs)
    if overrides:
        from asr_lab.evaluate.overrides import is_sweep

        if is_sweep(overrides):
            raise ConfigError("overrides: a list of values came; `asr-lab evaluate RUN ... -m` finds the best one")
    chosen = _channel(found.config["data"]["channel"] if channel is None else channel)
    sources = _sources(paths, chosen, rate, max_segment, pause)
    n_failed = 0
    if sources:
        import torch

        from asr_lab.process import n_threads
        from asr_lab.transcribe import Transcriber

        torch.set_num_threads(n_threads(found.config["runtime"]["n_threads"]))
        transcriber = Transcriber(found, checkpoint, overrides, batch_seconds)
        try:
            n_failed = _carry_out(transcriber, sources, form)
        except KeyboardInterrupt:
            hint = "; what is done is kept, the same command goes on" if out else ""
            print(f"asr-lab: interrupted{hint}", file=sys.stderr)
            raise typer.Exit(130) from None
    if n_done := len(paths) - len(sources):
        print(f"asr-lab: {n_done} of {len(paths)} files were in {out} already", file=sys.stderr)
    if n_failed:
        raise typer.Exit(2)


def _sources(
    paths: dict[str, Path | None], channel: str | int, rate: int | None, max_s: float, pause_s: float
) -> "dict[Source, Path | None]":
    """What is not done yet, with the file that it becomes."""
    from asr_lab.data.segments import Pcm, Recording

    found: dict[Source, Path | None] = {}
    for name, path in paths.items():
        if path is None or not path.exists():
            found[Pcm(sys.stdin.buffer, rate, max_s, pause_s) if rate else Recording(Path(name), channel, max_s)] = path
    return found


def _carry_out(transcriber: Any, todo: "dict[Source, Path | None]", form: str) -> int:
    """How many sources failed; each is told in one line."""

    written, n_failed = None, 0
    for source, item in transcriber(todo):
        if written is None:
            path = todo[source]
            name = source.name if path is None and len(todo) > 1 else None
            written = Written(form, path, sys.stdout, name)
        if item is None:
            written.done()
            written = None
        elif isinstance(item, DataError):
            written.left()
            written = None
            n_failed += 1
            print(f"asr-lab: {item}", file=sys.stderr, flush=True)
        else:
            written.passage(item)
    return n_failed


def _is_override(word: str) -> bool:
    return bool(re.match(r"[+~]*(decoding|lm)([./@][^=]*)?=", word))


def _check(names: list[str], rate: int | None, max_segment: float, pause: float, batch_seconds: float) -> None:

    if not names:
        raise ConfigError("no file to transcribe was given, only overrides")
    if "-" in names and len(names) > 1:
        raise ConfigError("-: standard input comes alone, without files beside it")
    if ("-" in names) != (rate is not None):
        raise ConfigError(
            "--rate is for standard input (-); files say theirs"
            if rate is not None
            else "-: say the sampling rate of standard input, as --rate 16000"
        )
    if rate is not None and not 1000 <= rate <= 400_000:
        raise ConfigError(f"--rate {rate}: is no sampling rate in Hz, such as 16000")
    for key, value, least in (
        ("max-segment", max_segment, 1),
        ("pause", pause, 0.2),
        ("batch-seconds", batch_seconds, 1),
    ):
        if not least <= value < 1e6:
            raise ConfigError(f"--{key} {value:g}: at least {least} s are wanted")


def _paths(names: list[str], form: str, out: Path | None) -> dict[str, Path | None]:
    """{name: file in `out`, None: standard output}; a name that came twice is done once."""

    if form not in FORMATS:
        raise ConfigError(f"--format {form}: no such format{nearest(form, FORMATS)}")
    if out is None:
        if len(set(names)) > 1 and not FORMATS[form].joins:
            raise ConfigError(f"--format {form}: gives a file for each recording; say where, as --out FOLDER")
        return dict.fromkeys(names)
    if out.exists() and not out.is_dir():
        raise DataError(f"--out: {out} is a file; give the name of a folder")
    found: dict[str, Path | None] = {}
    owners: dict[Path, str] = {}
    for name in names:
        path = out / f"{'stdin' if name == '-' else Path(name).stem}{FORMATS[form].suffix}"
        if owners.setdefault(path, name) != name:
            raise ConfigError(f"--out: {owners[path]} and {name} would both become {path}; give them apart")
        found[name] = path
    return found


def _channel(value: str | int) -> str | int:
    if str(value) == "mix":
        return "mix"
    if not str(value).isdecimal():
        raise ConfigError(f"--channel {value}: is a number from 0, or mix")
    return int(value)


class Written:
    """The passages of one source, each written and flushed as it comes.

    With a folder they go to `<file>.part` until the source is done: a file without `.part` is whole. Without one they
    go to `stream`.
    """

    def __init__(self, form: str, path: Path | None, stream: TextIO, name: str | None):
        self.format = FORMATS[form](name)
        self.path, self.stream, self.is_bare = path, stream, True
        if path:
            self.part = path.with_name(path.name + ".part")
            self._carefully(self._open)
        self._write(self.format.head)

    def _open(self) -> None:
        assert self.path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = open(self.part, "w", encoding="utf-8")  # noqa: SIM115  closed by done or left

    def passage(self, p: Passage) -> None:
        """
        Raises:
            DiskFullError, DataError: it cannot be written.
        """
        self.is_bare = False
        self._write(self.format(p))

    def done(self) -> None:
        if self.path:
            self.stream.close()
            self.part.replace(self.path)

    def left(self) -> None:
        """The source broke off: what came before is kept in the part file."""
        if self.path:
            self.stream.close()
            if self.is_bare:
                self.part.unlink()

    def _write(self, text: str) -> None:
        def write() -> None:
            self.stream.write(text)
            self.stream.flush()

        self._carefully(write)

    def _carefully(self, do: Any) -> None:
        try:
            do()
        except BrokenPipeError:
            raise
        except OSError as error:
            where, why = self.path or "standard output", error.strerror
            if is_disk_full(error):
                raise DiskFullError(f"{where}: cannot write ({why}); free some space, then run again") from None
            raise DataError(f"{where}: cannot write ({why}); choose another --out") from None

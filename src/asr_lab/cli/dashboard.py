"""`asr-lab dashboard`: the outputs folder as a local page that follows running sweeps."""

from pathlib import Path

import typer


def add(app: typer.Typer) -> None:
    app.command()(dashboard)


def dashboard(
    port: int = typer.Option(None, min=0, max=65535, help="Default: 8642, or the next one that is free."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on; any but this machine's own asks for a token."),
    token: str = typer.Option(
        None, envvar="ASR_LAB_TOKEN", help="What a browser must bring; made and printed where one is needed."
    ),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
    audio: bool = typer.Option(True, "--audio/--no-audio", help="Let the page play the utterances of the runs."),
) -> None:
    """Serve a page on this machine: experiments, cells, curves, utterances, gradients; live while a sweep runs.

    asr-lab dashboard; asr-lab dashboard --port 8700 --outputs /scratch/me/outputs
    """
    from asr_lab.dashboard.serve import serve

    serve(outputs, host, port, token, audio)

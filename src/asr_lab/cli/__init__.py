"""The `asr-lab` command. Each subcommand is a small file; heavy imports happen inside the functions that need them."""

import os
import sys
import traceback

import typer

from asr_lab import __version__
from asr_lab.errors import AsrLabError
from asr_lab.lean_imports import import_leanly

# Plain help: Rich's costs 0.2 s of import at every call.
app = typer.Typer(
    name="asr-lab",
    help="Speech-recognition ablations: train one run, sweep a grid, report with intervals.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"asr-lab {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks of errors (before the subcommand)."),
) -> None:
    """Speech-recognition ablations: train one run, sweep a grid, report with intervals."""
    if debug:
        os.environ["ASR_LAB_DEBUG"] = "1"


def main() -> None:
    """Entry point: one line and exit status 2 for what a person can mend; a traceback for our own mistakes."""
    from asr_lab.cli import (
        align,
        cancel,
        clip_advice,
        compare,
        dashboard,
        data,
        doctor,
        errors,
        evaluate,
        export,
        forensics,
        gradients,
        inspect,
        lm,
        logs,
        lr_find,
        plan,
        report,
        rerun,
        status,
        sweep,
        train,
        transcribe,
        wandb,
    )

    sweeps = (train, sweep, plan, doctor, status, logs, cancel, rerun)
    runs = (report, compare, dashboard, evaluate, errors, align, transcribe, export, inspect)
    for module in (*sweeps, *runs, gradients, forensics, clip_advice, lr_find, data, lm, wandb):
        module.add(app)
    import_leanly()
    argv = sys.argv[1:]
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a user's own parts live there; `python -m asr_lab` has it already
    if argv[:1] in (["-sc"], ["--shell-completion"]):
        sys.exit(train.complete(argv))
    try:
        app(args=argv, prog_name="asr-lab")
    except BrokenPipeError:  # the reader (head, less) has gone
        sys.stdout = None
        sys.exit(0)
    except Exception as error:
        if os.environ.get("ASR_LAB_DEBUG"):
            traceback.print_exc()
            sys.exit(2)
        message = explain(error)
        if message is None:
            traceback.print_exc()
            print("asr-lab: this is a bug of asr-lab, please report it with the lines above", file=sys.stderr)
            sys.exit(1)
        from asr_lab.report.terminal import visible

        print(f"asr-lab: {visible(message)}", file=sys.stderr)
        sys.exit(2)


def explain(error: BaseException) -> str | None:
    """The line for a person, or None when the error is ours."""
    chain: list[BaseException] = []
    e: BaseException | None = error
    while e is not None and e not in chain:
        chain.append(e)
        e = e.__cause__ or e.__context__
    for e in chain:
        if isinstance(e, AsrLabError):
            return " ".join(str(e).split())
    module = type(error).__module__.partition(".")[0]
    if module in ("hydra", "omegaconf"):
        from asr_lab.cli.hydra_errors import one_line

        return one_line(error)
    return None

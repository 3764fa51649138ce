"""Brings to Weights & Biases what has not arrived there, from what runs have left on the disk.

The steps of a run that the service has are known from the service, so that this can break off anywhere and start again.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from asr_lab.errors import AsrLabError, RunError, nearest
from asr_lab.hold import holder
from asr_lab.run import Run
from asr_lab.tracking.follow import Follow
from asr_lab.tracking.state import State, one_line
from asr_lab.tracking.wandb_copy import WandbCopy, close_client, offline_folders


class Limits(NamedTuple):
    """Seconds that one run may take: until the service answers, and for all of it."""

    init_s: float
    run_s: float


class Synced(NamedTuple):
    """What was done about one run."""

    cell: str
    did: str  # "sent", "complete already", "not complete" or "left out"
    how: str  # from which of its files, or why not


def experiment_folder(experiment: str, outputs: Path) -> Path:
    """
    Raises:
        RunError: there is no such folder.
    """
    folder = Path(experiment) if Path(experiment).is_dir() else outputs / experiment
    if not folder.is_dir():
        known = [p.name for p in outputs.iterdir() if p.is_dir()] if outputs.is_dir() else []
        raise RunError(f"{folder}: no such experiment{nearest(experiment, known)}")
    return folder


def project_of(run: Run) -> str | None:
    """The project at W&B that the run was told of; None where it was trained with another logger."""
    logger = run.config.get("logger") or {}
    target = str(logger.get("_target_", ""))
    return logger.get("project") if target.startswith("asr_lab.tracking.wandb.") else None


def project_in(folder: Path) -> str:
    """The project that an experiment's runs were told of.

    Raises:
        RunError: there is none.
    """
    for path in sorted(folder.glob("*/result.json")):
        if (run := _opened(path.parent)) and (project := project_of(run)):
            return project
    raise RunError(f"{folder}: no run was trained with logger=wandb or wandb_offline; give --project NAME")


def register_sweep(config: dict[str, Any], project: str) -> str:
    """`ENTITY/PROJECT/ID` of a new sweep.

    Raises:
        RunError: the service refuses it or does not answer.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    try:
        with _within(60, f"W&B at {_address()} does not answer"), redirect_stdout(sys.stderr):
            entity = os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
            return f"{entity}/{project}/{wandb.sweep(config, project=project, entity=entity)}"
    except Exception as error:
        raise RunError(f"W&B at {_address()}: the sweep was not registered ({one_line(error)})") from None


def sync(folder: Path, project: str | None, artifacts: bool, limits: Limits) -> Iterator[Synced]:
    """All runs of an experiment's folder, one after the other. `project`: of those, too, that were not told of one.

    Raises:
        RunError: nothing was logged to W&B, or the service cannot be reached.
    """
    runs = [run for path in sorted(folder.glob("*/result.json")) if (run := _opened(path.parent))]
    wanted = [(run, where) for run in runs if (where := project or project_of(run))]
    if not wanted:
        raise RunError(
            f"{folder}: none of {len(runs)} runs was trained with logger=wandb or wandb_offline; "
            "--project NAME sends them all the same"
        )
    try:
        for run, where in wanted:
            yield sync_run(run, where, artifacts, limits)
    finally:
        if "wandb" in sys.modules:
            close_client()


def _opened(folder: Path) -> Run | None:
    try:
        return Run.open(folder)
    except AsrLabError as error:
        print(f"asr-lab: {error}", file=sys.stderr)
        return None


def sync_run(run: Run, project: str, artifacts: bool, limits: Limits) -> Synced:
    """One run. Raises as `sync`."""
    state = State(run.folder, "wandb")
    status = (run.result() or {}).get("status")
    who = holder(run.folder)
    if who and who.is_alive:
        return Synced(run.name, "left out", "it runs, and its own process sends it")
    if status == "planned" or not run.metrics_file.exists():
        return Synced(run.name, "left out", "it has not run yet")
    if state["complete"] and state["status"] in (status, None):
        return Synced(run.name, "complete already", "")
    with _within(limits.run_s, f"{run.folder}: W&B has not answered for {limits.run_s:g} s; what has arrived stays "
                               "there, the same command goes on"):  # fmt: skip
        return _sync_run(run, state, project, artifacts, limits)


def tell_agent(run: Run) -> None:
    """An agent of a W&B sweep was given a run that is done already: its rows and scores, under the agent's name for
    it. What goes wrong is only said."""
    if not {"WANDB_SWEEP_ID", "WANDB_RUN_ID"} <= os.environ.keys() or not (project := project_of(run)):
        return
    state = State(run.folder, "wandb", is_kept=False)
    copy = WandbCopy(run, state, project, False, False, 60.0, 60.0, is_live=False)
    follow = Follow(run, copy, state)
    with _within(120, f"W&B at {_address()} does not answer"):
        follow.end()
    if not state["complete"]:
        print(f"asr-lab: the sweep of W&B was not told ({state['missing']})", file=sys.stderr)


def _sync_run(run: Run, state: State, project: str, artifacts: bool, limits: Limits) -> Synced:
    copy = WandbCopy(run, state, project, False, artifacts, limits.init_s, limits.run_s, is_live=False)
    follow = Follow(run, copy, state)
    how = []
    try:
        follow.open()
        if follow.rows.next_step == 0 and (folders := offline_folders(run.folder)):
            # The last one holds the run from its beginning, and the machine's use beside it.
            copy.abandon()
            is_whole = state["missing"] == "offline"
            how += [_by_client(folders[-1], limits)]
            follow.open()
            if is_whole and follow.first_step:  # with the table of samples
                follow.n_samples = 0
    except AsrLabError:
        raise
    except Exception as error:
        copy.abandon()
        raise RunError(
            f"W&B at {_address()} cannot be reached ({one_line(error)}); nothing is lost, run it again"
        ) from None
    follow.end()
    how += [f"{run.metrics_file.name} from step {follow.first_step}" if follow.n_sent else "its result"]
    if state["complete"]:
        return Synced(run.name, "sent", ", ".join(how))
    return Synced(
        run.name, "sent" if _is_unfinished(state) else "not complete", ", ".join([*how, str(state["missing"])])
    )


def _is_unfinished(state: State) -> bool:
    """Whether all of a run is there that has more to come"""
    return str(state["missing"]).startswith("the run is ")


def _by_client(folder: Path, limits: Limits) -> str:
    """W&B's own way, for a folder written offline"""
    command = [sys.executable, "-m", "wandb", "beta", "sync", "--yes", "--no-skip-synced", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limits.run_s, check=False)
    except subprocess.TimeoutExpired:
        return f"{folder.name} took too long"
    said = " ".join((done.stderr or done.stdout).split())
    is_there = done.returncode == 0 and any(folder.glob("*.synced"))
    return folder.name if is_there else f"{folder.name} could not be read ({said[-120:]})"


@contextmanager
def _within(seconds: float, otherwise: str) -> Iterator[None]:
    """Ends this process, status 2, where a client hangs that no other way would end."""

    def give_up() -> None:
        print(f"asr-lab: {otherwise}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _address() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def as_rows(done: list[Synced]) -> list[dict[str, Any]]:
    """For JSON"""
    return [item._asdict() for item in done]

"""A copy of a run at Weights & Biases, made from the run's files."""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from asr_lab.run import Run
from asr_lab.tracking import End
from asr_lab.tracking.state import State, one_line

log = logging.getLogger("asr_lab.tracking")

AXIS = "trainer/global_step"  # as Lightning calls it
# Summaries hold the best value of these and the last of all others.
BEST = {"val/wer": "min", "val/cer": "min", "val/ppl": "min", "val/loss": "min"}
COLUMNS = ("id", "audio", "ref", "hyp", "sub", "del", "ins", "text", "nats", "labels", "words")
BINS = 48  # of a histogram


class WandbCopy:
    """A run with group = experiment, job type = encoder, model or landscape, tags = factors, id = fingerprint and the
    resolved configuration. Steps are those of training, so that going on never doubles or drops a row.

    Where the service does not answer within `init_timeout_s`, the copy is written offline.

    Args:
        stop: called when someone stops the run in the service's page.
        is_live: the run is being trained by this process's parent; otherwise nothing is written offline.
    """

    def __init__(
        self,
        run: Run,
        state: State,
        project: str,
        offline: bool,
        artifacts: bool,
        init_timeout_s: float,
        finish_timeout_s: float,
        stop: Callable[[], None] | None = None,
        is_live: bool = True,
    ):
        self.run, self.state, self.project, self.artifacts = run, state, project, artifacts
        self.offline = offline or os.environ.get("WANDB_MODE") in ("offline", "dryrun")
        self.init_timeout_s, self.finish_timeout_s = init_timeout_s, finish_timeout_s
        self.stop, self.is_live = stop, is_live
        self._client: Any = None
        self._step = 0  # of the last row

    def open(self) -> int:
        if not self.offline:
            try:
                return self._open(offline=False)
            except Exception as error:  # the client raises many kinds
                if not self.is_live:
                    raise
                log.warning("W&B: not reachable (%s); logging offline, upload later with `asr-lab wandb sync %s`",
                            one_line(error), self.run.config["experiment"])  # fmt: skip
                self.offline = True
                self.abandon()  # its service keeps the run's id reserved after a failed start
        return self._open(offline=True)

    def _open(self, offline: bool) -> int:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        mode = "offline" if offline else "online"
        more: dict[str, Any] = {"stop_fn": self.stop} if self.stop and not offline else {}
        settings = wandb.Settings(
            init_timeout=self.init_timeout_s,
            finish_timeout=self.finish_timeout_s,
            finish_timeout_raises=True,
            silent=True,
            console="off",  # train.log is the run's
            x_stats_pid=os.getppid(),  # the training's use of the machine, not this process's
            x_disable_stats=not self.is_live,
            **more,
        )
        run, factors = self.run, self.run.factors
        self._client = wandb.init(
            project=self.project,
            name=run.name,
            id=run.fingerprint,
            dir=str(run.folder),
            mode=mode,
            group=run.config["experiment"],
            job_type=next((str(factors[k]) for k in ("encoder", "model", "landscape") if k in factors), "run"),
            tags=[f"{k}={v}"[:64] for k, v in factors.items()],
            config={**run.config, "factors": factors, "fingerprint": run.fingerprint},
            resume="allow",
            settings=settings,
        )
        self._client.define_metric(AXIS)
        self._client.define_metric("*", step_metric=AXIS)
        for key, summary in BEST.items():
            self._client.define_metric(key, step_metric=AXIS, summary=summary)
        where = {} if offline else {"url": self._client.url, "entity": self._client.entity}
        self.state.write(id=self._client.id, project=self.project, mode=mode, complete=False, **where)
        self._step = self._client.starting_step
        return self._step

    def log(self, step: int, values: dict[str, float], gradients: dict[str, np.ndarray]) -> None:
        import wandb

        histograms = {
            f"gradient_log10/{layer}": wandb.Histogram(np_histogram=np.histogram(x, BINS))
            for layer, x in gradients.items()
        }
        self._client.log({**values, **histograms, AXIS: step}, step=step)
        self._step = step

    def alert(self, title: str, text: str, is_error: bool) -> None:
        from wandb.sdk.wandb_alerts import AlertLevel

        level = AlertLevel.ERROR if is_error else AlertLevel.WARN
        self._client.alert(title=title, text=text, level=level, wait_duration=0)

    def finish(self, end: End) -> str:
        client = self._client
        if end.utterances:
            client.log({"samples": _table(end), AXIS: self._step}, step=self._step)
        client.summary.update(summary_of(end.result))
        goes_on = end.status in ("preempted", "running")
        missing = "offline" if self.offline else f"the run is {end.status}" if goes_on else ""
        if goes_on:  # under the same id
            client.mark_preempting()
        if end.status == "done" and self.artifacts and not self.offline:
            try:
                lineage(client, self.run, end.result)
            except Exception as error:
                missing = f"artifacts ({one_line(error)})"
        client.finish(exit_code=0 if end.status == "done" else 1)
        return missing

    def abandon(self) -> None:
        self._client = None
        close_client(at_once=True)


def close_client(at_once: bool = False) -> None:
    """End the client's service, so that this process can start another, at another address; `at_once`: whatever it
    still has to send. Asked to end, it would first try for minutes."""
    import psutil
    import wandb
    from wandb.sdk.lib.import_hooks import unregister_all_post_import_hooks

    unregister_all_post_import_hooks()  # they would tell the old client of every import
    for child in psutil.Process().children() if at_once else ():
        if child.name().startswith("wandb-core"):
            for process in [*child.children(recursive=True), child]:
                process.kill()
            child.wait(5)
    with contextlib.suppress(Exception):  # it misses its service
        wandb.teardown()


def _table(end: End) -> Any:
    """Test utterances with sound, reference, hypothesis and errors (of a language model: text and -log p)."""
    import wandb

    first = end.utterances[0]
    columns: list[Any] = [
        c for c in COLUMNS if c in first.row or (c == "audio" and any(u.audio for u in end.utterances))
    ]
    table = wandb.Table(columns=columns)
    for row, sound in end.utterances:
        audio = wandb.Audio(sound[0], sample_rate=sound[1]) if sound else None
        table.add_data(*(audio if c == "audio" else row.get(c) for c in columns))
    return table


def summary_of(result: dict[str, Any]) -> dict[str, Any]:
    """What a result.json adds to the curves. The best of BEST stand in the summary already."""
    said = {k: v for k, v in result.get("metrics", {}).items() if k not in BEST}
    said |= {k: result[k] for k in ("status", "reason", "parameters", "steps", "epochs", "peak_memory_mb", "best",
                                    "findings", "nonfinite") if result.get(k) is not None}  # fmt: skip
    return said | {f"seconds/{k}": v for k, v in result.get("seconds", {}).items()}


def lineage(client: Any, run: Run, result: dict[str, Any]) -> None:
    """The data that the run used and the model that it made, as artifacts."""
    import json

    import wandb

    digests = (result.get("data") or {}).get("digest")
    if digests:
        # The digests stand for the data: the same data are the same version, and no sound leaves the machine.
        data = wandb.Artifact(artifact_name(f"data-{run.config['data'].get('name', 'manifest')}"), type="dataset",
                              metadata={"digest": digests})  # fmt: skip
        with data.new_file("digest.json", mode="w") as f:
            json.dump(digests, f, indent=1, sort_keys=True)
        client.use_artifact(data)
    if run.best_checkpoint.exists():
        scores = {k: v for k, v in result.get("metrics", {}).items() if k.startswith(("val/", "test/"))}
        model = wandb.Artifact(artifact_name(f"{run.config['experiment']}-{run.fingerprint}"), type="model",
                               metadata={"factors": run.factors, "metrics": scores})  # fmt: skip
        model.add_file(str(run.best_checkpoint), "best.ckpt", policy="immutable")  # no second copy on the disk
        model.add_file(str(run.folder / "config.yaml"))
        client.log_artifact(model, aliases=["best"])


def artifact_name(text: str) -> str:
    """Letters, digits and -_. are allowed, 128 in all."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in text)[:128]


def offline_folders(folder: Path) -> list[Path]:
    """Folders that the client has written offline in a run's folder, the oldest first."""
    return sorted(p for p in (folder / "wandb").glob("offline-run-*") if p.is_dir())

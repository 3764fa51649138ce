"""Knowledge distillation (Hinton et al. 2015): a finished run's distributions are learnt beside the labels."""

from typing import Any

import torch
from torch import Tensor, nn

from asr_lab.errors import AsrLabError, ConfigError
from asr_lab.run import Run, find_run, flatten
from asr_lab.types import Batch

PROBED = 200  # feature frames of the silence on which shapes are compared


class Teacher:
    """(1 - `weight`) loss + `weight` T^2 KL(teacher || student), T = `temperature`, both in nats an utterance.

    The divergence is summed over the places of the decoder's `posteriors`: frames of a frame-wise decoder, labels and
    the end of one that goes label by label. Both distributions have their log-probabilities divided by T; T^2 keeps the
    gradients' scale (section 2 of the paper). The teacher is the best checkpoint of the run `teacher`, which must be
    the one that had this `fingerprint` when the student's configuration was frozen. It hears what the student hears,
    augmentation included.
    """

    def __init__(self, teacher: str, fingerprint: str, weight: float, temperature: float):
        if not 0 < weight <= 1:
            raise ValueError(f"distill.weight is a share in (0, 1], {weight} came; distill=none has none")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"distill.temperature must be above 0, {temperature} came")
        self.teacher, self.fingerprint = teacher, fingerprint
        self.weight, self.temperature = weight, temperature
        self.model: Any = None  # head, encoder and decoder, from `prepare` on

    def prepare(self, config: dict[str, Any], parts: Any) -> None:
        """Load the teacher.

        Raises:
            ConfigError: there is no such run, or it is none that can teach this one; what differs is named.
        """
        run, task = finished_run(self.teacher), parts.task
        if run.fingerprint != self.fingerprint:
            raise self._error(f"is another run now ({run.fingerprint}) than when this one was frozen")
        saved = torch.load(run.best_checkpoint, map_location="cpu", weights_only=False)
        self._compare(run.config, saved["belongings"], config, task)
        self.model = self._model(run.config, saved, len(task.tokenizer))
        self._probe(task, parts.data.pipeline.frontend.out_dim)

    def __call__(
        self, losses: Tensor, decoder: Any, batch: Batch, hidden: Tensor, lens: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        student, valid = decoder.posteriors(hidden, lens, batch.labels, batch.label_lens)
        with torch.no_grad():
            teacher, _ = self._posteriors(batch.feats, batch.feat_lens, batch.labels, batch.label_lens)
        if teacher.shape != student.shape:
            raise self._other_shape(teacher, student)
        t, s = ((x / self.temperature).log_softmax(dim=-1) for x in (teacher, student))
        divergence = (t.exp() * (t - s)).sum(dim=-1).masked_fill(~valid, 0).sum(dim=1)  # (B,)
        scaled = self.temperature**2 * divergence
        terms = {"labels": losses.detach(), "distill": scaled.detach()}
        return (1 - self.weight) * losses + self.weight * scaled, terms

    def _posteriors(self, feats: Tensor, feat_lens: Tensor, labels: Tensor, label_lens: Tensor) -> Any:
        model = self.model.to(feats.device)
        return model["decoder"].posteriors(*model["encoder"](*model["head"](feats, feat_lens)), labels, label_lens)

    def _model(self, config: dict[str, Any], saved: dict[str, Any], n_labels: int) -> nn.ModuleDict:
        from asr_lab.build import build_model

        model = nn.ModuleDict(build_model(config, n_labels)._asdict())
        weights = {k: v for k, v in saved["state_dict"].items() if k.partition(".")[0] in model}
        model.load_state_dict(weights)
        return model.eval().requires_grad_(False)

    def _compare(self, theirs: dict[str, Any], belongings: dict[str, Any], ours: dict[str, Any], task: Any) -> None:
        from asr_lab.build import identity

        decoders = [c["decoder"]["_target_"].rpartition(".")[2] for c in (theirs, ours)]
        if decoders[0] != decoders[1]:
            raise self._error(f"decoder is {decoders[0]} there, {decoders[1]} here; both must be of one kind")
        if not hasattr(task.decoder, "posteriors"):
            raise self._error(f"{decoders[1]} has no distributions that could be compared; set distill=none")
        features = [flatten({**identity(c), "cmvn": c["frontend"]["cmvn"]}) for c in (theirs, ours)]
        for key in sorted(features[0].keys() | features[1].keys()):
            there, here = (f.get(key, "nothing") for f in features)
            if there != here:
                name = "frontend." + key if key.startswith("cmvn") else key
                raise self._error(f"{name} is {there} there, {here} here; teacher and student must hear the same")
        if not _like(belongings.get("moments"), task.belongings.get("moments")):
            raise self._error("its features were normalised by other data; train both with frontend/cmvn=utterance")
        if belongings["tokenizer"].symbols != task.tokenizer.symbols:
            n = [len(belongings["tokenizer"]), len(task.tokenizer)]
            raise self._error(f"its tokenizer has other labels ({n[0]} there, {n[1]} here); choose the same one")

    @torch.no_grad()
    def _probe(self, task: Any, n_features: int) -> None:
        """Compare shapes before an hour of training."""
        device = next(task.parameters()).device
        feats, lens = torch.zeros(1, PROBED, n_features, device=device), torch.tensor([PROBED], device=device)
        labels, one = torch.zeros(1, 1, dtype=torch.long, device=device), torch.ones_like(lens)
        modules = [(m, m.training) for m in task.modules()]
        task.eval()
        student, _ = task.decoder.posteriors(*task.encoder(*task.head(feats, lens)), labels, one)
        for module, training in modules:
            module.training = training
        teacher, _ = self._posteriors(feats, lens, labels, one)
        if teacher.shape != student.shape:
            raise self._other_shape(teacher, student)

    def _other_shape(self, teacher: Tensor, student: Tensor) -> ConfigError:
        (_, n, k), (_, m, j) = teacher.shape, student.shape
        return self._error(
            f"its distributions of an utterance are {n} over {k} classes where this model's are {m} over {j}; choose "
            "the same subsampling"
        )

    def _error(self, what: str) -> ConfigError:
        return ConfigError(f"distill.teacher={self.teacher}: {what}")


def finished_run(name: str) -> Run:
    """
    Raises:
        ConfigError: there is no such run, or it has not been trained to its end.
    """
    try:
        run = find_run(name)
        done = run.is_done()
    except AsrLabError as error:
        raise ConfigError(f"distill.teacher: {error}") from None
    if not done:
        raise ConfigError(f"distill.teacher={name}: this run is not done; train it first")
    if not run.best_checkpoint.exists():
        raise ConfigError(f"distill.teacher={name}: {run.best_checkpoint} is not there")
    return run


def _like(a: Any, b: Any) -> bool:
    """Moments of the same frames, whatever the order in which they were summed; None: not normalised by any."""
    if a is None or b is None:
        return a is b
    return a.n_frames == b.n_frames and torch.allclose(a.total, b.total, rtol=1e-3, atol=1e-2)

"""The formats: which network is written, how it becomes bytes, and how those are run again."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.metadata import version
from typing import Protocol

import torch
import yaml
from torch import Tensor, nn

from asr_lab.errors import ConfigError
from asr_lab.export.check import Exported
from asr_lab.export.network import INPUTS, Network
from asr_lab.paths import conf_dir

EXAMPLE = [64, 43, 21]  # feature frames of the batch that an export is made with


class Format(Protocol):
    file: str
    opset: int | None

    def require(self) -> None:
        """
        Raises:
            ConfigError: a package is missing.
        """
        ...

    def prepare(self, network: Network) -> Network:
        """The network that the file has to agree with."""
        ...

    def write(self, network: Network) -> bytes:
        """
        Raises:
            ConfigError: the network cannot be written so.
        """
        ...

    def read(self, content: bytes) -> Exported: ...

    def versions(self) -> dict[str, str]: ...


class TorchScript:
    """A trace, which PyTorch runs in Python and in C++ (`torch.jit.load`).

    A loop over frames would be laid out for one length; kernels of whole layers and operations on all frames are not.
    """

    file = "model.torchscript.pt"
    opset: int | None = None

    def require(self) -> None: ...

    def prepare(self, network: Network) -> Network:
        return network

    def write(self, network: Network) -> bytes:
        buffer = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of checks of shapes, which a trace leaves out; TorchScript's end
                traced = torch.jit.trace(network, example(network), check_trace=False)
                torch.jit.save(traced, buffer)  # pyright: ignore[reportArgumentType]
        except Exception as error:  # with pages of text
            raise ConfigError(
                f"--format torchscript or int8: {type(network.encoder).__name__} cannot be traced as configured "
                f"({type(error).__name__}); choose onnx, or another encoder or cell"
            ) from error
        return buffer.getvalue()

    def read(self, content: bytes) -> Exported:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(io.BytesIO(content), map_location="cpu")

    def versions(self) -> dict[str, str]:
        return {}


class Int8(TorchScript):
    """TorchScript with the weights of linear and recurrent layers in 8 bits, the inputs of each product quantised as
    they come (`torch.ao.quantization.quantize_dynamic`). Convolutions and attention scores stay in float32."""

    file = "model.int8.pt"

    def prepare(self, network: Network) -> Network:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.ao.quantization.quantize_dynamic(network, {nn.Linear, nn.LSTM, nn.GRU}, dtype=torch.qint8)


class Onnx:
    """ONNX, by torch.export; recurrent layers become a scan over frames."""

    file = "model.onnx"
    opset: int | None = 18
    packages = ("onnx", "onnxscript", "onnxruntime")

    def require(self) -> None:
        for package in self.packages:
            try:
                import_module(package)
            except ImportError:
                raise ConfigError(
                    f"--format onnx: {package} is not installed; pip install 'asr-lab[export]', or choose torchscript"
                ) from None

    def prepare(self, network: Network) -> Network:
        return network

    def write(self, network: Network) -> bytes:
        try:
            with warnings.catch_warnings(), _silence():
                warnings.simplefilter("ignore")
                return self._write(network)
        except Exception as error:  # of many kinds, with pages of text
            raise ConfigError(
                f"--format onnx: torch.export cannot follow {type(network.encoder).__name__} ({type(error).__name__}); "
                f"choose torchscript, or an encoder out of: {', '.join(_exporting())}"
            ) from error

    def _write(self, network: Network) -> bytes:
        rows, frames = torch.export.Dim("batch", min=1), torch.export.Dim("frames", min=16)
        program = torch.export.export(
            network,
            example(network),
            dynamic_shapes=({0: rows, 1: frames}, {0: rows}),
            # What cannot be shown of (T + 2) // 3 in general is left to the check of the exported file.
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=self.opset,
            input_names=list(INPUTS),
            output_names=list(network.outputs),
        )
        assert written is not None
        return written.model_proto.SerializeToString()

    def read(self, content: bytes) -> Exported:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # warnings tell of nothing that anyone could mend
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

        def run(feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
            frames, out_lens = session.run(None, dict(zip(INPUTS, (feats.numpy(), lens.numpy()), strict=True)))
            return torch.from_numpy(frames), torch.from_numpy(out_lens)

        return run

    def versions(self) -> dict[str, str]:
        return {package: version(package) for package in self.packages}


def example(network: Network) -> tuple[Tensor, Tensor]:
    """Random features (B,T,F) and lengths (B,)"""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(EXAMPLE), max(EXAMPLE), network.n_features, generator=generator), torch.tensor(EXAMPLE)


@contextmanager
def _silence() -> Iterator[None]:
    """The exporters tell of their passes on the console and in the log; here the check tells what counts."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)


def _exporting() -> list[str]:
    """The choices of conf/encoder whose class promises that torch.export takes it."""
    names = []
    for path in sorted((conf_dir() / "encoder").glob("*.yaml")):
        target = yaml.safe_load(path.read_text()).get("_target_")  # a preset of another choice has none
        module, _, name = (target or "").rpartition(".")
        if target and getattr(import_module(module), name).exports:
            names.append(path.stem)
    return names


FORMATS: dict[str, Format] = {"onnx": Onnx(), "torchscript": TorchScript(), "int8": Int8()}

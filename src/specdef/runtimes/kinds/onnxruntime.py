"""ONNX Runtime on a CPU: the model exported by PyTorch, in float32 or with its matrices quantised to int8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.models.loading import load, quiet
from specdef.runtimes.base import Running, Runtime

if TYPE_CHECKING:
    import torch


class Onnxruntime(Runtime):
    """Without a cache: every token of a text is computed again. int8 is its dynamic quantisation of the matrices."""

    name = "onnxruntime"
    modules = (("onnxruntime", "onnxruntime"), ("onnx", "onnx"), ("onnxscript", "onnxscript"))
    formats = ("f32", "int8-dynamic")
    default_formats = ("f32",)

    @contextmanager
    def open(self, folder: Path, format: str, scratch: Path) -> Iterator[Running]:
        """See `Runtime`."""
        import onnxruntime

        path = scratch / "f32.onnx"
        if not path.exists():
            _export(folder, path)
        if format != "f32":
            path = _quantised(path, scratch / f"{format}.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        yield _Session(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))


class _Session(Running):
    def __init__(self, session: Any) -> None:
        self._session = session

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """See `Running`."""
        import numpy as np
        import torch

        (found,) = self._session.run(None, {"input_ids": np.array([list(tokens)])})
        return torch.from_numpy(found[0].astype(np.float32))


def _export(folder: Path, path: Path) -> None:
    import torch

    class Logits(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model(input_ids, use_cache=False).logits
            return found

    model = load(folder, dtype=torch.float32)
    with quiet(), torch.inference_mode():
        torch.onnx.export(
            Logits(model).eval(),
            (torch.arange(8)[None],),
            str(path),
            input_names=["input_ids"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": {1: torch.export.Dim("tokens", min=2, max=2048)}},
            dynamo=True,
            verbose=False,
        )


def _quantised(source: Path, target: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not target.exists():
        quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    return target


KIND = Onnxruntime()

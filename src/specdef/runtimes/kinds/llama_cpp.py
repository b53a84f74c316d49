"""llama.cpp on a CPU, through cyllama: GGUF files made by llama.cpp's own quantiser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import SpecdefError
from specdef.runtimes.base import Running, Runtime, left
from specdef.runtimes.gguf_file import write_gguf

if TYPE_CHECKING:
    import torch

FILE_TYPES = {"f32": 0, "bf16": 32, "f16": 1, "q8_0": 7, "q4_k_m": 15}
"""Format -> llama.cpp's number of it (`llama_ftype`)."""
WIDE_CACHE = "+f32-cache"
"""At the end of a format: keys and values are kept in float32, which flash attention does not take, so it is off."""
_F32, _OFF = 0, 0
_CONTEXT, _SEQUENCES = 2048, 50


class LlamaCpp(Runtime):
    """With flash attention and a float16 cache, its defaults, unless the format says other."""

    name = "llama.cpp"
    modules = (("cyllama", "cyllama"), ("gguf", "gguf"))
    formats = (*FILE_TYPES, *(name + WIDE_CACHE for name in FILE_TYPES))
    default_formats = tuple(FILE_TYPES)

    @contextmanager
    def open(self, folder: Path, format: str, scratch: Path) -> Iterator[Running]:
        """See `Runtime`."""
        from cyllama.llama import llama_cpp

        llama_cpp.disable_logging()
        path = _file(folder, format.removesuffix(WIDE_CACHE), scratch, llama_cpp)
        model = _with_size(llama_cpp.LlamaModel)(str(path), verbose=False)
        settings = llama_cpp.LlamaContextParams()
        settings.n_ctx = settings.n_batch = _CONTEXT
        settings.n_seq_max, settings.kv_unified = _SEQUENCES, True
        settings.n_threads = settings.n_threads_batch = 1
        if format.endswith(WIDE_CACHE):
            settings.type_k = settings.type_v = _F32
            settings.flash_attn_type = _OFF
        context = llama_cpp.LlamaContext(model, settings)
        try:
            yield _Context(llama_cpp, context)
        finally:
            context.close()
            model.close()


def _with_size(model: Any) -> Any:
    """cyllama 0.2 asks a model for `n_vocab`, which its own class lacks."""

    class Model(model):  # type: ignore[misc]
        @property
        def n_vocab(self) -> int:
            return int(self.get_vocab().n_vocab)

    return model if hasattr(model, "n_vocab") else Model


def _file(folder: Path, format: str, scratch: Path, llama_cpp: Any) -> Path:
    wide, path = scratch / "f32.gguf", scratch / f"{format}.gguf"
    if not wide.exists():
        write_gguf(folder, wide)
    if not path.exists():
        settings = llama_cpp.LlamaModelQuantizeParams()
        settings.ftype, settings.nthread = FILE_TYPES[format], 1
        try:
            llama_cpp.model_quantize(str(wide), str(path), settings)
        except RuntimeError as error:
            path.unlink(missing_ok=True)
            raise SpecdefError(f"llama.cpp refuses to quantise {folder} to {format} ({error}).") from error
    return path


class _Context(Running):
    def __init__(self, llama_cpp: Any, context: Any) -> None:
        self._llama_cpp, self._context = llama_cpp, context

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """See `Running`."""
        self._context.kv_cache_clear(True)
        self._decode([(0, at, token, True) for at, token in enumerate(tokens)])
        return self._said(range(len(tokens)))

    def greedy(
        self, prompts: Sequence[Sequence[int]], count: int, expected: Sequence[Sequence[int]] = ()
    ) -> list[list[int]]:
        """See `Running`; as many prompts at once as the context has sequences."""
        parts = [slice(at, at + _SEQUENCES) for at in range(0, len(prompts), _SEQUENCES)]
        return [text for part in parts for text in self._continued(prompts[part], count, expected[part])]

    def _continued(
        self, prompts: Sequence[Sequence[int]], count: int, expected: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        self._context.kv_cache_clear(True)
        found: list[list[int]] = [[] for _ in prompts]
        length = len(prompts[0])
        said = [
            (number, at, token, at == length - 1)
            for number, prompt in enumerate(prompts)
            for at, token in enumerate(prompt)
        ]
        for place in range(length, length + count):
            self._decode(said)
            wanted = [(at, entry[0]) for at, entry in enumerate(said) if entry[3]]
            tokens = self._said([at for at, _ in wanted]).argmax(-1).tolist()
            for (_, number), token in zip(wanted, tokens, strict=True):
                found[number].append(token)
            going = [number for _, number in wanted if not left(found[number], expected, number)]
            if not going:
                break
            said = [(number, place, found[number][-1], True) for number in going]
        return found

    def _decode(self, said: Sequence[tuple[int, int, int, bool]]) -> None:
        """Run tokens, each with its sequence, its place there, and whether its logits are wanted."""
        batch = self._llama_cpp.LlamaBatch(n_tokens=len(said), embd=0, n_seq_max=1)
        for number, place, token, wanted in said:
            batch.add(token, place, [number], wanted)
        self._context.decode(batch)
        batch.close()

    def _said(self, places: Iterable[int]) -> torch.Tensor:
        import numpy as np
        import torch

        rows = [np.array(self._context.get_logits_ith(at), dtype=np.float32) for at in places]
        return torch.from_numpy(np.stack(rows))


KIND = LlamaCpp()

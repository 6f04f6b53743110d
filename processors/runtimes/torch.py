"""Sentence encoders by sentence-transformers: any of its models, on CUDA, MPS or the CPU."""

from collections.abc import Sequence

import numpy as np
import sentence_transformers
import torch

from processors.batching import padded
from processors.errors import UnavailableError
from processors.model_folder import ModelFolder
from processors.runtimes.runtime import Tokenised, Vectors

_PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
_PROBE = Tokenised("", [0, 1, 2, 3])


class TorchRuntime:
    """One model on one device.

    The attention kernel is tried before it is used: on some GPUs (compute capability 12.1 among them) the fused ones
    fail or return NaN, and the plain one takes their place.

    Args:
        folder: The model.
        device: ``cuda``, ``mps`` or ``cpu``.
        precision: ``f32``, ``bf16``, ``f16``, or ``auto``: bf16 on CUDA, where it is as good, and f32 elsewhere.

    Raises:
        ValueError: The folder holds no such model, or the device is not there.
    """

    def __init__(self, folder: ModelFolder, *, device: str, precision: str = "auto") -> None:
        chosen = ("bf16" if device == "cuda" else "f32") if precision == "auto" else precision
        self._device = device
        self._model = self._working_model(folder, _PRECISIONS[chosen])

    def encode(self, batch: Sequence[Tokenised]) -> Vectors:
        """As ``Runtime.encode``."""
        try:
            return _encode(self._model, batch, self._device)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise MemoryError(str(error)) from error
        except RuntimeError as error:
            raise UnavailableError(f"the embedding model failed on {self._device}: {error}") from error

    def _working_model(self, folder: ModelFolder, dtype: torch.dtype) -> sentence_transformers.SentenceTransformer:
        failure: Exception | None = None
        for attention in ("sdpa", "eager"):
            options = {"dtype": dtype, "attn_implementation": attention}
            try:
                model = sentence_transformers.SentenceTransformer(
                    str(folder.path), device=self._device, local_files_only=True, model_kwargs=options
                )
                probe = _encode(model.eval(), [_PROBE], self._device)
                if np.isfinite(probe).all() and probe.shape == (1, folder.dimension):
                    return model
                failure = FloatingPointError(f"with {attention} attention, a probe gave {probe}")
            except (RuntimeError, OSError, ValueError) as error:
                failure = error
        raise ValueError(f"{folder.path} does not run on {self._device}: {failure}")


def _encode(model: sentence_transformers.SentenceTransformer, batch: Sequence[Tokenised], device: str) -> Vectors:
    ids, mask = (torch.from_numpy(array).to(device) for array in padded([text.ids for text in batch]))
    with torch.inference_mode():
        pooled = model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
        unit = torch.nn.functional.normalize(pooled.float(), dim=1)
    vectors: Vectors = unit.cpu().numpy()
    return vectors

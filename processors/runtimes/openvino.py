"""Sentence encoders on the CPU by OpenVINO, from a graph that is built straight from the weights."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import properties
from openvino.properties import hint

from processors import bert
from processors.batching import padded
from processors.errors import UnavailableError
from processors.runtimes import devices
from processors.runtimes.runtime import Tokenised, Vectors

_PRECISIONS = {"f32": ov.Type.f32, "bf16": ov.Type.bf16}
_KERNEL_CACHE = "CPU_RUNTIME_CACHE_CAPACITY"


class OpenVinoRuntime:
    """One compiled encoder. May be shared by threads; forward passes take turns.

    Args:
        folder: A sentence-transformers folder with a BERT encoder.
        precision: ``f32``, ``bf16``, or ``auto``: bf16 on CPUs that compute in it, where it is twice as fast and the
            vectors differ in the fifth digit, and f32 elsewhere.
        threads: CPU threads; 0 means all that this process may use.

    Raises:
        ValueError: The folder does not hold such a model.
    """

    def __init__(self, folder: Path, *, precision: str = "auto", threads: int = 0) -> None:
        model = bert.build(bert.config_from_folder(folder), bert.read_safetensors(folder / "model.safetensors"))
        self._request = compiled(model, precision=precision, threads=threads).create_infer_request()
        self._turn = threading.Lock()

    def encode(self, batch: Sequence[Tokenised]) -> Vectors:
        """As ``Runtime.encode``."""
        with self._turn:
            inputs = padded([text.ids for text in batch])
            return inferred(self._request, inputs, model="the embedding model")


def compiled(model: ov.Model, *, precision: str, threads: int) -> ov.CompiledModel:
    """A graph for the CPU, in ``precision`` and on ``threads`` as for ``OpenVinoRuntime``."""
    core = ov.Core()
    chosen = ("bf16" if computes_bf16(core) else "f32") if precision == "auto" else precision
    options = {
        hint.inference_precision: _PRECISIONS[chosen],
        hint.enable_cpu_pinning: False,  # the node and the worker share the cores
        properties.num_streams: 1,
        _KERNEL_CACHE: 64,  # every shape has its kernels, and shapes are many: memory stays bounded
        properties.inference_num_threads: threads or devices.processors(),
    }
    return core.compile_model(model, "CPU", options)


def inferred(request: ov.InferRequest, inputs: Sequence[NDArray[Any]], *, model: str) -> NDArray[np.float32]:
    """The output of one forward pass.

    Raises:
        MemoryError: There is not enough memory for so large a pass.
        UnavailableError: The device failed.
    """
    # Where memory cannot be had OpenVINO (seen in 2026.4) says nothing, and its output is what it was before.
    request.get_output_tensor().data[...] = np.nan
    try:
        request.infer(list(inputs), share_inputs=True)
    except RuntimeError as error:
        raise UnavailableError(f"{model} failed: {error}") from error
    output: NDArray[np.float32] = request.get_output_tensor().data.copy()
    if np.isnan(output).any():
        raise MemoryError(f"{model} has no memory for this much at once")
    return output


def computes_bf16(core: ov.Core) -> bool:
    """Whether the CPU multiplies bfloat16 (AVX512_BF16, AMX, or ARM's equivalent)."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

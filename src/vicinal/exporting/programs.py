"""A network as a program of another library: ONNX, and torch.export."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vicinal.errors import InputError, require
from vicinal.exporting.description import OUTPUT, as_metadata

_TRACED = 3
"""Rows of the example that a network is traced with; sizes 0 and 1 would be taken for constants."""

Runner = Callable[[Tensor], Tensor]


def to_onnx(network: nn.Module, about: Mapping[str, Any]) -> bytes:
    """An ONNX model: one input, one output, any batch size, weights inside, the description in its metadata.

    Args:
        network: in eval mode.
        about: its description.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        InputError: the network does something that ONNX has no word for.
    """
    for module in ("onnx", "onnxscript"):
        require(module, "export", "exporting to ONNX")
    with _quiet("ONNX"):
        program: Any = torch.onnx.export(
            network,
            (_example(about),),
            input_names=[about["input"]["name"]],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
        program.model.metadata_props.update(as_metadata(about))
        content: bytes = program.model_proto.SerializeToString()
    return content


def onnx_runner(content: bytes) -> tuple[str, Runner] | None:
    """ONNX Runtime on the CPU, and its name; None if it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    onnxruntime = require("onnxruntime", "export", "checking an ONNX model")
    session: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {given.name: x.numpy()})[0])

    return f"ONNX Runtime {onnxruntime.__version__}", run


def to_torch_export(network: nn.Module, about: Mapping[str, Any]) -> bytes:
    """A program of ``torch.export``, any batch size, the description in its extra file ``config.json``.

    Args:
        network: in eval mode.
        about: its description.

    Raises:
        InputError: the network does something that cannot be traced.
    """
    content = io.BytesIO()
    with _quiet("torch.export"):
        batch = torch.export.Dim("batch")
        program = torch.export.export(network, (_example(about),), dynamic_shapes=({0: batch},))
        torch.export.save(program, content, extra_files={"config.json": json.dumps(about, ensure_ascii=False)})
    return content.getvalue()


def torch_export_runner(content: bytes) -> tuple[str, Runner]:
    """The program in PyTorch, and the name of that."""
    with _quiet("torch.export"):
        module = torch.export.load(io.BytesIO(content)).module()
    return f"torch.export {torch.__version__}", module


def _example(about: Mapping[str, Any]) -> Tensor:
    return torch.linspace(0, 1, _TRACED * torch.Size(about["shape"]).numel()).view(_TRACED, *about["shape"])


@contextmanager
def _quiet(what: str) -> Iterator[None]:
    """Without the exporters' warnings about themselves, and with their failures told in one line."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # whatever a tracer raises about somebody's own network
        detail = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"the network cannot be written for {what}: {detail}") from error
    finally:
        logging.disable(level)

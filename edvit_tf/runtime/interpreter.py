"""One flatbuffer in the interpreter: load it, run it, and say what is in it.

The only place that knows which interpreter is installed: `ai-edge-litert`, or `tflite-runtime` where nothing
newer exists (32-bit Arm). Shapes are static, so tensors are allocated once, when the flatbuffer is loaded.
"""

import importlib.metadata
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.bundle.manifest import TensorSpec
from edvit_tf.errors import MissingPackage, ModelError
from edvit_tf.quiet import without_lines
from edvit_tf.runtime.delegate import load

try:
    from ai_edge_litert.interpreter import Interpreter

    _PACKAGE = "ai-edge-litert"
except ImportError:
    try:
        from tflite_runtime.interpreter import Interpreter

        _PACKAGE = "tflite-runtime"
    except ImportError as error:
        raise MissingPackage(
            "No interpreter is installed: pip install ai-edge-litert (32-bit Arm: tflite-runtime 'numpy<2')."
        ) from error

SIGNATURE = "serving_default"
_DELEGATE = "DELEGATE"  # the name under which the interpreter lists a part that it handed to a delegate
_FILE_IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every TFLite flatbuffer
DELEGATE_NOTE = re.compile(rb"^INFO: Created TensorFlow Lite XNNPACK delegate for CPU\.\r?\n", re.MULTILINE)


def runtime_name() -> str:
    """Return the interpreter that is used and its version, for example `ai-edge-litert/2.3.0`."""
    return f"{_PACKAGE}/{importlib.metadata.version(_PACKAGE)}"


@dataclass(frozen=True, slots=True)
class Output:
    """What a sub-model says of one picture: `feature` f32 [width], `logits` f32 [classes]."""

    feature: NDArray[np.float32]
    logits: NDArray[np.float32]


class Flatbuffer:
    """A flatbuffer that is loaded and ready to run.

    May be called from any thread, one call at a time (a second one waits).

    Args:
        source: the file, or its bytes.
        threads: threads that one call may use.
        delegate: the library of an accelerator's delegate; what that does not take the processor computes.

    Raises:
        ModelError: it is no TFLite flatbuffer, or this interpreter cannot run it. One that is damaged inside
            can end the process instead: `edvit_tf.runtime.check.verify_in_child` finds that out safely.
    """

    def __init__(self, source: Path | str | bytes, *, threads: int = 1, delegate: str = "") -> None:
        self._name = "the flatbuffer" if isinstance(source, bytes) else Path(source).name
        argument = {"model_content": source} if isinstance(source, bytes) else {"model_path": str(source)}
        _check_identifier(source, self._name)
        try:
            with without_lines(DELEGATE_NOTE):
                delegates = [load(delegate)] if delegate else None
                self._interpreter = Interpreter(
                    **argument, num_threads=threads, experimental_delegates=delegates
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"{runtime_name()} cannot load {self._name}: {reason}", code="model.load"
            ) from error
        if SIGNATURE not in self._interpreter.get_signature_list():
            raise ModelError(
                f"{self._name} has no signature {SIGNATURE!r}; make it with edvit-tf export.",
                code="model.signature",
            )
        runner = self._interpreter.get_signature_runner(SIGNATURE)
        self._inputs = {name: details["index"] for name, details in runner.get_input_details().items()}
        self._outputs = {name: details["index"] for name, details in runner.get_output_details().items()}
        self.inputs = tuple(_tensor(*item) for item in runner.get_input_details().items())
        self.outputs = tuple(_tensor(*item) for item in runner.get_output_details().items())
        self.signatures = tuple(self._interpreter.get_signature_list())
        self._calling = threading.Lock()

    def run(self, image: NDArray[np.uint8]) -> Output:
        """Run a sub-model on one picture.

        Args:
            image: uint8 [height, width, channels], as large as the input `image` says.

        Raises:
            ModelError: the picture does not fit, or this is no sub-model.
        """
        answers = self.call({"image": image[np.newaxis]})
        try:
            return Output(answers["feature"][0], answers["logits"][0])
        except KeyError as error:
            raise ModelError(
                f"{self._name} has no output {error}: it is no sub-model.", code="model.signature"
            ) from error

    def call(self, arguments: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float32]]:
        """Run the signature once.

        Args:
            arguments: arrays by input name, of exactly the shape and dtype that `inputs` says.

        Returns:
            New arrays by output name.

        Raises:
            ModelError: an argument is missing, unknown, or of another shape or dtype.
        """
        if arguments.keys() != self._inputs.keys():
            raise ModelError(
                f"{self._name} takes {sorted(self._inputs)}, not {sorted(arguments)}.", code="model.input"
            )
        with self._calling:
            try:
                for name, value in arguments.items():
                    self._interpreter.set_tensor(self._inputs[name], value)
                self._interpreter.invoke()
            except (ValueError, RuntimeError) as error:
                reason = " ".join(str(error).split())
                raise ModelError(f"{self._name} could not be run: {reason}", code="model.run") from error
            return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}

    def operators(self) -> tuple[str, ...]:
        """Return the names of its operators, sorted, each once; one that is not built in has its own name."""
        return tuple(sorted({step.operator for step in self._steps()}))

    def delegate_partitions(self) -> int:
        """Return how many parts of the graph the CPU delegate took: one or two when all is well.

        Operators between the parts run on slow reference kernels, and every border costs a hand-over.
        """
        names = [step["op_name"] for step in self._interpreter._get_ops_details()]
        return names.count(_DELEGATE)

    def arena_bytes(self) -> int:
        """Return the bytes of the tensors that are alive at the same time, at the worst step.

        Counted from the graph, not measured, so that the same flatbuffer gives the same number everywhere.
        """
        steps = self._steps()
        last_use = {index: number for number, step in enumerate(steps) for index in step.inputs}
        last_use |= dict.fromkeys(self._outputs.values(), len(steps))
        size = {tensor["index"]: _tensor_bytes(tensor) for tensor in self._interpreter.get_tensor_details()}
        alive = set(self._inputs.values())
        peak = 0
        for number, step in enumerate(steps):
            alive |= set(step.outputs)
            peak = max(peak, sum(size[index] for index in alive))
            alive = {index for index in alive if last_use.get(index, -1) > number}
        return peak

    def static(self) -> bool:
        """Return whether every shape is known before it runs; one that is not costs the whole delegate."""
        return all(-1 not in tensor["shape_signature"] for tensor in self._interpreter.get_tensor_details())

    def _steps(self) -> list["_Step"]:
        return [
            _Step(
                details["op_name"],
                tuple(int(index) for index in details["inputs"]),
                tuple(int(index) for index in details["outputs"]),
            )
            for details in self._interpreter._get_ops_details()
            if details["op_name"] != _DELEGATE
        ]


def traced(
    flatbuffer: bytes, images: NDArray[np.uint8], tensors: tuple[int, ...]
) -> Iterator[dict[int, NDArray[np.float32]]]:
    """Run a sub-model on images uint8 [n, h, w, c] and give what these tensors hold, picture by picture.

    Slow, and only for the ordinary kernels: a delegate keeps its tensors to itself.
    """
    with warnings.catch_warnings(action="ignore"), without_lines(DELEGATE_NOTE):  # it warns of its memory
        interpreter = Interpreter(
            model_content=flatbuffer, experimental_preserve_all_tensors=True, num_threads=1
        )
        interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(SIGNATURE)
    for image in images:
        runner(image=image[np.newaxis])
        yield {index: interpreter.get_tensor(index) for index in tensors}


@dataclass(frozen=True, slots=True)
class _Step:
    """One operator of the graph, and the numbers of the tensors that it reads and writes."""

    operator: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def _check_identifier(source: Path | str | bytes, name: str) -> None:
    """Refuse what is plainly no flatbuffer before native code sees it."""
    if isinstance(source, bytes):
        head = source[:8]
    else:
        try:
            with Path(source).open("rb") as file:
                head = file.read(8)
        except OSError as error:
            raise ModelError(f"Cannot read {source}: {error.strerror}.", code="model.load") from error
    if head[4:] != _FILE_IDENTIFIER:
        raise ModelError(f"{name} is no TFLite flatbuffer; make it with edvit-tf export.", code="model.load")


def _tensor(name: str, details: Mapping[str, Any]) -> TensorSpec:
    scale, zero_point = details["quantization"]  # (0.0, 0) where there is none
    return TensorSpec(
        name=name,
        shape=tuple(int(size) for size in details["shape"]),
        dtype=np.dtype(details["dtype"]).name,
        scale=float(scale) if scale else None,
        zero_point=int(zero_point) if scale else None,
    )


def _tensor_bytes(details: Mapping[str, Any]) -> int:
    return int(np.prod(details["shape"], dtype=np.int64)) * int(np.dtype(details["dtype"]).itemsize)

"""Measure some sizes of a sub-model as flatbuffers on this machine, and fit what any size takes."""

from dataclasses import asdict

import numpy as np
from edvit_converters.tflite import convert

from edvit_tf.build.engine import Report
from edvit_tf.build.latency import fit, measured_sizes, worst_error
from edvit_tf.build.store import Result
from edvit_tf.build.work import LatencyJob
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.runtime.measure import measure_interleaved
from edvit_tf.vit.checkpoint import Checkpoint, fresh_weights

_ROUNDS = 10
_CALIBRATED_IMAGES = 4


def measure(job: LatencyJob, report: Report) -> None:
    """Random weights take as long as trained ones; the fastest of each size's runs counts."""
    job.store.make(job.recipe, lambda result: _measure(job, report, result))


def _measure(job: LatencyJob, report: Report, result: Result) -> None:
    configs = measured_sizes(job.config, job.widths)
    images = np.asarray(job.workspace.split("train").images[:_CALIBRATED_IMAGES])
    labels = tuple(str(index) for index in range(job.config.classes))
    loaded = {}
    for number, config in enumerate(configs):
        report(0.8 * number / len(configs), f"converting size {number + 1} of {len(configs)}")
        model = Checkpoint(config, fresh_weights(config, seed=number), labels)
        loaded[str(number)] = Flatbuffer(convert(model, job.format_name, images))
    tasks = {name: (lambda f=flatbuffer: f.run(images[0])) for name, flatbuffer in loaded.items()}
    times = measure_interleaved(
        tasks, rounds=_ROUNDS, progress=lambda done: report(0.8 + 0.2 * done / _ROUNDS, "measuring")
    )
    milliseconds = [times[str(number)].min_ms for number in range(len(configs))]
    found = fit(configs, milliseconds)
    result.write_facts(
        {
            "coefficients": asdict(found),
            "worst_error": worst_error(found, configs, milliseconds),
            "measured": [
                {"width": c.width, "blocks": [asdict(block) for block in c.blocks], "ms": ms}
                for c, ms in zip(configs, milliseconds, strict=True)
            ],
        }
    )

"""What an export asks of the teacher, once: its answers to all training pictures, and its flatbuffer."""

import numpy as np
from edvit_converters.check import check, keras_answers
from edvit_converters.tflite import convert

from edvit_tf.build.engine import Report
from edvit_tf.build.store import Result
from edvit_tf.build.teacher import teacher_logits
from edvit_tf.build.work import FLATBUFFER, TeacherJob, read_checkpoint
from edvit_tf.runtime.ensemble import accuracy, run_many

CHECKED_IMAGES = 16


def answer(job: TeacherJob, report: Report) -> None:
    """Run the teacher over a share of the training pictures: `logits` f32 [rows, views, classes]."""
    report(0.0, "starting")

    def write(result: Result) -> None:
        teacher = read_checkpoint(job.store.get(job.recipes.teacher))
        images = job.workspace.split("train").images[slice(*job.rows)]
        result.write_array("logits", teacher_logits(teacher, images, mirrored=job.workspace.mirrored))

    job.store.make(job.recipe, write)


def flatbuffer(job: TeacherJob, report: Report) -> None:
    """Convert the teacher to f32, and measure the flatbuffer on validation."""
    report(0.0, "converting")

    def write(result: Result) -> None:
        teacher = read_checkpoint(job.store.get(job.recipes.teacher))
        validation = job.workspace.split("validation")
        images = np.asarray(validation.images[:CHECKED_IMAGES])
        expected = keras_answers(teacher, images)
        result.path(FLATBUFFER).write_bytes(made := convert(teacher, "f32"))
        check(made, "f32", teacher.config, images, expected)
        logits = run_many(made, validation.images, threads=1).logits
        result.write_facts({"accuracy": accuracy(logits, validation.labels)})

    job.store.make(job.recipe, write)

"""What the teacher's units are worth to each class, judged once, whatever the groups."""

from collections.abc import Sequence
from functools import partial

from edvit_tf.build.engine import Report
from edvit_tf.build.importance import Importance, divergence, fisher, mean_importance, proxy_images
from edvit_tf.build.stages import IMPORTANCE, TeacherRecipes
from edvit_tf.build.store import Result, Store
from edvit_tf.build.work import ImportanceJob, read_checkpoint
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import ViTConfig

_MOST_AT_ONCE = 16
_NUMBERS_AT_ONCE = 60_000_000  # activations that a gradient keeps, about four bytes each


def judge(job: ImportanceJob, report: Report) -> None:
    """Judge the teacher's units by the pictures of each class in turn."""
    settings, names = IMPORTANCE.settings_of(job.settings), job.workspace.classes
    report(0.0, "starting")
    teacher = read_checkpoint(job.store.get(job.taught.teacher))
    training = job.workspace.split("train")
    by_gradient = None
    if settings.importance == "fisher":
        by_gradient = fisher(teacher.config, teacher.weights, batch_size=_batch_size(teacher))
    for number, label in enumerate(job.classes):
        report(number / len(job.classes), names[label])
        proxies = proxy_images(
            training.images,
            training.labels,
            (label,),
            per_class=settings.proxy_images,
            seed=settings.seed_for(names[label], "proxies"),
        )
        if by_gradient is None:
            found = divergence(teacher.config, teacher.weights, proxies)
        else:
            found = by_gradient(proxies, settings.seed_for(names[label], "importance"))
        job.store.make(job.taught.importances[label], partial(_write, found))


def read_importance(
    store: Store, recipes: TeacherRecipes, group: Sequence[int], config: ViTConfig
) -> Importance:
    """What the units of the teacher, which has this config, are worth to a group of classes."""
    return mean_importance([_read(store.get(recipes.importances[label]), config) for label in group])


def _write(found: Importance, result: Result) -> None:
    result.write_array("residual", found.residual)
    for index, (heads, mlp) in enumerate(zip(found.heads, found.mlp, strict=True)):
        result.write_array(f"heads-{index}", heads)
        result.write_array(f"mlp-{index}", mlp)
    for index, stem in enumerate(found.stem):
        result.write_array(f"stem-{index}", stem)


def _read(result: Result, config: ViTConfig) -> Importance:
    blocks = range(len(config.blocks))
    return Importance(
        result.array("residual"),
        tuple(result.array(f"heads-{index}") for index in blocks),
        tuple(result.array(f"mlp-{index}") for index in blocks),
        tuple(result.array(f"stem-{index}") for index in range(len(config.stem))),
    )


def _batch_size(teacher: Checkpoint) -> int:
    """As many pictures at once as their activations leave memory for: the scores stay the same."""
    config = teacher.config
    a_block = max(
        config.tokens * (8 * config.width + 4 * block.heads * config.head_size + 3 * block.mlp_units)
        + 3 * block.heads * config.tokens**2
        for block in config.blocks
    )
    stem = 4 * config.image.height * config.image.width * sum(config.stem)
    return max(1, min(_MOST_AT_ONCE, _NUMBERS_AT_ONCE // (a_block * len(config.blocks) + stem)))

"""`edvit-tf demo`: the whole way in one command, from a data set to three devices that answer."""

import json as encoder
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, say, show
from edvit_tf.errors import DeviceError

if TYPE_CHECKING:
    import numpy as np

    from edvit_tf.bundle.reader import Bundle
    from edvit_tf.cli.demo_devices import DeviceProcess
    from edvit_tf.cli.demo_report import FleetRun
    from edvit_tf.fleet import Announced, Answer, Progress
    from edvit_tf.fleet.sync import Aggregator
    from edvit_tf.runtime.ensemble import BundleModels

DATA = "fashion_mnist"
TEACHER = "fashion-vit"
NAMES = ["attic", "kitchen", "porch"]
SPARSITY = 0.3
# Fewer than the defaults: a first look should not take a quarter of an hour.
COMMON_EPOCHS, EPOCHS = 6, 4
DISCOVER_SECONDS = 20.0
RECOVER_SECONDS = 30.0


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("build/demo"),
    train: Annotated[bool, typer.Option("--train", help="Train the teacher, too.")] = False,
    images: Annotated[int, typer.Option(min=1, max=10_000, help="Pictures sent through the fleet.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Decides every random choice.")] = 1,
    json: JsonOption = False,
) -> None:
    """Split a ViT over three device processes on this machine, classify with them, lose one, get it back."""
    from edvit_tf.build.data import load_test
    from edvit_tf.bundle.reader import open_bundle
    from edvit_tf.cli.demo_report import accuracy_table, device_table, make_report, outage_table
    from edvit_tf.runtime.ensemble import evaluate

    clock = Clock()
    _clear(out)
    with clock.step("teacher"):
        teacher = _train_teacher(out, seed) if train else TEACHER
    with clock.step("export"):
        bundle = open_bundle(_export(teacher, out, seed))
    with clock.step("evaluate"):
        say("\n3. All test pictures through the flatbuffers, in this process.")
        test, _ = load_test(DATA, seed=seed)
        evaluation = evaluate(bundle, test.images, test.labels)
    run = _run_fleet(bundle, test.images[:images], out / "devices", clock)
    report = make_report(bundle, evaluation, run, clock.seconds)
    (out / "report.json").write_text(encoder.dumps(report.to_json(), indent=2) + "\n")
    if json:
        emit(report.to_json())
        return
    show("")
    show(accuracy_table(evaluation, report))
    show(device_table(report))
    show(outage_table(evaluation, run))
    show(f"Every process has ended. The figures are in {out / 'report.json'}, the bundle in {bundle.path}.")


def _run_fleet(bundle: "Bundle", pictures: "np.ndarray", folder: Path, clock: "Clock") -> "FleetRun":
    """Start the devices, deploy, classify, lose the first sub-model's device and take it back."""
    from edvit_tf.cli.demo_devices import device_fleet
    from edvit_tf.cli.demo_report import FleetRun
    from edvit_tf.fleet import sync
    from edvit_tf.runtime.ensemble import BundleModels

    models = BundleModels(bundle)
    lost = bundle.manifest.submodels[0].id
    with device_fleet(NAMES, folder) as made:
        devices = made.devices
        with clock.step("discover"):
            found = _discover(devices)
        with clock.step("deploy"):
            say("\n5. The bundle is signed; each device proves its sub-model on the test vector.")
            signed = made.sign(bundle)
            deployment = sync.deploy(signed, found, on_progress=_say_progress, connect=made.connect)
        victim = next(device for device in devices if device.id == deployment.assignment[lost])
        with sync.Aggregator(signed, deployment, connect=made.connect) as fleet:
            with clock.step("classify"):
                say(f"\n6. {len(pictures)} test pictures through the fleet.")
                answers = _classify(fleet, pictures)
                _same(answers, models, pictures)
                say("   Every answer equals the one computed in this process.")
            with clock.step("outage"):
                say(f"\n7. {victim.name} is killed, and the pictures are sent again.")
                victim.kill()
                partial = _classify(fleet, pictures)
                _same(partial, models, pictures, missing=lost)
                say(f"   The next answer: {_sentence(partial[0])}.")
            with clock.step("recovery"):
                recovered_seconds = _recover(fleet, victim)
                again = _classify(fleet, pictures)
                _same(again, models, pictures)
                say(f"   {victim.name} was started again: complete {recovered_seconds:.1f} s later, unaided.")
    alive = [device.name for device in devices if device.running]
    if alive:
        raise DeviceError(f"{', '.join(alive)} did not stop", code="demo.alive")
    recovered = all(answer.complete for answer in again)
    return FleetRun(tuple(answers), tuple(partial), lost, recovered, recovered_seconds)


class Clock:
    """How many seconds each step took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)


def _clear(out: Path) -> None:
    """Remove what an earlier demo made here, and nothing else."""
    for name in ("bundle", "devices"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("report.json", "teacher.safetensors"):
        (out / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)


def _train_teacher(out: Path, seed: int) -> str:
    from edvit_tf.build.data import load
    from edvit_tf.build.teacher import TeacherSettings, train_teacher
    from edvit_tf.cli.progress import bar
    from edvit_tf.vit.checkpoint import save
    from edvit_tf.vit.config import PRESETS

    say("1. Train the teacher.")
    path = out / "teacher.safetensors"
    with bar({"train": 1.0}) as progress:
        save(path, train_teacher(PRESETS[TEACHER], load(DATA, seed=seed), TeacherSettings(seed), progress))
    return str(path)


def _export(teacher: str, out: Path, seed: int) -> Path:
    from edvit_tf.build.export import STAGES, export
    from edvit_tf.build.settings import ExportSettings
    from edvit_tf.cli.progress import bar

    say(f"2. Split {teacher} by class group over {len(NAMES)} devices: prune, retrain, quantise, fuse.")
    settings = ExportSettings(
        model=teacher,
        data=DATA,
        devices=len(NAMES),
        out=str(out / "bundle"),
        sparsity=SPARSITY,
        seed=seed,
        widths="uniform",  # the demo is to take minutes, without trying shapes
        common_epochs=COMMON_EPOCHS,
        epochs=EPOCHS,
        baselines=True,
    )
    with bar(STAGES) as progress:
        return export(settings, progress)


def _discover(devices: "Sequence[DeviceProcess]") -> "list[Announced]":
    """Look until all of our own devices are found; others on the network are left alone."""
    from edvit_tf.fleet import sync

    say(
        "\n4. Three device processes have joined a fleet of their own; the aggregator finds them by zeroconf."
    )
    ours = {device.id for device in devices}
    end = time.monotonic() + DISCOVER_SECONDS
    found: list[Announced] = []
    while len(found) < len(ours) and time.monotonic() < end:
        found = [device for device in sync.discover(3.0, expected=len(ours)) if device.id in ours]
    if len(found) < len(ours):
        raise DeviceError(
            f"only {len(found)} of {len(ours)} devices were found by zeroconf: "
            "check that multicast on the loopback interface is allowed (UDP port 5353)"
        )
    for device in found:
        say(f"   {device.name} at {device.address} (id {device.id[:12]}, {device.runtime})")
    return found


def _say_progress(progress: "Progress") -> None:
    if progress.step == "serving":
        say(f"   {progress.device} serves {progress.submodel} ({progress.total:,} bytes sent, hashes equal)")


def _classify(fleet: "Aggregator", pictures: "np.ndarray") -> "list[Answer]":
    return [fleet.classify(picture) for picture in pictures]


def _same(
    answers: "Sequence[Answer]", models: "BundleModels", pictures: "np.ndarray", missing: str = ""
) -> None:
    """Hold every answer of the fleet against the same flatbuffers run in this process."""
    import numpy as np

    own = models.answers(pictures)
    own.pop(missing, None)
    for index, (answer, expected) in enumerate(zip(answers, models.fuse(own), strict=True)):
        if not np.array_equal(np.asarray(answer.probabilities, np.float32), expected):
            raise DeviceError(
                f"picture {index}: the fleet's answer differs from the one computed in this process",
                code="demo.differs",
            )


def _sentence(answer: "Answer") -> str:
    return (
        f"after {answer.milliseconds:.0f} ms, from {answer.answered} of {answer.expected} sub-models, "
        f"weak: {', '.join(answer.weak_classes)}"
    )


def _recover(fleet: "Aggregator", victim: "DeviceProcess") -> float:
    """Start the lost device again and wait for it; seconds until the fleet is complete."""
    start = time.monotonic()
    victim.start()
    if not fleet.complete(RECOVER_SECONDS):
        reasons = "; ".join(f"{row.name} is {row.state} {row.reason}" for row in fleet.status())
        raise DeviceError(f"the fleet is not complete again: {reasons}", code="demo.recovery")
    return time.monotonic() - start

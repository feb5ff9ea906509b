"""`edvit-tf export`: split a teacher over several devices and write a bundle."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, say, show

if TYPE_CHECKING:
    from rich.table import Table

    from edvit_tf.build.plan import ExportPlan
    from edvit_tf.build.settings import ExportSettings
    from edvit_tf.bundle.reader import Bundle


def export(
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="A preset whose teacher ships (fashion-vit), a .safetensors or a .keras file."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="A registered data set, or a folder of class folders.")
    ] = None,
    random_weights: Annotated[
        bool | None,
        typer.Option("--random-weights", help="A preset without training: for sizes, times and memory only."),
    ] = None,
    devices: Annotated[int | None, typer.Option("--devices", help="Sub-models, one for each device.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="The bundle's folder; nothing may be there.")
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option("--format", help="int8 unless given; several: f32,int8; or auto, the fastest here."),
    ] = None,
    on_device: Annotated[
        bool | None,
        typer.Option("--on-device", help="With auto: the fastest on the devices of the fleet in --state."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="Folder of the fleet (default: the user's data folder).")
    ] = None,
    floor: Annotated[
        float | None,
        typer.Option("--floor", help="Least fused accuracy for auto (default: best - 0.5 points)."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", help="What they are for: any (default), cpu, gpu, browser or coral."),
    ] = None,
    sparsity: Annotated[
        str | None,
        typer.Option("--sparsity", help="Share of zeros in the Dense kernels, from 0 to below 1, or 2:4."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Decides every random choice.")] = None,
    baselines: Annotated[
        bool | None, typer.Option("--baselines/--no-baselines", help="Train the single student too.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A YAML file of these options; the command line wins.")
    ] = None,
    share: Annotated[
        float | None, typer.Option("--share", help="Of the teacher's bytes, for all sub-models together.")
    ] = None,
    heads: Annotated[
        int | None, typer.Option("--heads", help="Heads a sub-model keeps in each block.")
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option(
            "--widths",
            help="tried (default), of shapes of the uniform one's bytes that which learns most; that shape "
            "itself, such as 2x2x24x56 (blocks, heads, channels, MLP units); uniform, the same share of each "
            "block; or of each layer for its bytes or its latency.",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget", help="Of a sub-model, f32 bytes or ms; otherwise what the uniform one takes."
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            "--groups", help="random, alike, apart, count, or labels: 'cat,dog;ship,truck' (default: random)."
        ),
    ] = None,
    importance: Annotated[
        str | None, typer.Option("--importance", help="How units are scored: fisher (default) or kl, slow.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--start", help="Of training: pruned from the teacher (default) or random weights."),
    ] = None,
    common_epochs: Annotated[
        int | None,
        typer.Option(
            "--common-epochs",
            help="Of the student of all classes that all sub-models start from; with 0 each is cut from the "
            "teacher.",
        ),
    ] = None,
    common_cooled: Annotated[
        bool | None,
        typer.Option(
            "--common-cooled/--no-common-cooled",
            help="Whether that student's rate falls to zero before they start from it (default: only in "
            "their own training).",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Of retraining each for its group.")] = None,
    sparsity_epochs: Annotated[
        int | None, typer.Option("--sparsity-epochs", help="Of the pruning stage.")
    ] = None,
    qat_epochs: Annotated[
        int | None,
        typer.Option("--qat-epochs", help="Of quantisation-aware training for int8-full; 0 leaves it out."),
    ] = None,
    fusion_epochs: Annotated[int | None, typer.Option("--fusion-epochs", help="Of the fusion.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Pictures in a step.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Highest learning rate of retraining.")] = None,
    distillation: Annotated[
        float | None, typer.Option("--distillation", help="Share of the teacher in the targets.")
    ] = None,
    matching: Annotated[
        float | None,
        typer.Option("--matching", help="Weight of matching the teacher's class token; 0 leaves it out."),
    ] = None,
    others: Annotated[
        float | None, typer.Option("--others", help="Out-of-group pictures an epoch, in classes' worth.")
    ] = None,
    balance: Annotated[
        bool | None,
        typer.Option(
            "--balance/--no-balance", help="Whether classes count the same however many pictures they have."
        ),
    ] = None,
    shift: Annotated[
        int | None, typer.Option("--shift", help="Pixels that pictures are moved by at most in training.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option("--augment", help="In retraining: none (default), randaugment, mixup or cutmix."),
    ] = None,
    left_out: Annotated[
        float | None,
        typer.Option("--left-out", help="Share of the fusion's examples that miss a sub-model or more."),
    ] = None,
    proxy_images: Annotated[
        int | None, typer.Option("--proxy-images", help="Pictures of a class that units are judged by.")
    ] = None,
    memory_mb: Annotated[
        float | None, typer.Option("--memory-mb", help="What each device has: is it enough?")
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option("--cache", help="Folder for what stages made (default: edvit-cache beside --out)."),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Trainings side by side.")] = None,
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="What trains: local (default), or ray, the machines of a cluster."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the bundle.")] = None,
    version: Annotated[
        int | None, typer.Option("--bundle-version", help="Of the bundle; only grows.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Sizes, MACs and whether it fits, before anything is trained.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Split a Vision Transformer by class group into one small flatbuffer a device, and a fusion."""
    from edvit_tf.build.settings import combine, read_sparsity

    given = {
        "model": model, "data": data, "devices": devices, "out": out, "format": format_name,
        "target": target, "floor": floor, "on_device": on_device,
        "sparsity": None if sparsity is None else read_sparsity(sparsity), "seed": seed,
        "baselines": baselines, "share": share, "heads": heads,
        "widths": widths, "budget": budget, "groups": groups, "importance": importance, "start": start,
        "common_epochs": common_epochs, "common_cooled": common_cooled, "epochs": epochs,
        "sparsity_epochs": sparsity_epochs, "qat_epochs": qat_epochs,
        "fusion_epochs": fusion_epochs, "batch": batch, "rate": rate, "distillation": distillation,
        "matching": matching, "others": others, "balance": balance, "shift": shift, "augment": augment,
        "left_out": left_out,
        "proxy_images": proxy_images, "memory_mb": memory_mb, "workers": workers, "engine": engine,
        "cache": cache, "name": name, "version": version, "random_weights": random_weights,
    }  # fmt: skip
    settings = combine(config, given, out_needed=not dry_run)
    if dry_run:
        _plan(settings, json=json)
    else:
        _export(settings, state, json=json)


def _plan(settings: "ExportSettings", *, json: bool) -> None:
    from edvit_tf.build.plan import plan_export

    plan = plan_export(settings)
    if json:
        emit(plan.to_json(settings.memory_mb))
    else:
        show(_plan_table(plan, settings))
    plan.check_memory(settings.memory_mb)


def _export(settings: "ExportSettings", state: Path | None, *, json: bool) -> None:
    from edvit_tf.build.export import STAGES
    from edvit_tf.build.export import export as export_bundle
    from edvit_tf.bundle.reader import open_bundle
    from edvit_tf.cli.on_device import find_measurers
    from edvit_tf.cli.progress import bar
    from edvit_tf.fleet.state import default_folder

    # Before hours of work.
    measurers = find_measurers(state or default_folder()) if settings.on_device else None
    say(f"Splitting {settings.model} over {settings.devices} devices into {settings.out}.")
    say(f"What is finished is kept in {settings.cache_folder}: if this is ended, the same command goes on.")
    with bar(STAGES) as progress:
        folder = export_bundle(settings, progress, measurers)
    bundle = open_bundle(folder)
    if json:
        emit(_summary(bundle))
        return
    show(_bundle_table(bundle))
    if tried := bundle.manifest.extra.get("tried"):
        show(_tried_table(tried))
    show(f"Saved: {folder}")
    show("Next:")
    show(f"  edvit-tf evaluate {shlex.quote(str(folder))} --data {shlex.quote(settings.data)}")
    show(f"  edvit-tf fleet deploy {shlex.quote(str(folder))}")


def _summary(bundle: "Bundle") -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "bundle": bundle.path,
        "name": manifest.name,
        "version": manifest.version,
        "teacher_bytes": bundle.file(manifest.teacher.file).stat().st_size,
        "submodels": [
            {
                "id": submodel.id,
                "classes": list(submodel.classes),
                "bytes": submodel.variant().bytes,
                "parameters": submodel.parameters,
                "macs": submodel.macs,
            }
            for submodel in manifest.submodels
        ],
        "tried": manifest.extra.get("tried", []),
        "accuracies": {
            "split": manifest.accuracies.split,
            "teacher": manifest.accuracies.teacher,
            "fused": manifest.accuracies.fused,
            "single": manifest.accuracies.single,
            "missing": dict(manifest.accuracies.missing),
        },
    }


def _bundle_table(bundle: "Bundle") -> "Table":
    from rich.table import Table

    manifest = bundle.manifest
    accuracies = manifest.accuracies
    table = Table(
        "model",
        "classes",
        "bytes",
        "validation accuracy",
        title=f"{manifest.name}, version {manifest.version}",
    )
    for column in table.columns[2:]:
        column.justify = "right"

    def row(name: str, classes: str, size: int, reached: float) -> None:
        table.add_row(name, classes, f"{size:,}", f"{reached:.2%}")

    row("teacher", "all", bundle.file(manifest.teacher.file).stat().st_size, accuracies.teacher)
    for submodel in manifest.submodels:
        variant = submodel.variant()
        row(submodel.id, ", ".join(submodel.classes), variant.bytes, accuracies.variants[variant.file])
    row(
        "fused",
        "all",
        sum(s.variant().bytes for s in manifest.submodels) + manifest.fusion.bytes,
        accuracies.fused,
    )
    if manifest.single is not None and accuracies.single is not None:
        row("single student", "all", bundle.file(manifest.single.file).stat().st_size, accuracies.single)
    return table


def _tried_table(tried: object) -> "Table":
    """What `--format auto` found, and where."""
    from rich.table import Table

    rows = [row for row in tried if isinstance(row, dict)] if isinstance(tried, list) else []
    names = list(dict.fromkeys(one["name"] for row in rows for one in row.get("devices", ())))
    table = Table("format", "bytes", "accuracy", *(f"ms on {name}" for name in names or ["here"]), "")
    for row in rows:
        times = {one["name"]: one["ms"] for one in row.get("devices", ())} or {"here": row.get("ms")}
        table.add_row(
            row["format"],
            f"{row['bytes']:,}" if "bytes" in row else "",
            f"{row['accuracy']:.2%}" if "accuracy" in row else "",
            *(f"{times[name]:.2f}" if times.get(name) else "" for name in names or ["here"]),
            row["reason"] or "kept",
        )
    return table


def _plan_table(plan: "ExportPlan", settings: "ExportSettings") -> "Table":
    from rich.table import Table

    title = f"{plan.teacher} over {settings.devices} devices, {plan.widths.heads} heads a block"
    if settings.tries_shapes:
        title += ", or another shape of at most these bytes"
    table = Table(
        "model", "classes", "parameters", "MACs", "f32 bytes", f"{settings.format} bytes, about", title=title
    )
    for column in table.columns[2:]:
        column.justify = "right"
    config = plan.config
    table.add_row("teacher", "all", f"{config.parameters:,}", f"{config.macs:,}", f"{config.f32_bytes:,}", "")
    for submodel in plan.submodels:
        table.add_row(
            submodel.id,
            ", ".join(plan.classes[index] for index in submodel.group),
            f"{submodel.config.parameters:,}",
            f"{submodel.config.macs:,}",
            f"{submodel.config.f32_bytes:,}",
            f"{submodel.bytes:,}",
        )
    return table

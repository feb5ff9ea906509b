"""The page says what the rows say: means, intervals, bars met and missed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import page
from benchmarks.page import Results, bits, pack


def row(method: str, devices: int, seed: int, right: list[int], **other: object) -> dict[str, object]:
    return {
        "data": "fashion_mnist", "seed": seed, "method": method, "devices": devices, "format": "f32",
        "accuracy": sum(right) / len(right), "balanced_accuracy": sum(right) / len(right),
        "worst_missing_accuracy": None, "half_missing_accuracy": None, "ece": 0.01,
        "right": pack(np.array(right) > 0), "bytes_per_device": 1000, "parameters_per_device": 10,
        "macs_per_device": 10, "size_ratio_per_device": 25.0, "parameter_ratio_per_device": 30.0,
        "seconds": 1.0, "command": "c", "commit": "d",
    } | other  # fmt: skip


ROWS = (
    row("teacher", 1, 1, [1] * 90 + [0] * 10),
    row("edvit", 10, 1, [1] * 88 + [0] * 12, worst_missing_accuracy=0.87, half_missing_accuracy=0.8),
    row("edvit", 10, 2, [1] * 90 + [0] * 10, worst_missing_accuracy=0.88, half_missing_accuracy=0.8),
    row("single", 10, 1, [1] * 80 + [0] * 20),
    row("single", 10, 2, [1] * 82 + [0] * 18),
)


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_bits_come_back(right: list[bool]) -> None:
    assert bits(pack(np.array(right))).tolist() == right


def test_a_margin_has_a_paired_interval() -> None:
    found = Results(ROWS).paired("edvit", "single", 10)
    assert found is not None
    assert found.seeds == 2
    assert found.mean == pytest.approx(8) == pytest.approx(100 * (found.ours - found.theirs))
    assert 0 < found.low < found.mean < found.high < 16
    assert Results(ROWS).paired("edvit", "single", 5) is None
    same = Results(ROWS).paired("single", "single", 10)
    assert same is not None
    assert (same.seeds, same.mean, same.low, same.high) == (2, 0, 0, 0)
    assert same.ours == same.theirs


def test_methods_are_compared_over_the_seeds_that_both_have() -> None:
    results = Results((*ROWS, row("edvit_kl", 10, 2, [1] * 91 + [0] * 9)))
    assert results.less("edvit", "edvit_kl", 10) == pytest.approx(-1)  # with seed 1 it would be -2
    assert results.less("edvit", "teacher", 10) == pytest.approx(-1)  # the one teacher stands for both seeds
    text = page.page("fashion_mnist", results)
    assert "| `edvit_kl` | units scored exactly | 10 | 1 | -1.00 | -3.00 to +0.00 |" in text


def test_what_is_for_one_format_is_held_against_that_format() -> None:
    integers = row("edvit", 10, 2, [1] * 85 + [0] * 15, format="int8-full")
    other = row("edvit_qat", 10, 2, [1] * 89 + [0] * 11, format="int8-full")
    results = Results((*ROWS, integers, other, other | {"format": "f32"}))
    assert "| `edvit_qat` | quantisation-aware training (both in int8-full) | 10 | 1 | -4.00 |" in page.page(
        "fashion_mnist", results
    )
    assert "| 85.00 | 89.00 | -4.00 |" in page.ablations({"fashion_mnist": results})


def test_bars_are_met_missed_or_not_measured() -> None:
    text = page.page("fashion_mnist", Results(ROWS))
    assert "| fused less teacher, points | 10 | -1.00 | -2 | -1 | met |" in text
    assert "| fused less one student, points | 10 | 8.00 | 1.5 | 3 | met |" in text
    assert "| times smaller a device, f32 | 10 | 25.00 | 24 | – | met |" in text
    assert "| fused less teacher, points | 5 | – | -0.8 | -0.2 | not measured yet |" in text
    assert "| edvit | 10 | f32 | 2 | 89.00 (88.00–90.00) |" in text
    worse = Results((*ROWS[:1], row("edvit", 10, 1, [1] * 87 + [0] * 13)))
    assert "| fused less teacher, points | 10 | -3.00 | -2 | -1 | missed by 1.00 |" in page.page(
        "fashion_mnist", worse
    )


def test_the_figure_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        page.figure("fashion_mnist", Results(ROWS), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "edvit" in (tmp_path / "one.svg").read_text("utf-8")


def test_a_step_is_shown_with_and_without() -> None:
    results = Results((*ROWS, row("edvit_kl", 10, 2, [1] * 91 + [0] * 9)))
    text = page.ablations({"fashion_mnist": results, "cifar10": Results(())})
    said = "fashion_mnist | 10 | 1 | 90.00 | 91.00 | -1.00 | -3.00 to +0.00"
    # Neither the student nor the teacher is a step's choice.
    assert text.splitlines()[2:] == [f"| 2 | `edvit_kl` | units scored exactly | {said} |"]


def test_the_documents_have_the_rows_that_are_committed() -> None:
    assert page.ablations({data: page.results_of(data) for data in page.BARS}) in page.METHOD_PAGE.read_text(
        "utf-8"
    )
    for data in page.BARS:
        assert page.rows_file(data).with_suffix(".md").read_text("utf-8") == page.page(
            data, page.results_of(data)
        )

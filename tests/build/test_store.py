import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.stages import FUSION, IMPORTANCE, RETRAIN, SURGERY, code_of
from edvit_tf.build.store import Recipe, Result, contents, open_store, trim
from edvit_tf.errors import TrainingError, UsageError

ONE = Recipe("one", {"settings": {"rate": 0.1}})
TWO = Recipe("two", {"inputs": [ONE.key]})
SETTINGS = ExportSettings(model="m", data="d", devices=2, out="o")


def write(result: Result) -> None:
    result.write_array("numbers", np.arange(4))
    result.write_facts({"half": 0.5})


def refuse(result: Result) -> None:
    raise AssertionError(result)


def test_what_was_made_once_is_not_made_again(tmp_path: Path) -> None:
    with open_store(tmp_path / "cache") as store:
        assert store.find(ONE) is None
        made = store.make(ONE, write)
        assert made.array("numbers").tolist() == [0, 1, 2, 3]
        assert made.facts == {"half": 0.5}
        assert made.seconds >= 0
        assert TWO not in store
    with open_store(tmp_path / "cache") as store:
        assert store.make(ONE, refuse) == made


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path / "cache") as store:
        with pytest.raises(AssertionError):
            store.make(ONE, refuse)
        assert contents(store.folder) == []


def test_a_training_that_fails_is_named_by_its_stage(tmp_path: Path) -> None:
    def diverge(_: Result) -> None:
        raise TrainingError("the loss is no finite number any more")

    with (
        open_store(tmp_path / "cache") as store,
        pytest.raises(TrainingError, match="the stage one stopped: the loss is no finite"),
    ):
        store.make(ONE, diverge)


def test_of_two_makers_the_first_counts(tmp_path: Path) -> None:
    with open_store(tmp_path / "cache") as store:

        def late(result: Result) -> None:
            store.make(ONE, write)
            result.write_facts({"half": 0.7})

        assert store.make(ONE, late).facts == {"half": 0.5}
        assert [stored.name for stored in contents(store.folder)] == [ONE.key]


def test_what_a_killed_maker_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from edvit_tf.build.store import open_store\nfrom tests.build.test_store import TWO\n"
        "def write(result):\n    result.write_facts({})\n    print('half', flush=True)\n    time.sleep(60)\n"
        f"with open_store(Path({str(tmp_path / 'cache')!r})) as store:\n    store.make(TWO, write)\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'converters'}"}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    with open_store(tmp_path / "cache") as store:
        assert len(contents(store.folder)) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    with open_store(tmp_path / "cache") as store:
        assert contents(store.folder) == []
        store.make(TWO, write)


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    with open_store(tmp_path / "cache") as store:
        for recipe in (ONE, TWO):
            store.make(recipe, write)
            time.sleep(0.02)
        store.get(ONE)
        largest = max(stored.bytes for stored in contents(store.folder))
        assert trim(store.folder, largest) > 0
        assert [stored.name for stored in contents(store.folder)] == [ONE.key]
    with open_store(tmp_path / "cache", limit=0) as store:
        assert ONE in store
    assert contents(tmp_path / "cache") == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(UsageError, match="holds other things"), open_store(tmp_path):
        pytest.fail("opened")
    with pytest.raises(UsageError, match="is no cache"):
        trim(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


class TestRecipes:
    def test_only_what_a_stage_depends_on_changes_its_result(self) -> None:
        changed = replace(SETTINGS, fusion_epochs=7, out="elsewhere", workers=1)
        assert RETRAIN.recipe(SETTINGS).key == RETRAIN.recipe(changed).key
        assert FUSION.recipe(SETTINGS).key != FUSION.recipe(changed).key
        assert RETRAIN.recipe(SETTINGS).key != RETRAIN.recipe(replace(SETTINGS, rate=0.1)).key

    def test_a_change_travels_down_to_all_that_is_made_from_it(self) -> None:
        one, other = (
            SURGERY.recipe(SETTINGS, IMPORTANCE.recipe(settings, group=(1, 2)))
            for settings in (SETTINGS, replace(SETTINGS, proxy_images=4))
        )
        assert one.key != other.key

    def test_a_setting_that_a_stage_does_not_name_cannot_be_read(self) -> None:
        settings = RETRAIN.settings_of(SETTINGS)
        assert settings.epochs == SETTINGS.epochs
        assert settings.seed_for("x") == SETTINGS.seed_for("x")
        with pytest.raises(AttributeError, match=r"the stage retrain reads the setting sparsity: name it"):
            _ = settings.sparsity

    def test_code_counts_and_what_is_said_of_it_does_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        hashes = []
        for text in ("X = 1\n", '"""Said."""\nX = 1  # more\n', "X = 2\n"):
            (tmp_path / "planted_code.py").write_text(text)
            code_of.cache_clear()
            hashes.append(code_of("planted_code"))
        assert hashes[0] == hashes[1] != hashes[2]
        code_of.cache_clear()

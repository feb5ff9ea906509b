"""What the results of an export depend on."""

from dataclasses import replace

from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.stages import TeacherRecipes, of_submodel
from edvit_tf.build.store import Recipe
from edvit_tf.build.widths import Widths

SETTINGS = ExportSettings(model="m", data="d", devices=2, out="o")
SOME = Recipe("data", {})
SCORES = tuple(Recipe("importance", {"label": label}) for label in range(2))
TAUGHT = TeacherRecipes(SOME, SOME, SOME, ((0, 1),), (SOME,), SCORES)
WIDTHS = Widths(4, 1, 8, 8)


def test_a_submodel_is_cut_from_the_teacher_for_its_group() -> None:
    one, other = (of_submodel(SETTINGS, TAUGHT, f"s{i}", (i,), WIDTHS, None, None) for i in range(2))
    assert one.common is None
    assert (one.start.stage, other.start.stage) == ("surgery", "surgery")
    assert [made.start.made_from["inputs"] for made in (one, other)] == [[scores.key] for scores in SCORES]
    assert one.start != other.start


def test_or_it_branches_from_the_student_of_all_classes() -> None:
    common = of_submodel(replace(SETTINGS, epochs=3), TAUGHT, "single", (0, 1), WIDTHS, None, None)
    one, other = (of_submodel(SETTINGS, TAUGHT, f"s{i}", (i,), WIDTHS, None, None, common) for i in range(2))
    assert one.common == common.retrained
    assert common.start.made_from["inputs"] == [scores.key for scores in SCORES]
    assert (one.start.stage, other.start.stage) == ("branch", "branch")
    assert one.start != other.start
    longer = of_submodel(replace(SETTINGS, epochs=4), TAUGHT, "single", (0, 1), WIDTHS, None, None)
    again = of_submodel(SETTINGS, TAUGHT, "s0", (0,), WIDTHS, None, None, longer)
    assert again.retrained != one.retrained

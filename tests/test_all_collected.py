"""No test is passed over: pytest leaves out folders by name, and said nothing of a whole room's tests."""

from fnmatch import fnmatch
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_no_folder_of_tests_is_passed_over(pytestconfig: pytest.Config) -> None:
    folders = {file.parent.relative_to(HERE) for file in HERE.rglob("test_*.py")}
    assert Path("build") in folders
    passed_over = pytestconfig.getini("norecursedirs")
    assert not [
        folder for folder in folders for part in folder.parts for name in passed_over if fnmatch(part, name)
    ]

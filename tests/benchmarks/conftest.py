"""The build room's tiny data set and its teacher."""

from tests.build.conftest import data_folder, dataset, teacher

__all__ = ["data_folder", "dataset", "teacher"]

from pathlib import Path

import numpy as np
import pytest

from raypipe.pipelines.walk.separations import Separations, read_separations
from raypipe.stages.walk_scores import Setting

SETTINGS = tuple(Setting(alpha, 4.0, 8, 5) for alpha in (2.0, 4.0, 8.0))


@pytest.fixture
def separations() -> Separations:
    found = np.array([[[0.4, 0.2, 0.3], [0.2, 0.4, 0.3]], [[0.0625, 0.0625, 1.0], [0.0625, 0.0625, 1.0]]])
    return Separations.none(SETTINGS).and_images([found[:, :1], found[:, 1:]])


def test_the_objective_is_that_of_the_mean_separations(separations: Separations) -> None:
    assert separations.num_images == 2
    np.testing.assert_allclose(separations.objective(), [0.15, 0.15, 0.3])
    np.testing.assert_allclose(separations.objective(np.array([2.0, 0.0])), [0.2, 0.1, 0.3])


def test_they_come_back_as_they_were_written(separations: Separations, tmp_path: Path) -> None:
    separations.only([0, 2]).write(str(tmp_path / "a.parquet"))
    separations.only([2, 1]).write(str(tmp_path / "b.parquet"))
    found = read_separations([str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")])
    assert found.settings == (SETTINGS[0], SETTINGS[2], SETTINGS[1])
    np.testing.assert_array_equal(found.feature, separations.feature[:, [0, 2, 1]])
    np.testing.assert_array_equal(found.colour, separations.colour[:, [0, 2, 1]])

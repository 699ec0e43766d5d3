"""What docs/four_tops.md says of centres, scales and configurations is so."""

import re
from pathlib import Path

import pytest
import yaml

from zoo.cli import main
from zoo.data.classes import merge_classes
from zoo.data.context import context_table
from zoo.data.datasets import describe_dataset
from zoo.data.features import feature_table
from zoo.data.features_yaml import read_context, read_features

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "four_tops.md").read_text()
CONFIGS = sorted((REPOSITORY / "configs" / "data").glob("four_tops*.yaml"))
TRAINING_ROWS = 11_090


@pytest.mark.parametrize(
    ("number", "option", "read", "table"),
    [(0, "--features", read_features, feature_table("events")), (1, "--context", read_context, context_table("met"))],
)
def test_the_commands_of_the_page_give_the_numbers_of_the_tables(shared_data, tmp_path, number, option, read, table):
    with (shared_data / "four_tops" / "events.csv").open() as file:
        (tmp_path / "train.csv").write_text("".join(next(file) for _ in range(TRAINING_ROWS)))
    (tmp_path / "auto.yaml").write_text(re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)[number])
    arguments = [str(tmp_path / "train.csv"), option, str(tmp_path / "auto.yaml"), "--out", str(tmp_path / "out.yaml")]
    main(["data", "fit-scaling", *arguments])
    fitted = read(tmp_path / "out.yaml").features
    assert len(fitted) == [4, 2][number]
    for found, used in zip(fitted, table.features, strict=False):
        assert (found.name, found.formula) == (used.name, used.formula)
        assert used.centre == (0 if found.name.endswith(("eta", "phi")) else pytest.approx(found.centre, abs=0.005))
        assert abs(found.centre - used.centre) < 0.02
        assert used.scale == pytest.approx(found.scale, abs=0.005)
        assert f"{used.scale:.3g}" in PAGE


def test_configurations_split_and_merge_as_the_page_says():
    merge = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)[2])["data"]["merge"]
    assert merge_classes(merge, describe_dataset("four_tops").classes).names == ("background", "signal")
    splits = {"train": [0, TRAINING_ROWS], "val": [TRAINING_ROWS, 12_674], "test": [12_674, 15_843]}
    for path in CONFIGS:
        data = yaml.safe_load(path.read_text())["data"]
        assert data["merge"] == merge, path
        assert path.stem == "four_tops_sample" or {name: data[name]["rows"] for name in splits} == splits, path


def test_files_that_the_page_names_are_there():
    for name in set(re.findall(r"configs/[\w/]+\.yaml", PAGE)):
        assert (REPOSITORY / name).is_file(), name

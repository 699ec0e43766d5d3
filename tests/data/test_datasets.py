import pytest

from zoo.data import datasets
from zoo.data.datasets import describe_dataset, resolve_file
from zoo.data.store import open_store, write_store


def test_top_tagging_facts():
    facts = describe_dataset("top_tagging")
    assert facts.classes == ("qcd", "top")
    assert "2603256" in facts.source
    assert "1902.09914" in facts.citation
    with pytest.raises(AttributeError):
        facts.units = "MeV"


def test_unknown_data_set():
    with pytest.raises(ValueError, match="'top_taging'; did you mean top_tagging"):
        describe_dataset("top_taging")


def test_paths_and_missing_files(tmp_path):
    (tmp_path / "jets.h5").touch()
    assert resolve_file(tmp_path / "jets.h5") == tmp_path / "jets.h5"
    with pytest.raises(FileNotFoundError, match=r"files: .*absent.h5 is not a file"):
        resolve_file(tmp_path / "absent.h5")


@pytest.fixture
def package_with_sample(tmp_path, monkeypatch, make_table):
    """A package folder that has only a training sample."""
    (tmp_path / "samples").mkdir()
    write_store(tmp_path / "samples" / "top_tagging_train.arrow", make_table(10), compression="zstd")
    monkeypatch.setattr(datasets.importlib.resources, "files", lambda package: tmp_path)


@pytest.mark.usefixtures("package_with_sample")
def test_samples_are_found_in_the_package():
    assert len(open_store(resolve_file("sample:top_tagging/train"))) == 10
    with pytest.raises(FileNotFoundError, match="'sample:top_tagging/test'; it has: sample:top_tagging/train"):
        resolve_file("sample:top_tagging/test")


def test_jetclass_facts():
    facts = describe_dataset("jetclass")
    assert facts.classes == ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")
    assert facts.label_columns[::9] == ("label_QCD", "label_Tbl")
    classes = describe_dataset("jetclass2").classes
    assert len(set(classes)) == 188
    assert (classes[0], classes[15], classes[161], classes[187]) == ("X_bb", "X_YY_bbbb", "QCD_bbccss", "QCD_light")

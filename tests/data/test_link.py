"""Files that lie elsewhere are linked to where the configurations look, once they are known to be of the data set."""

import dataclasses
import hashlib

import numpy as np
import pytest

from zoo.cli import main
from zoo.data import link as room
from zoo.data.convert import convert
from zoo.data.datasets import DATASETS, RemoteFile, resolve_file
from zoo.data.link import OtherFileWarning, link
from zoo.data.readers import read_jets
from zoo.data.store import write_store


@pytest.fixture
def file(tmp_path, make_table):
    write_store(tmp_path / "mine.arrow", make_table(20))
    return tmp_path / "mine.arrow"


@pytest.fixture
def published(file, monkeypatch):
    """Function that lets the data set have published a file of this content under the name."""

    def publish(name, content=None):
        md5 = hashlib.md5(file.read_bytes() if content is None else content).hexdigest()
        facts = dataclasses.replace(DATASETS["top_tagging"], files=(RemoteFile(name, "https://nowhere", md5),))
        monkeypatch.setattr(room, "describe_dataset", {"top_tagging": facts}.__getitem__)

    return publish


def test_a_file_is_linked_where_the_configurations_look(file, tmp_path):
    target = link("top_tagging", file, tmp_path / "data" / "top_tagging", called="val.arrow")
    assert target == tmp_path / "data" / "top_tagging" / "val.arrow"
    np.testing.assert_array_equal(read_jets(target).label, read_jets(file).label)
    assert link("top_tagging", file, target.parent, called="val.arrow") == target, "it is there already"


def test_a_published_name_needs_the_published_bytes_or_a_word(file, tmp_path, published):
    published("mine.arrow")
    assert link("top_tagging", file, tmp_path / "a").is_symlink()
    published("mine.arrow", b"other")
    with pytest.raises(ValueError, match=r"is not the mine.arrow that was published, whose MD5 is .*say --called mine"):
        link("top_tagging", file, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    with pytest.warns(OtherFileWarning, match="its rows are other ones, or fewer"):
        assert link("top_tagging", file, tmp_path / "b", called="mine.arrow").is_symlink()


def test_what_is_there_is_never_replaced(file, tmp_path):
    other = tmp_path / "data" / "mine.arrow"
    other.parent.mkdir()
    other.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="move it away"):
        link("top_tagging", file, other.parent)
    assert other.read_bytes() == b"precious"


def test_jets_of_another_data_set_are_refused(file, tmp_path):
    with pytest.raises(ValueError, match="holds jets of top_tagging, not of jetclass"):
        link("jetclass", file, tmp_path / "data")
    (tmp_path / "no.h5").write_text("nothing")
    with pytest.raises(ValueError, match="none of the known formats"):
        link("top_tagging", tmp_path / "no.h5", tmp_path / "data")


def test_the_command_and_the_remedy_that_names_it(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="put it there with 'zoo data download top_tagging', or 'zoo data link"):
        resolve_file("data/top_tagging/val.arrow")
    with pytest.raises(FileNotFoundError, match="put it there with 'zoo data link four_tops FILE'"):
        resolve_file("data/four_tops/events.csv")
    main(["data", "link", "top_tagging", str(file), "--called", "val.arrow"])
    assert capsys.readouterr().out == "data/top_tagging/val.arrow\n"
    assert resolve_file("data/top_tagging/val.arrow").samefile(file)


def test_a_converted_folder_is_linked(file, tmp_path):
    convert([file], tmp_path / "out", processes=1)
    target = link("top_tagging", tmp_path / "out", tmp_path / "data", called="train")
    assert len(read_jets(target)) == 20

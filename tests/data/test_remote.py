"""Files at an address: fetched once, and named as remote where they cannot be."""

import http.server
import threading
from pathlib import Path

import fsspec
import pytest

from zoo.cli import main
from zoo.data.datasets import resolve_file, resolve_files
from zoo.data.readers import read_jets
from zoo.data.store import write_store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def test_a_file_in_any_file_system_is_fetched_once(tmp_path, make_table):
    write_store(tmp_path / "jets.arrow", make_table(5))
    address = "memory://folder/jets.arrow"
    fsspec.filesystem("memory").pipe("/folder/jets.arrow", (tmp_path / "jets.arrow").read_bytes())
    path = resolve_file(address)
    assert path.name == "jets.arrow"
    assert len(read_jets(address)) == 5
    fsspec.filesystem("memory").rm("/folder/jets.arrow")
    assert resolve_files([address]) == [path]
    with pytest.raises(FileNotFoundError, match=r"memory://folder/other\.arrow: there is no such file"):
        resolve_file("memory://folder/other.arrow")


def test_http(tmp_path, make_table, capsys):
    pytest.importorskip("aiohttp")
    write_store(tmp_path / "jets.arrow", make_table(5))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/jets.arrow?download=1"
        main(["data", "info", address])
        assert "5 rows" in capsys.readouterr().out
        with pytest.raises(SystemExit, match="2"):
            main(["data", "info", address.replace("jets", "more")])
        assert "more.arrow?download=1: there is no such file" in capsys.readouterr().err
    finally:
        server.shutdown()
        server.server_close()


def test_a_path_cannot_be_an_address():
    with pytest.raises(FileNotFoundError, match=r"root:/.* is not a file; an address is given as text"):
        resolve_file(Path("root://eos.example//store/jets.root"))


@pytest.mark.parametrize("scheme", ["root", "nonsense"])
def test_what_cannot_be_fetched_is_named_as_remote(scheme, capsys):
    if scheme == "root":
        pytest.importorskip("fsspec")
        try:
            import fsspec_xrootd  # noqa: F401
        except ModuleNotFoundError:
            pass
        else:
            pytest.skip("xrootd is there")
    address = f"{scheme}://eos.example//store/jets.root"
    for command in (["data", "info", address], ["convert", address, "--out", "x"]):
        with pytest.raises(SystemExit, match="2"):
            main(command)
        error = capsys.readouterr().err
        assert f"{address} is remote and cannot be read here" in error
        assert "pip install 'hepzoo[remote]', or copy the file" in error

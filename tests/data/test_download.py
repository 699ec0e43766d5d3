import dataclasses
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from zoo.cli import main
from zoo.data import download as room
from zoo.data.datasets import DATASETS, RemoteFile
from zoo.data.download import download, fetch

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves `CONTENT`; ``limits`` says after how many bytes each answer breaks off, then none does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.limits: list[int] = []
        self.ranges: list[str | None] = []
        self.knows_ranges = True
        self.says_length = True
        self.status: int | None = None
        self.file = RemoteFile(
            "jets.h5", f"http://127.0.0.1:{self.server_port}/jets.h5", hashlib.md5(CONTENT).hexdigest(), len(CONTENT)
        )


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        if self.server.status:
            self.send_error(self.server.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.knows_ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if self.server.says_length:
            self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        limit = self.server.limits.pop(0) if self.server.limits else len(CONTENT)
        self.wfile.write(CONTENT[start : start + limit])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(room, "PAUSE", 0)
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_and_then_left_alone(server, tmp_path):
    assert fetch(server.file, tmp_path).read_bytes() == CONTENT
    fetch(server.file, tmp_path)
    assert server.ranges == [None]
    assert names(tmp_path) == ["jets.h5"]


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_truncated_transfer_is_resumed(server, tmp_path, size):
    server.limits = [100_000, 50_000]
    file = RemoteFile(server.file.name, server.file.url, server.file.md5, size)
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_an_interrupted_download_goes_on_where_it_stood(server, tmp_path):
    (tmp_path / "jets.h5.part").write_bytes(CONTENT[:123_456])
    assert fetch(server.file, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=123456-"]
    assert names(tmp_path) == ["jets.h5"]


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_part_that_was_whole_needs_no_more_bytes(server, tmp_path, size):
    """Killed between the last byte and the new name."""
    (tmp_path / "jets.h5.part").write_bytes(CONTENT)
    file = RemoteFile(server.file.name, server.file.url, server.file.md5, size)
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ([] if size else [f"bytes={len(CONTENT)}-"])


def test_a_server_that_cannot_resume_sends_all_again(server, tmp_path):
    server.knows_ranges, server.limits = False, [100_000]
    assert fetch(server.file, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_a_server_that_does_not_say_the_length(server, tmp_path):
    server.says_length, server.limits = False, [100_000]
    assert fetch(server.file, tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == 2


@pytest.mark.parametrize("part", [b"", CONTENT[:1000], b"x" * 1000, b"x" * 400_000])
def test_a_wrong_checksum_leaves_nothing(server, tmp_path, part):
    (tmp_path / "jets.h5.part").write_bytes(part)
    is_right = CONTENT.startswith(part)
    file = RemoteFile(server.file.name, server.file.url, "0" * 32 if is_right else server.file.md5, server.file.size)
    with pytest.raises(ValueError, match=r"jets.h5: its MD5 is \w{32}, not \w{32} as published; removed, run this"):
        fetch(file, tmp_path)
    assert names(tmp_path) == []


def test_another_file_of_that_name_is_not_replaced(server, tmp_path):
    (tmp_path / "jets.h5").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"jets.h5 is not the file that was published; move it away"):
        fetch(server.file, tmp_path)
    assert (tmp_path / "jets.h5").read_bytes() == b"mine"


def test_a_server_that_sends_nothing_any_more(server, tmp_path):
    server.limits = [100_000] + [0] * room.ATTEMPTS
    with pytest.raises(ConnectionError, match=r"jets.h5: the transfer broke off; run this again, it goes on where"):
        fetch(server.file, tmp_path)
    assert names(tmp_path) == ["jets.h5.part"]
    assert fetch(server.file, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=100000-"


def test_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "PAUSE", 0)
    with pytest.raises(ConnectionError, match="Connection refused"):
        fetch(RemoteFile("jets.h5", "http://127.0.0.1:9/jets.h5", "0" * 32), tmp_path)
    assert names(tmp_path) == []


def test_a_file_that_is_not_there(server, tmp_path):
    server.status = 404
    with pytest.raises(OSError, match=r"jets.h5: the server answers 404 Not Found"):
        fetch(server.file, tmp_path)
    assert names(tmp_path) == []


def test_the_command(server, tmp_path, monkeypatch, capsys):
    facts = dataclasses.replace(DATASETS["top_tagging"], files=(server.file,))
    monkeypatch.setitem(DATASETS, "top_tagging", facts)
    main(["data", "download", "top_tagging", "--out", str(tmp_path / "new" / "folder")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "folder" / "jets.h5")
    with pytest.raises(SystemExit, match="2"):
        main(["data", "download", "top_taging", "--out", str(tmp_path)])
    assert "did you mean top_tagging" in capsys.readouterr().err


def test_data_sets_without_known_files(tmp_path):
    with pytest.raises(
        ValueError, match=r"jetclass2: its files are not known one by one; fetch them from https://hugg"
    ):
        download("jetclass2", tmp_path)


def test_facts_of_the_files():
    for facts in DATASETS.values():
        for file in facts.files:
            assert re.fullmatch(r"[0-9a-f]{32}", file.md5)
            assert file.url.startswith("https://")
            assert f"/{file.name}" in file.url
        assert len({file.md5 for file in facts.files}) == len({file.name for file in facts.files}) == len(facts.files)

"""Pretrained folders on the Hub, by a server on localhost that speaks its API: there and back, and what goes wrong."""

import hashlib
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.baselines.test_trees import TEXT
from tests.hub.server import HubServer, running
from tests.hub.test_hub import config, edit, sign
from zoo import create_model, load_pretrained
from zoo.baselines.trees import BoostedTrees
from zoo.cli import main
from zoo.data.batch import JetBatch
from zoo.data.context import NO_CONTEXT
from zoo.data.features import FeatureTable
from zoo.ensemble import make_ensemble
from zoo.hub import FILES, Parts, PretrainedError, save_parts, save_pretrained
from zoo.hub.hf import parse_address

huggingface_hub = pytest.importorskip("huggingface_hub")

REPOSITORY = "owner/tagger"
TOKEN = "hf_ThisIsNobodysToken"
SOURCE = Path(__file__).resolve().parents[2]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[HubServer], None]:
    """Function that points this process's client, which read its environment already, to a server and a new cache."""
    import huggingface_hub.constants as constants

    def connect(server: HubServer) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # which is another protocol, of another server
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)  # less than a chunk of a broken transfer is lost
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # before it tries again
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return connect


@pytest.fixture
def server(connect: Callable[[HubServer], None]) -> Iterator[HubServer]:
    with running(HubServer()) as server:
        connect(server)
        yield server


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, jets: JetBatch) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "tagger"
    torch.manual_seed(1)
    model = create_model("lorentznet", input_dim=7, num_classes=2)
    save_pretrained(folder, model, config(), jets.four_momenta[:4], jets.mask[:4], "# Card\n")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    for name in FILES:
        (tmp_path / "mine" / name).write_bytes((saved / name).read_bytes())
    return tmp_path / "mine"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fetched(server: HubServer) -> list[str]:
    """Files that were fetched or asked for."""
    names = [re.fullmatch(r"GET .*/resolve/\w+/(.+)", line) for line in server.asked]
    return [match[1] for match in names if match]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def blob(cache: Path, content: bytes) -> Path:
    """The file in the cache that holds ``content``."""
    return next(path for path in cache.glob("models--*/blobs/*") if path.read_bytes() == content)


def test_there_and_back(server, folder, jets, capsys):
    main(["hub", "push", str(folder), REPOSITORY, "--create"])
    address = capsys.readouterr().out.strip()
    assert re.fullmatch(rf"hf://{REPOSITORY}@[0-9a-f]{{40}}", address)
    tagger = load_pretrained(address)
    expected = load_pretrained(folder)
    assert torch.equal(tagger(jets.four_momenta, jets.mask), expected(jets.four_momenta, jets.mask))
    assert tagger.config == expected.config
    (commit,) = server.commits[REPOSITORY]
    assert server.commits[REPOSITORY][commit] == contents(folder)
    server.leave()
    asked = list(server.asked)
    assert load_pretrained(address).config == expected.config
    assert server.asked == asked


def test_an_ensemble_with_trees_there_and_back(server, folder, jets, tmp_path, capsys):
    """Folders in a folder, and weights that are text."""
    trees = Parts(BoostedTrees(TEXT, "substructure", (), ()), FeatureTable(()), NO_CONTEXT)
    settings = config(
        model="lightgbm_substructure", kind="trees", features={"features": []}, observables=["multiplicity", "mass"]
    )
    save_parts(tmp_path / "trees", trees, settings, jets.four_momenta[:4], jets.mask[:4], "", {})
    make_ensemble([str(folder), str(tmp_path / "trees")], tmp_path / "both")
    main(["hub", "push", str(tmp_path / "both"), REPOSITORY, "--create"])
    address = capsys.readouterr().out.strip()
    inputs = (jets.four_momenta, jets.mask)
    assert torch.equal(load_pretrained(address)(*inputs), load_pretrained(tmp_path / "both")(*inputs))
    assert "members/trees/model.txt" in fetched(server)
    main(["hub", "list"])
    assert address in capsys.readouterr().out
    main(["hub", "pull", address, "--out", str(tmp_path / "pulled")])
    for path in (tmp_path / "both").rglob("*.*"):
        if path.is_file():
            assert (tmp_path / "pulled" / path.relative_to(tmp_path / "both")).read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match=r"owner\.tagger: is of the kind 'ensemble'"):
        make_ensemble([address, "lorentznet.top_tagging"], tmp_path / "again")


def test_only_the_files_of_a_folder_are_fetched(server, folder):
    others = {"pytorch_model.bin": b"\x80\x04.", "run.py": b"import os"}
    commit = server.commit(REPOSITORY, contents(folder) | others)
    load_pretrained(f"hf://{REPOSITORY}@{commit}")
    asked = {line.rpartition("/")[2] for line in server.asked if "/resolve/" in line}
    assert asked == set(FILES)


def test_a_transfer_that_breaks_off_is_resumed(server, folder):
    commit = server.commit(REPOSITORY, contents(folder))
    server.breaks = [300_000, 200_000]
    load_pretrained(f"hf://{REPOSITORY}@{commit}")
    first, second, third, _ = server.ranges
    assert first is None
    starts = [int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) for asked in (second, third)]
    assert 0 < starts[0] <= 300_000
    assert starts[0] < starts[1] <= starts[0] + 200_000


def test_a_server_that_goes_away_in_the_middle(connect, folder, tmp_path):
    with running(HubServer()) as server:
        connect(server)
        commit = server.commit(REPOSITORY, contents(folder))
        server.breaks, server.leaves = [300_000], True
        with pytest.raises(OSError, match=rf"hf://{REPOSITORY}@{commit}: model.safetensors: .*; run this again"):
            load_pretrained(f"hf://{REPOSITORY}@{commit}")
        with pytest.raises(OSError, match=r"model\.safetensors: is not in the cache, and the Hub cannot be reached"):
            load_pretrained(f"hf://{REPOSITORY}@{commit}")
    assert not list((tmp_path / "cache").glob("models--*/snapshots/*/model.safetensors"))
    with running(HubServer()) as server:
        connect(server)
        assert server.commit(REPOSITORY, contents(folder)) == commit
        load_pretrained(f"hf://{REPOSITORY}@{commit}")
        assert "SHA256SUMS" not in fetched(server)  # it was whole


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_on_the_way_is_named(server, folder, name):
    files = contents(folder)
    commit = server.commit(REPOSITORY, files | {name: flip(files[name])})
    with pytest.raises(PretrainedError, match=r"SHA256SUMS.*\(fetch it again: zoo hub pull --force hf://owner/tagger@"):
        load_pretrained(f"hf://{REPOSITORY}@{commit}")


def test_damage_in_the_cache_is_named_and_mended(server, folder, tmp_path, capsys):
    commit = server.commit(REPOSITORY, contents(folder))
    address = f"hf://{REPOSITORY}@{commit}"
    load_pretrained(address)
    weights = blob(tmp_path / "cache", (folder / "model.safetensors").read_bytes())
    weights.write_bytes(flip(weights.read_bytes()))
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "--model", address, "sample:top_tagging/test", "--rows", "0", "4"])
    shown = capsys.readouterr().err
    command = re.search(r"zoo (hub pull --force \S+)\)", shown)[1]
    assert "model.safetensors: differs from its checksum" in shown
    main(command.split())
    main(["predict", "--model", address, "sample:top_tagging/test", "--rows", "0", "4"])
    assert len(capsys.readouterr().out.splitlines()) == 6  # the folder, the names of the columns, and the rows


def test_a_folder_that_does_not_keep_its_promises_is_refused(server, folder, jets, tmp_path):
    """With checksums that are right, as whoever alters a folder on purpose can make them."""
    edit(folder, surprise=1)
    unknown_key = server.commit(REPOSITORY, contents(folder))
    with pytest.raises(PretrainedError, match=r"missing or unknown: .*surprise"):
        load_pretrained(f"hf://{REPOSITORY}@{unknown_key}")
    torch.manual_seed(2)
    other = create_model("lorentznet", input_dim=7, num_classes=2)
    save_pretrained(tmp_path / "other", other, config(), jets.four_momenta, jets.mask, "")
    swapped = contents(tmp_path / "other") | {"golden.safetensors": (folder / "golden.safetensors").read_bytes()}
    for name, content in swapped.items():
        (folder / name).write_bytes(content)
    sign(folder)
    other_weights = server.commit(REPOSITORY, contents(folder))
    with pytest.raises(PretrainedError, match="differ from the stored ones"):
        load_pretrained(f"hf://{REPOSITORY}@{other_weights}")


def test_a_repository_that_holds_only_a_pickle(server):
    class Bomb:
        def __reduce__(self):
            return (os.abort, ())

    commit = server.commit(REPOSITORY, {"pytorch_model.bin": pickle.dumps(Bomb())})
    with pytest.raises(
        FileNotFoundError, match=r"SHA256SUMS is missing, .* holds pytorch_model\.bin; .* least of all a pick"
    ):
        load_pretrained(f"hf://{REPOSITORY}@{commit}")
    assert fetched(server) == []


@pytest.mark.parametrize("revision", ["", "@main", "@{short}"])
def test_an_address_must_name_a_commit(server, folder, revision):
    commit = server.commit(REPOSITORY, contents(folder))
    server.commits[REPOSITORY][commit[:7]] = server.commits[REPOSITORY].pop(commit)  # the server knows short names
    server.commits[REPOSITORY][commit] = server.commits[REPOSITORY][commit[:7]]
    with pytest.raises(ValueError, match=rf"must name a commit by its 40 .* is now hf://{REPOSITORY}@[0-9a-f]{{7}}"):
        load_pretrained(f"hf://{REPOSITORY}{revision.format(short=commit[:7])}")
    assert fetched(server) == []


def test_addresses():
    with pytest.raises(ValueError, match="an address on the Hub is hf://owner/repo@commit"):
        parse_address("hf://tagger@main")
    with pytest.raises(ValueError, match=r"it names none; its page on the Hub lists the commits"):
        parse_address("hf://owner/nowhere")


def test_what_is_not_there(server, folder):
    commit = server.commit(REPOSITORY, contents(folder))
    with pytest.raises(OSError, match="there is no such repository, or it is not open to you"):
        load_pretrained(f"hf://owner/nothing@{commit}")
    with pytest.raises(OSError, match="the repository has no such commit"):
        load_pretrained(f"hf://{REPOSITORY}@{'0' * 40}")


def test_a_server_that_writes_outside_the_cache_is_found_out(server, folder, tmp_path):
    """Upstream takes the ETag for a file name. The control is the same server with the ETag of the Hub."""
    address = f"hf://{REPOSITORY}@{server.commit(REPOSITORY, contents(folder))}"
    server.etag = "../../../escaped"
    with pytest.raises(
        OSError, match=rf"written to {re.escape(str(tmp_path))}/escaped, outside .*models--owner--tagger"
    ):
        load_pretrained(address)
    assert (tmp_path / "escaped").is_file(), "the client prevents it by now: the check may go"
    with pytest.raises(OSError, match="outside"):
        load_pretrained(address)  # from the cache
    server.etag = None
    assert load_pretrained(f"hf://{REPOSITORY}@{server.commit(REPOSITORY, {'more': b''})}").config.classes


def test_a_damaged_folder_is_not_pushed(server, folder):
    (folder / "README.md").write_text("another card")
    with pytest.raises(SystemExit, match="2"):
        main(["hub", "push", str(folder), REPOSITORY, "--create"])
    assert server.asked == []


def test_nobody_reads_a_token(server, folder, capfd, monkeypatch):
    server.token = TOKEN
    with pytest.raises(SystemExit, match="2"):
        main(["hub", "push", str(folder), REPOSITORY])
    shown = capfd.readouterr()
    assert "there is no such repository, or it is not open to you; log in with 'hf auth login', or" in shown.err
    assert TOKEN not in shown.out + shown.err
    main(["hub", "push", str(folder), REPOSITORY, "--create"])
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}2")
    with pytest.raises(SystemExit, match="2"):
        main(["hub", "push", str(folder), REPOSITORY])
    shown = capfd.readouterr()
    assert TOKEN not in shown.out + shown.err
    assert len(server.commits[REPOSITORY]) == 1


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match="install the extra 'hub'"):
        load_pretrained(f"hf://{REPOSITORY}@{'0' * 40}")


def test_the_commands_with_nothing_but_the_environment(folder, tmp_path):
    """A process of its own, whose client is told of the server by HF_ENDPOINT as for any mirror of the Hub."""
    with running(HubServer()) as server:
        address = f"hf://{REPOSITORY}@{server.commit(REPOSITORY, contents(folder))}"
        commands = [["pull", address, "--out", str(tmp_path / "out")], ["verify", address], ["list"]]
        code = f"from zoo.cli import main\nfor words in {commands!r}: main(['hub', *words])"
        environment = os.environ | {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "0",
            "PYTHONPATH": str(SOURCE),
        }
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert contents(tmp_path / "out") == contents(folder)
    pulled, verified, *listed = done.stdout.splitlines()
    assert pulled == str(tmp_path / "out")
    assert verified == f"{address}: checksums and golden outputs are right: lorentznet for qcd, top"
    shipped = next(line for line in listed if line.startswith("lorentznet.top_tagging "))
    words = ["0.98144", "±", "0.00077", "1.0", "MB"]
    assert shipped.split() == ["lorentznet.top_tagging", "lorentznet", "top_tagging", *words]
    assert any(line.startswith(address) for line in listed)


def test_the_checksums_are_of_the_files(saved):
    """A witness of the format: what sha256sum would say."""
    lines = [line.split("  ") for line in (saved / "SHA256SUMS").read_text().splitlines()]
    assert {name: hashlib.sha256((saved / name).read_bytes()).hexdigest() for _, name in lines} == {
        name: digest for digest, name in lines
    }

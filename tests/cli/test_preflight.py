"""Mistakes in the settings of a training that are told before the heavy imports."""

import inspect
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer

import zoo.particle_transformer
import zoo.tasks
import zoo.training.callbacks
from tests.training.test_train import change, small_config
from zoo.cli import main
from zoo.cli import training_command as command
from zoo.cli.sources import names, parameters
from zoo.cli.training import KEYS, SECTIONS
from zoo.data import JetDataModule
from zoo.registry import list_models, model_facts
from zoo.training.callbacks import RunCheckpoints
from zoo.training.fine_tuning import FineTuning


@pytest.fixture
def config(tmp_path, monkeypatch) -> dict:
    """A good configuration; a training that came past the checks is a failure here."""
    monkeypatch.setattr("zoo.cli.training_command.main", lambda arguments: pytest.fail(f"began: {arguments}"))
    return small_config(tmp_path)


def write(config: dict, path: Path) -> str:
    path.write_text(yaml.safe_dump(config))
    return str(path)


def refused(capsys, *words: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        main([*words])
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("zoo: error: ")


def test_files_that_cannot_be_read(config, tmp_path, capsys):
    mine = tmp_path / "mine.yaml"
    write(config, mine)
    assert refused(capsys, "fit", "--config", f"{tmp_path}/mime.yaml").endswith(
        "mime.yaml: no such file; did you mean 'mine.yaml'?"
    )
    for text, message in (("data: [", "line 2"), ("- data", "a configuration is a mapping"), ("a: &a\n- *a", "mine")):
        mine.write_text(text)
        assert message in refused(capsys, "fit", "--config", str(mine))
    assert "only files of this machine are read" in refused(capsys, "fit", "--config", "https://host/mine.yaml")
    assert "only files of this machine are read" in refused(capsys, "fit", "--config", "memory://mine.yaml")


@pytest.mark.parametrize("key", ["trainr", "Data", "trainr.max_epochs", 3])
def test_unknown_keys(config, tmp_path, capsys, key):
    message = refused(capsys, "fit", "--config", write(config | {key: {}}, tmp_path / "mine.yaml"))
    assert f"mine.yaml: there is no key {key!r}; " in message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer.max_epoch", 3, "trainer.max_epoch: there is no such key; did you mean 'max_epochs'?"),
        ("data.batchsize", 3, "data.batchsize: there is no such key; did you mean 'batch_size'?"),
        ("checkpoints.every_n_steps", 3, "did you mean 'every_n_train_steps'?"),
        (
            "model.init_args.model.class_path",
            "zoo.lorentznet.lorentzmet",
            "model.init_args.model.class_path: zoo.lorentznet has no 'lorentzmet'; did you mean 'lorentznet'?",
        ),
        ("model.init_args.model.class_path", "zoo.lorenznet.lorentznet", "there is no module zoo.lorenznet"),
        (
            "trainer.callbacks",
            [{"class_path": "zoo.training.callbacks.Average"}],
            "trainer.callbacks.0.class_path: zoo.training.callbacks has no 'Average'; did you mean 'WeightAverage'?",
        ),
    ],
)
def test_keys_and_classes_are_looked_up_in_their_sources(config, tmp_path, capsys, key, value, message):
    change(config, key, value)
    assert message in refused(capsys, "fit", "--config", write(config, tmp_path / "mine.yaml"))
    if not isinstance(value, list) and not key.startswith("model"):
        path = write(small_config(tmp_path), tmp_path / "mine.yaml")
        assert message in refused(capsys, "fit", "--config", path, f"--{key}", str(value))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model.learning_rat 1e-3", "model.learning_rat: there is no such key; did you mean 'learning_rate'?"),
        ("--model.init_args.learning_rat 1e-3", "model.learning_rat: there is no such key"),
        ("--model.modle.embed_dim 3", "model.modle: there is no such key; did you mean 'model'?"),
        ("--model.model.embed_dimm 3", "model.model.embed_dimm: there is no such key; did you mean 'embed_dim'?"),
        ("--model.model.init_args.embed_dimm 3", "model.model.embed_dimm: there is no such key"),
        ("--model.model zoo.deepsets.pfn --model.model.embed_dim 3", "model.model.embed_dim: there is no such key"),
        ("--model Regression --model.signal 1", "model.signal: there is no such key"),
        ("--model.fine_tuning.freez backbone", "model.fine_tuning.freez: there is no such key; did you mean 'freeze'?"),
    ],
)
def test_arguments_of_task_and_model_are_looked_up_in_their_sources(config, tmp_path, capsys, words, message):
    path = write(config, tmp_path / "mine.yaml")
    assert message in refused(capsys, "fit", "--config", path, *words.split())


def test_arguments_are_those_of_the_class_that_was_named_last(config, tmp_path, monkeypatch):
    """A later file may name another task; what a class of another package takes is not looked up."""
    began = []
    monkeypatch.setattr("zoo.cli.training_command.main", began.append)
    config["model"]["init_args"]["signal"] = 1
    path = write(config, tmp_path / "mine.yaml")
    later = {"model": {"class_path": "zoo.tasks.Regression", "init_args": {"targets": ["jet_mass"]}}}
    words = ["--model.quantiles", "[0.5]", "--model.model", "theirs.Net", "--model.model.width", "3"]
    main(["fit", "--config", path, "--config", write(later, tmp_path / "later.yaml"), *words])
    assert len(began) == 1


@pytest.mark.parametrize(
    "kind",
    [
        Trainer,
        JetDataModule,
        RunCheckpoints,
        FineTuning,
        *(getattr(zoo.tasks, name) for name in zoo.tasks.__all__),
        *(model_facts(name).builder for name in list_models()),
    ],
)
def test_parameters_in_a_source_are_those_of_the_class(kind):
    assert parameters(f"{kind.__module__}.{kind.__qualname__}") == {*inspect.signature(kind).parameters}
    if kind.__module__.startswith("zoo."):  # and by the package that imports it
        package = kind.__module__.rpartition(".")[0]
        assert parameters(f"{package}.{kind.__name__}") in (None, {*inspect.signature(kind).parameters})


def test_names_in_a_source_are_those_of_the_module():
    for module in (zoo.particle_transformer, zoo.tasks, zoo.training.callbacks):
        found = {name for name in vars(module) if not name.startswith("__")}
        assert {name for name in names(module.__name__) if not name.startswith("__")} <= found
    assert "particle_transformer_for_events_sm" in names("zoo.particle_transformer")
    assert names("zoo") is None, "what is found by its __getattr__ is not known"


def test_the_keys_are_those_of_the_command_line_itself(monkeypatch, capsys):
    """As Lightning prints them for each subcommand."""
    there = set()
    for subcommand in ("fit", "validate", "test", "predict"):
        with pytest.raises(SystemExit, match="0"):
            command.main([subcommand, "--help"])
        usage = capsys.readouterr().out.partition("\n\n")[0].replace("[", " ").split()
        there |= {word.strip("[]").removeprefix("--") for word in usage if word.startswith("--")}
    of_before = {"task"}
    assert {name.partition(".")[0] for name in there} - {"config", "print_config"} == set(KEYS) - of_before
    assert {name.partition(".")[0] for name in there if "." in name} == set(SECTIONS) - {"model"}, "that is a class"


def test_a_run_folder_in_use(config, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    path = write(config, tmp_path / "mine.yaml")
    assert "run: holds a run already; add --ckpt-path last to continue it" in refused(capsys, "fit", "--config", path)
    del config["run_folder"]
    path = write(config, tmp_path / "mine.yaml")
    assert "holds a run already" in refused(capsys, "fit", "--config", path, "--run-folder", f"{tmp_path}/run")
    assert "run_folder: give this run a folder" in refused(capsys, "fit", "--config", path)


def test_a_requeued_job_may_use_its_run_folder(config, tmp_path, monkeypatch):
    """The same words start it again; those of another job are refused."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    (tmp_path / "run" / "slurm_job").write_text("12\n")
    path, began = write(config, tmp_path / "mine.yaml"), []
    monkeypatch.setattr("zoo.cli.training_command.main", began.append)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for job in ("12", "13"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        if job == "13":
            with pytest.raises(SystemExit, match="2"):
                main(["fit", "--config", path])
        else:
            main(["fit", "--config", path])
    assert began == [["fit", f"--config={path}"]]


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_a_checkpoint_that_is_not_there(config, tmp_path, capsys, subcommand):
    path = write(config, tmp_path / "mine.yaml")
    assert "best.ckpt: no such file; train first" in refused(capsys, subcommand, "--config", path)
    assert "other.ckpt: no such file" in refused(capsys, subcommand, "--config", path, "--ckpt-path", "other.ckpt")
    assert "no: is no run" in refused(capsys, subcommand, "--run-folder", f"{tmp_path}/no")


def test_data_files_that_are_not_there(config, tmp_path, capsys):
    """In the first file, in a later one, on the command line; and the test's, which a fit needs hours later."""
    path = write(config, tmp_path / "mine.yaml")
    later = write({"data": {"val": {"files": ["later/*.h5"]}}}, tmp_path / "later.yaml")
    assert "data.val.files: no file fits the pattern 'later/*.h5'" in refused(
        capsys, "fit", "--config", path, "--config", later
    )
    words = ["fit", "--config", path, "--data.train.files"]
    assert "data.train.files: no.h5 is not a file" in refused(capsys, *words, "[no.h5]")
    assert "data.train.files: no.h5 is not a file" in refused(capsys, *words[:-1], "--data.train.files=['no.h5']")
    config["data"]["test"]["files"] = ["later.h5"]
    path = write(config, tmp_path / "mine.yaml")
    assert "data.test.files: later.h5 is not a file" in refused(capsys, "fit", "--config", path)


def test_good_settings_are_handed_on(config, tmp_path, monkeypatch, capsys):
    """Files first, so that the command line goes before them; what is at an address is not fetched to be looked at."""
    began = []
    monkeypatch.setattr("zoo.cli.training_command.main", began.append)
    config["data"]["val"]["files"] = ["https://host.invalid/val.h5"]
    config["data.batch_size"] = 10
    path = write(config, tmp_path / "mine.yaml")
    other = f"{tmp_path}/other"
    words = ["--trainer.max_epochs", "3", "--run_folder", other, "-c", path, "--print_config=skip_default"]
    main(["fit", *words, "--test_after_fit=false"])
    words = ["--data.test.files", "[no.h5]", "--test-after-fit", "false", "--ckpt-path", "last"]
    main(["fit", "--config", path, *words])
    first = ["--trainer.max_epochs", "3", "--print_config=skip_default"]
    assert began == [
        ["fit", f"--config={path}", f"--run_folder={other}", "--test_after_fit=false", *first],
        ["fit", f"--config={path}", "--ckpt_path=last", "--test_after_fit=false", "--data.test.files", "[no.h5]"],
    ]
    assert capsys.readouterr().err.splitlines() == [
        "zoo: --run_folder is spelt --run-folder now",
        "zoo: --print_config is spelt --print-config now",
        "zoo: --test_after_fit is spelt --test-after-fit now",
    ]


def test_a_mistake_is_told_within_seconds(tmp_path):
    config = small_config(tmp_path)
    config["data"]["train"]["files"] = ["no.h5"]
    line = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "zoo.cli",
        "fit",
        "--config",
        write(config, tmp_path / "mine.yaml"),
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3, "of a processor; it takes 0.2"
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("zoo: error: data.train.files: no.h5 is not a file")
    assert not {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()} & {"torch", "lightning"}

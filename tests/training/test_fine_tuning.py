"""Fine-tuning: what is loaded, new, frozen and slower, on real jets, across interruptions and processes."""

import copy
import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

import zoo
from zoo.cli import training_command as command
from zoo.data import JetDataModule
from zoo.data.context import NO_CONTEXT, ContextTable, context_table
from zoo.data.datamodule import Interface, Split
from zoo.data.features import FeatureTable, feature_table
from zoo.hub import PretrainedConfig, save_pretrained
from zoo.lorentznet import LorentzNet
from zoo.tasks import pretraining
from zoo.tasks.classification import Classification
from zoo.tasks.task import warmup_cosine
from zoo.training.checkpoints import CheckpointError, read_checkpoint
from zoo.training.fine_tuning import Backbone, FineTuning, find_backbone, load_backbone, stages_of_model

STAGES = ["embedding", "blocks.0", "blocks.1", "head"]


def small_model(**changes) -> LorentzNet:
    """A model with dropout in the head, and normalisations in the blocks."""
    return LorentzNet(**{"num_classes": 2, "embed_dim": 8, "num_layers": 2} | changes)


def jets() -> JetDataModule:
    """Four training batches."""
    sample = "sample:top_tagging/train"
    return JetDataModule(train=Split([sample], rows=(0, 64)), val=Split([sample], rows=(64, 100)), batch_size=16)


@pytest.fixture
def backbone(tmp_path) -> Path:
    """Checkpoint of a model with weights and statistics of its own."""
    model = small_model()
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state = {name: torch.rand_like(value) if value.is_floating_point() else value + 7 for name, value in state.items()}
    path = tmp_path / "elsewhere" / "backbone.ckpt"
    path.parent.mkdir()
    torch.save({"state_dict": state, "epoch": 0, "global_step": 0, "callbacks": {}}, path)
    return path


class Diary(Callback):
    """Notes weights, learning rates and training modes at the start and after every step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.rates: list[dict[str, float]] = []
        self.modes: list[dict[str, bool]] = []

    def note(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights.append({name: value.clone() for name, value in pl_module.model.state_dict().items()})
        self.rates.append({group["stage"]: group["lr"] for group in trainer.optimizers[0].param_groups})
        self.modes.append({name: module.training for name, module in pl_module.model.named_modules()})

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.note(trainer, pl_module)

    def on_train_end(self, trainer, pl_module):
        self.note(trainer, pl_module)

    def moved(self, first: int, last: int) -> set[str]:
        """Stages of which any weight or statistic is another after step ``last`` than after ``first``."""
        one, other = self.weights[first], self.weights[last]
        return {stage for stage in STAGES for n in one if belongs(n, stage) and not torch.equal(one[n], other[n])}


def belongs(name: str, stage: str) -> bool:
    return name.startswith(f"{stage}.")


def fine_tune(
    settings: FineTuning, epochs: int = 1, learning_rate: float = 0.01, **options
) -> tuple[Diary, Classification]:
    diary = Diary()
    tagger = Classification(small_model(), learning_rate=learning_rate, fine_tuning=settings)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[diary],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(tagger, datamodule=jets())
    return diary, tagger


def test_backbone_is_loaded_and_head_is_new(backbone, capsys):
    seed_everything(5)
    fresh = small_model().state_dict()
    seed_everything(5)
    diary, _ = fine_tune(FineTuning(str(backbone)))
    given = find_backbone(str(backbone)).weights
    for name, value in diary.weights[0].items():
        assert torch.equal(value, (fresh if belongs(name, "head") else given)[name]), name
    assert not torch.equal(given["head.0.weight"], fresh["head.0.weight"])
    shown = capsys.readouterr().out
    assert str(backbone.name) in shown.replace("\n", "")
    rows = {line.split()[0]: line.split()[2] for line in shown.splitlines() if line.strip().startswith(tuple(STAGES))}
    assert rows == dict.fromkeys(STAGES, "loaded") | {"head": "new"}


def test_nothing_new_keeps_the_head(backbone):
    diary, _ = fine_tune(FineTuning(str(backbone), new=[]))
    given = find_backbone(str(backbone)).weights
    assert all(torch.equal(value, given[name]) for name, value in diary.weights[0].items())


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        (0, set()),
        (2, {"embedding", "blocks.0"}),
        (["blocks.0"], {"blocks.0"}),
        ("backbone", {"embedding", "blocks.0", "blocks.1"}),
    ],
)
def test_frozen_stages_keep_weights_and_statistics(backbone, freeze, frozen):
    diary, tagger = fine_tune(FineTuning(str(backbone), freeze=freeze))
    assert diary.moved(0, 4) == set(STAGES) - frozen
    for stage, modes in [(stage, diary.modes[step]) for stage in STAGES for step in range(4)]:
        assert {mode for name, mode in modes.items() if belongs(name + ".", stage)} == {stage not in frozen}
    trained = {name for name, parameter in tagger.model.named_parameters() if parameter.requires_grad}
    assert not any(belongs(name, stage) for name in trained for stage in frozen)


def test_unfreezing_begins_with_its_epoch(backbone):
    diary, _ = fine_tune(FineTuning(str(backbone), freeze=2, unfreeze_at_epoch=2), epochs=3)
    assert diary.moved(0, 8) == {"blocks.1", "head"}
    assert diary.moved(8, 9) == set(STAGES)
    modes = [diary.modes[step]["blocks.0.phi_e.1"] for step in (0, 7, 8, 11)]
    assert modes == [False, False, True, True], "validation in between restores the mode that it found"


def test_learning_rates_follow_stage_and_schedule(backbone):
    settings = FineTuning(str(backbone), freeze=1, layer_decay=0.5, head_factor=50.0)
    diary, _ = fine_tune(settings, epochs=2, learning_rate=1e-3)
    factors = {"blocks.0": 0.25, "blocks.1": 0.5, "head": 50.0}
    for step, rates in enumerate(diary.rates[:8]):
        schedule = warmup_cosine(step, 8, 0.1, 0.01)
        assert rates == pytest.approx({stage: 1e-3 * factor * schedule for stage, factor in factors.items()})


def test_new_stages_learn_like_the_head():
    settings = FineTuning("any", new=["blocks.1", "head"], layer_decay=0.5, head_factor=8.0)
    assert [stage.factor for stage in settings.stages(small_model())] == [0.125, 0.25, 8.0, 8.0]


def test_a_linear_probe_freezes_what_is_loaded():
    settings = FineTuning("any", new=["blocks.1", "head"], freeze="backbone")
    assert [stage.is_frozen for stage in settings.stages(small_model())] == [True, True, False, False]


def test_one_rate_for_all_is_the_ordinary_optimiser(backbone):
    """Groups of their own change no step: the same as an ordinary training that begins at the same weights."""
    weights = []
    for settings in (FineTuning(str(backbone), new=[]), None):
        tagger = Classification(small_model(dropout=0.0), learning_rate=0.01, fine_tuning=settings)
        tagger.model.load_state_dict(find_backbone(str(backbone)).weights)
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **options).fit(tagger, datamodule=jets())
        weights.append(tagger.model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"new": ["heads"]}, r"fine_tuning.new: LorentzNet has no stage 'heads', but embedding, blocks.0"),
        ({"freeze": ["block"]}, r"fine_tuning.freeze: .* no stage 'block'"),
        ({"freeze": 4}, r"freeze: must be 0 to 3 stages, not 4"),
        ({"freeze": -1}, r"freeze: must be 0 to 3 stages, not -1"),
        ({"freeze": STAGES, "new": []}, "leaves nothing to train"),
        ({"freeze": ["head"]}, "'head' would be new and frozen"),
        (
            {"backbone": "lorentznet.top_taging"},
            "did you mean lorentznet.top_tagging.* Nor is it a run folder .* train it first",
        ),
        (
            {"backbone": "lorentznet.top_tagging"},
            r"does not fit: embedding.weight has shape \(72, 2\) there and \(8, 2\)",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(backbone, settings, message):
    with pytest.raises((ValueError, OSError), match=message):
        fine_tune(FineTuning(**{"backbone": str(backbone)} | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_decay": 0.0}, "layer_decay: must be above 0"),
        ({"layer_decay": 1.5}, "layer_decay: must be above 0 and at most 1, not 1.5"),
        ({"head_factor": 0.0}, "head_factor: must be positive"),
        ({"unfreeze_at_epoch": 0, "freeze": 1}, "unfreeze_at_epoch: must be 1 or more"),
        ({"unfreeze_at_epoch": 1}, "needs 'freeze'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        FineTuning("lorentznet.top_tagging", **settings)


def test_every_difference_of_weights_is_named(backbone):
    found, data = find_backbone(str(backbone)), Interface(feature_table("kin"), NO_CONTEXT, ("a", "b"))
    model = small_model(num_classes=5)

    def load(new: list[str], weights: dict[str, Tensor]) -> None:
        changed = copy.copy(found)
        object.__setattr__(changed, "weights", weights)
        load_backbone(model, changed, FineTuning("x", new=new).stages(model), data)

    load(["head"], found.weights)
    with pytest.raises(ValueError, match=r"head.3.weight has shape \(2, 8\) there and \(5, 8\) in .* add 'head' to"):
        load([], found.weights)
    few = {name: value for name, value in found.weights.items() if not name.startswith("blocks.1.phi_h")}
    with pytest.raises(ValueError, match=r"blocks.1.phi_h.0.weight has shape none there .* add 'blocks.1' to"):
        load(["head"], few)
    load(["blocks.1", "head"], few)
    more = {"blocks.2.phi_e.0.weight": torch.ones(8, 8), **found.weights}
    with pytest.raises(ValueError, match=r"blocks.2.phi_e.0.weight has shape \(8, 8\) there and none in the model"):
        load(["head"], more)


@pytest.mark.parametrize("new", [[], ["head"]])
def test_a_backbone_of_older_names_is_loaded(backbone, new):
    """As of a run from when the head was called ``decoder``."""
    found = find_backbone(str(backbone))
    older = {name.replace("head.", "decoder."): value for name, value in found.weights.items()}
    model, data = small_model(), Interface(feature_table("kin"), NO_CONTEXT, ("a", "b"))
    before = model.state_dict()["head.3.weight"].clone()
    load_backbone(model, dataclasses.replace(found, weights=older), FineTuning("x", new=new).stages(model), data)
    assert torch.equal(model.state_dict()["blocks.1.phi_h.0.weight"], found.weights["blocks.1.phi_h.0.weight"])
    assert torch.equal(model.state_dict()["head.3.weight"], before if new else found.weights["head.3.weight"])


def test_features_and_classes_must_be_those_of_the_backbone():
    found, model = find_backbone("lorentznet.top_tagging"), zoo.create_model("lorentznet", input_dim=7, num_classes=2)
    assert found.interface.classes == ("qcd", "top")
    table = feature_table("kin")
    rescaled = table.to_dict()
    rescaled["features"][3]["scale"] = 0.8
    rescaled = FeatureTable.from_dict(rescaled)

    def load(
        features: FeatureTable,
        context: ContextTable = NO_CONTEXT,
        classes: tuple[str, ...] = ("qcd", "top"),
        new: tuple[str, ...] = (),
    ) -> None:
        load_backbone(model, found, FineTuning("x", new=list(new)).stages(model), Interface(features, context, classes))

    load(table)
    with pytest.raises(ValueError, match=r"part_logerel, number 3, is Feature.*scale=0.7.* there and .*scale=0.8"):
        load(rescaled)
    with pytest.raises(ValueError, match=r"part_charge, number 5, .* add 'embedding' to fine_tuning.new"):
        load(feature_table("full"))
    load(rescaled, new=("embedding", "head"))
    with pytest.raises(ValueError, match="has the classes qcd, top, the data top, qcd; add 'head'"):
        load(table, classes=("top", "qcd"))
    load(table, classes=("top", "qcd"), new=("head",))
    load(table, context=context_table("met"))
    rescaled = context_table("met").to_dict()
    rescaled["context"][1]["scale"] = 2.0
    found = dataclasses.replace(found, interface=found.interface._replace(context=ContextTable.from_dict(rescaled)))
    with pytest.raises(ValueError, match=r"other context: met_phi, number 1, is .* add 'embedding' and 'head' to"):
        load(table, context=context_table("met"))
    load(table, context=context_table("met"), new=("embedding", "head"))


def test_models_say_their_stages():
    class Silent(nn.Linear):
        pass

    class Forgetful(LorentzNet):
        def stages(self):
            return {"embedding": ["embedding"], "head": ["head"]}

    with pytest.raises(ValueError, match=r"Silent has no method stages\(\); write one"):
        stages_of_model(Silent(2, 2))
    with pytest.raises(ValueError, match=r"Forgetful.stages\(\) must put blocks.0.* in one stage, not in \[\]"):
        stages_of_model(Forgetful(2, embed_dim=8, num_layers=1))


# Through zoo fit


def config_of(folder: Path, backbone: str, **fine_tuning) -> dict:
    model = {"num_classes": 2, "embed_dim": 8, "num_layers": 2}
    return {
        "run_folder": str(folder),
        "trainer": {"max_epochs": 2, "log_every_n_steps": 1, "enable_progress_bar": False},
        "checkpoints": {"every_n_train_steps": 2},
        "model": {
            "model": {"class_path": "zoo.lorentznet.LorentzNet", "init_args": model},
            "fine_tuning": {"backbone": backbone, **fine_tuning},
        },
        "data": {
            "train": {"files": ["sample:top_tagging/train"], "rows": [0, 64]},
            "val": {"files": ["sample:top_tagging/val"], "rows": [0, 40]},
            "test": {"files": ["sample:top_tagging/test"], "rows": [0, 60]},
            "batch_size": 16,
        },
    }


def fit(config: dict, folder: Path, *options: str) -> command.TrainingCLI:
    path = folder / "given.yaml"
    path.write_text(yaml.safe_dump(config))
    return command.main(["fit", "--config", str(path), *options])


class Interrupt(Callback):
    """Breaks off at a step, as a crash would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise InterruptedError(f"step {self.step}")


def test_resumed_training_goes_on_without_the_backbone(backbone, tmp_path, monkeypatch):
    """Broken off inside the frozen epoch, and inside the one after: the same weights, and the backbone is gone."""
    settings = {"freeze": 2, "unfreeze_at_epoch": 1, "layer_decay": 0.5, "head_factor": 5.0}
    whole = config_of(tmp_path / "whole", str(backbone), **settings)
    fit(whole, tmp_path, "--test_after_fit", "false")
    broken = config_of(tmp_path / "broken", str(backbone), **settings)
    for step in (3, 7):
        broken["trainer"]["callbacks"] = [
            {"class_path": f"{Interrupt.__module__}.Interrupt", "init_args": {"step": step}}
        ]
        with pytest.raises(InterruptedError, match=f"step {step}"):
            fit(broken, tmp_path, "--ckpt_path", "last")
        backbone.unlink(missing_ok=True)
    broken["trainer"]["callbacks"] = None
    fit(broken, tmp_path, "--ckpt_path", "last")
    one, other = (read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "broken"))
    assert one["global_step"] == other["global_step"] == 8
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    assert one["optimizer_states"][0]["param_groups"] == other["optimizer_states"][0]["param_groups"]
    assert (tmp_path / "whole" / "metrics.csv").read_text() == (tmp_path / "broken" / "metrics.csv").read_text()
    with (tmp_path / "broken" / "metrics.csv").open(newline="") as file:
        logged = [row for row in csv.DictReader(file) if row["learning_rate/head"]]
    assert [float(row["learning_rate/embedding"]) > 0 for row in logged] == [False] * 4 + [True] * 4
    for row in logged:
        assert float(row["learning_rate/blocks.1"]) == pytest.approx(float(row["learning_rate/head"]) / 10)
    facts = json.loads((tmp_path / "broken" / "report" / "metrics.json").read_text())["facts"]
    assert str(backbone) in facts["backbone"]
    assert facts["loaded"] == "embedding, blocks.0, blocks.1 (1,066 parameters)"
    assert facts["new"] == "head (90 parameters)"
    assert facts["frozen"] == "embedding, blocks.0 (585 parameters) until epoch 1"

    changed = copy.deepcopy(broken)
    changed["model"]["fine_tuning"]["layer_decay"] = 0.9
    ordinary = copy.deepcopy(broken)
    ordinary["model"]["fine_tuning"] = None
    for other in (changed, ordinary):
        with pytest.raises(CheckpointError, match=r"last.ckpt: was made with model.fine_tuning .* give the same"):
            fit(other, tmp_path, "--ckpt_path", "last")


def test_run_folder_is_a_backbone_with_known_features(tmp_path):
    """The best checkpoint of an ordinary training, with the features and classes of its config."""
    config = config_of(tmp_path / "first", "")
    config["model"]["fine_tuning"] = None
    fit(config, tmp_path, "--trainer.max_epochs", "1", "--test_after_fit", "false")
    found = find_backbone(str(tmp_path / "first"))
    assert found.interface == Interface(feature_table("kin"), NO_CONTEXT, ("qcd", "top"))
    best = read_checkpoint(tmp_path / "first" / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(torch.equal(value, best[f"model.{name}"]) for name, value in found.weights.items())

    second = config_of(tmp_path / "second", str(tmp_path / "first"), new=["embedding", "blocks.0", "head"])
    line = fit(second, tmp_path, "--trainer.max_epochs", "1", "--test_after_fit", "false", "--model.learning_rate=1e-9")
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    weights = line.model.model.state_dict()
    moved = {
        stage
        for stage in STAGES
        for n in weights
        if belongs(n, stage)
        and weights[n].is_floating_point()
        and not torch.allclose(weights[n], best[f"model.{n}"], atol=1e-3)
        and "running" not in n
    }
    assert moved == {"embedding", "blocks.0", "head"}


def test_of_a_pretraining_only_what_it_trained_is_loaded(tmp_path):
    """Of its run, and of a pretrained folder of its backbone."""
    config = config_of(tmp_path / "pretrained", "") | {"task": "masked_particles"}
    config["model"] = {"model": {"class_path": "zoo.particlenet.particlenet_lite"}}
    config["model"]["model"]["init_args"] = {"input_dim": 7, "num_classes": 2}
    del config["data"]["test"]
    fit(config, tmp_path, "--trainer.max_epochs", "1", "--test_after_fit", "false")
    found = find_backbone(str(tmp_path / "pretrained"))
    expected = pretraining.read_backbone(tmp_path / "pretrained")
    assert found.weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.weights.items())
    assert found.interface.features == feature_table("kin")
    model = zoo.create_model("particlenet_lite", input_dim=7, num_classes=2)

    def load(found: Backbone, *new: str) -> None:
        data = Interface(feature_table("kin"), NO_CONTEXT, ("qcd", "top"))
        load_backbone(model, found, FineTuning("x", new=list(new)).stages(model), data)

    for each in (found, find_backbone(str(backbone_folder(tmp_path, expected)))):
        load(each, "head")
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items() if name in expected)
        with pytest.raises(ValueError, match=r"head.0.weight has shape none there .* add 'head' to fine_tuning.new"):
            load(each)


def backbone_folder(folder: Path, weights: dict[str, Tensor]) -> Path:
    model = zoo.create_model("particlenet_lite", input_dim=7, num_classes=2)
    model.load_state_dict(weights, strict=False)
    facts = {"dataset": "top_tagging", "units": "GeV", "metrics": {}, "licence": "MIT", "paper": "none"}
    table = feature_table("kin").to_dict()
    config = PretrainedConfig("particlenet_lite", classes=[], features=table, kind="backbone", **facts)
    data = jets()
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    save_pretrained(folder / "folder", model, config, batch.four_momenta[:4], batch.mask[:4], "")
    return folder / "folder"


def test_a_backbone_that_does_not_fit_leaves_no_run(tmp_path):
    config = config_of(tmp_path / "run", "lorentznet.top_tagging")
    with pytest.raises(ValueError, match="does not fit"):
        fit(config, tmp_path)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_pickled_backbone_is_refused(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save(small_model(), path)
    with pytest.raises(CheckpointError, match="never loaded"):
        find_backbone(str(path))


def test_linear_probe_of_the_shipped_model(tmp_path):
    """Only the head moves, on the configuration that ships."""
    parts = ("model/lorentznet", "data/top_tagging_sample", "recipe/linear_probe")
    configs = [word for part in parts for word in ("--config", f"configs/{part}.yaml")]
    few = ["--data.train_jets", "64", "--data.val.rows", "[0, 32]", "--trainer.max_epochs", "1"]
    line = command.main(["fit", *configs, "--run_folder", str(tmp_path / "run"), "--test_after_fit", "false", *few])
    before = zoo.load_pretrained("lorentznet.top_tagging").model.state_dict()
    moved = {name for name, value in line.model.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("head.")}


@pytest.mark.slow
def test_two_processes_freeze_and_unfreeze_alike(backbone, tmp_path):
    """The gradients of what was frozen at first are shared as well, so both processes end with the same weights."""
    script = Path(__file__).with_name("fine_tune_on_two_processes.py")
    command = [sys.executable, script, backbone, tmp_path]
    said = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True).stderr
    assert said.count("each of the 2 processes normalises by the statistics of its own jets") == 1
    ends = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    given = find_backbone(str(backbone)).weights
    for name, (after_one, after_two) in ends[0].items():
        assert torch.equal(after_one, ends[1][name][0]), name
        assert torch.equal(after_two, ends[1][name][1]), name
        assert torch.equal(after_one, given[name]) != belongs(name, "head"), name
        if name.endswith("phi_h.0.weight"):
            assert not torch.equal(after_two, given[name]), name

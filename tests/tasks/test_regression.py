"""Regression: losses against their definitions, what is learnt, and what of it lies in reports, folders and files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss

from zoo import load_pretrained, predict
from zoo.cli import main
from zoo.cli import training_command as command
from zoo.data import JetDataModule
from zoo.data.batch import JetBatch
from zoo.data.datamodule import Split
from zoo.publish import publish_run
from zoo.report import Answers
from zoo.report.residuals import half_width, residual_metrics
from zoo.tasks import Regression

TARGETS = ["jet_mass", "jet_pt"]


class Outputs(torch.nn.Module):
    """Gives the numbers that it is told, whatever the jets."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = torch.nn.Parameter(outputs)

    def forward(self, features, four_momenta, mask):
        return self.outputs[: len(mask)]


@pytest.fixture(scope="module")
def batch() -> JetBatch:
    data = JetDataModule(train=Split(["sample:top_tagging/train"], rows=(0, 64)), targets=TARGETS, batch_size=16)
    data.setup("fit")
    return next(iter(data.train_dataloader()))


def scaled(task: Regression) -> Regression:
    task.target_mean.copy_(torch.tensor([80.0, 590.0]))
    task.target_scale.copy_(torch.tensor([40.0, 30.0]))
    return task.eval()


def test_gaussian_loss_is_the_negative_log_likelihood(batch):
    """But for a constant; weights count linearly, in units of their mean."""
    task = scaled(Regression(Outputs(torch.randn(16, 4)), TARGETS))
    task.weight_scale.fill_(2.0)
    weight = torch.linspace(-0.5, 3.0, 16)
    loss, counted = task.loss(batch._replace(weight=weight), 0)
    answer = {name: values.detach().double().numpy() for name, values in task.answer(*batch.inputs).items()}
    expected = np.zeros(16)
    for name, scale in zip(TARGETS, (40.0, 30.0), strict=True):
        likelihood = norm(answer[name], answer[f"{name}_sigma"]).logpdf(batch.targets[name].double().numpy())
        expected += -(likelihood + np.log(scale) + 0.5 * np.log(2 * np.pi)) / 2
    assert counted == 16
    assert loss.item() == pytest.approx((weight.numpy() / 2 * expected).mean(), rel=1e-4)


def test_quantile_loss_is_the_pinball_loss_and_answers_do_not_cross(batch):
    quantiles = [0.1, 0.5, 0.9]
    task = scaled(Regression(Outputs(torch.randn(16, 6)), TARGETS, distribution="quantiles", quantiles=quantiles))
    loss, _ = task.loss(batch._replace(weight=torch.ones(16)), 0)
    outputs = task.model.outputs.detach().numpy().reshape(16, 3, 2)
    parts = []
    for place, (name, mean, scale) in enumerate(zip(TARGETS, (80.0, 590.0), (40.0, 30.0), strict=True)):
        true = (batch.targets[name].numpy() - mean) / scale
        parts += [mean_pinball_loss(true, outputs[:, i, place], alpha=alpha) for i, alpha in enumerate(quantiles)]
    assert loss.item() == pytest.approx(np.mean(parts), rel=1e-5)
    answer = task.answer(*batch.inputs)
    assert list(answer) == ["jet_mass_q10", "jet_mass", "jet_mass_q90", "jet_pt_q10", "jet_pt", "jet_pt_q90"]
    assert (answer["jet_mass_q10"] <= answer["jet_mass"]).all()
    assert (answer["jet_mass"] <= answer["jet_mass_q90"]).all()
    assert (np.diff(outputs[..., 0], axis=1) < 0).any(), "control: the model itself has some in another order"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": []}, "targets: give at least one"),
        ({"targets": ["jet_mass", "jet_mass"]}, "none twice"),
        ({"quantiles": [0.5, 0.16]}, "quantiles must be rising"),
        ({"quantiles": [0.1, 0.9]}, "with 0.5 among them"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Regression(Outputs(torch.zeros(1, 2)), **{"targets": ["jet_mass"], **settings})


def test_errors_of_the_metrics_are_the_spread_between_samples():
    """500 samples of a Gaussian: the mean error that is quoted is the spread of the values within 12 %."""
    random = np.random.default_rng(5)
    found: dict[str, list] = {}
    for _ in range(500):
        true = random.normal(size=400)
        predicted = true + random.normal(0.3, 2.0, size=400)
        for name, pair in residual_metrics(predicted, true, predicted - 1.5, predicted + 1.5).items():
            found.setdefault(name, []).append(pair)
    truth = {"bias": 0.3, "resolution": 2 * norm.ppf(0.84), "coverage": norm.cdf(0.6) - norm.cdf(-0.9)}
    for name, pairs in found.items():
        values, errors = np.array(pairs).T
        assert errors.mean() == pytest.approx(values.std(), rel=0.12), name
        if name in truth:
            assert values.mean() == pytest.approx(truth[name], abs=4 * values.std() / 500**0.5 + 0.01), name
    assert half_width(np.arange(10.0))[1] is None, "too few for an error"


def config(folder: Path, distribution: str = "gaussian") -> dict:
    network = {"class_path": "zoo.deepsets.pfn", "init_args": {"input_dim": 7, "num_classes": 4}}
    task = {"model": network, "targets": TARGETS, "learning_rate": 0.003}
    if distribution == "quantiles":
        network["init_args"]["num_classes"] = 6
        task["distribution"] = distribution
    split = {name: {"files": [f"sample:top_tagging/{name}"], "rows": [0, 400]} for name in ("train", "val", "test")}
    predicted = {"files": ["sample:top_tagging/test"], "rows": [400, 450]}
    return {
        "run_folder": str(folder / "run"),
        "trainer": {"max_epochs": 2, "enable_progress_bar": False},
        "model": {"class_path": "Regression", "init_args": task},
        "data": {**split, "predict": predicted, "batch_size": 32},
    }


def run(subcommand: str, settings: dict, *options: str):
    path = Path(settings["run_folder"]).with_name("config.yaml")
    path.write_text(yaml.safe_dump(settings))
    return command.main([subcommand, "--config", str(path), *options])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("regression")
    run("fit", config(folder))
    return folder


def test_a_report_holds_metrics_pictures_and_predictions(fitted):
    report = fitted / "run" / "report"
    document = json.loads((report / "metrics.json").read_text())
    assert document["title"] == "pfn, regression"
    kinds = ("bias", "resolution", "mae", "coverage")
    assert list(document["metrics"]) == [f"{name}_{kind}" for name in TARGETS for kind in kinds]
    answers = Answers.load(report / "predictions.arrow")
    residual = answers.columns["jet_mass"] - answers.columns["jet_mass_true"]
    assert document["metrics"]["jet_mass_mae"]["value"] == pytest.approx(np.abs(residual).mean(), rel=1e-6)
    inside = np.abs(residual) <= answers.columns["jet_mass_sigma"]
    assert document["metrics"]["jet_mass_coverage"]["value"] == pytest.approx(inside.mean(), abs=0.003)
    pictures = {f"{name}{suffix}.png" for name in TARGETS for suffix in ("", "_bias", "_resolution")}
    assert pictures | {"training.png"} == {path.name for path in report.glob("*.png")}
    spread = answers.columns["jet_mass_true"].std()
    assert document["metrics"]["jet_mass_resolution"]["value"] < 0.8 * spread, "something is learnt"


def test_a_published_regression_answers_as_the_run_did(fitted, tmp_path, capsys):
    publish_run(fitted / "run", tmp_path / "mine", licence="MIT")
    published = load_pretrained(tmp_path / "mine")
    assert published.config.kind == "task"
    main(["hub", "verify", str(tmp_path / "mine")])
    assert capsys.readouterr().out.endswith("are right: pfn for jet_mass, jet_mass_sigma, jet_pt, jet_pt_sigma\n")
    assert published.names == ("jet_mass", "jet_mass_sigma", "jet_pt", "jet_pt_sigma")
    tested = Answers.load(fitted / "run" / "report" / "predictions.arrow").sorted()
    found = predict(tmp_path / "mine", "sample:top_tagging/test", rows=(0, 400))
    for name in published.names:
        np.testing.assert_allclose(found.columns[name], tested[name], rtol=1e-4)
    assert "label" not in found.columns
    found.save(tmp_path / "answers.csv")
    assert (
        (tmp_path / "answers.csv")
        .read_text()
        .replace('"', "")
        .startswith("index,jet_mass,jet_mass_sigma,jet_pt,jet_pt_sigma")
    )
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "trained as `zoo.tasks.Regression` to give jet_mass, jet_mass_sigma" in card
    assert "On 400 test jets" in card
    phi = torch.linspace(-0.4, 0.4, 30)
    momenta = 20 * torch.stack([torch.ones(30), phi.cos(), phi.sin(), torch.zeros(30)], dim=-1)
    assert set(published(momenta[None], torch.ones(1, 30, dtype=torch.bool))) == set(published.names)


def test_predict_writes_the_columns_of_the_task(fitted):
    settings = config(fitted)
    run("predict", settings, "--predictions", str(fitted / "new.csv"))
    lines = (fitted / "new.csv").read_text().replace('"', "").splitlines()
    assert lines[0] == "index,label,weight,jet_mass,jet_mass_sigma,jet_pt,jet_pt_sigma"
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(400, 450))


def test_a_model_of_another_width_is_refused_with_the_number(tmp_path):
    settings = config(tmp_path)
    settings["model"]["init_args"]["model"]["init_args"]["num_classes"] = 2
    with pytest.raises(ValueError, match="num_classes is 2, but must be 4, the number of means and sigmas of jet"):
        run("fit", settings)


def test_data_without_a_target_of_the_task_are_refused(tmp_path):
    settings = config(tmp_path)
    settings["data"]["targets"] = ["jet_pt"]
    with pytest.raises(ValueError, match=r"^data\.targets: has no 'jet_mass', which Regression reads"):
        run("fit", settings)


def test_quantiles_through_the_whole_chain(tmp_path):
    run("fit", config(tmp_path, "quantiles"), "--trainer.max_epochs", "1")
    publish_run(tmp_path / "run", tmp_path / "mine", licence="MIT")
    assert load_pretrained(tmp_path / "mine").names[:3] == ("jet_mass_q16", "jet_mass", "jet_mass_q84")

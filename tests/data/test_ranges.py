"""What a model was trained on travels with it, and other jets are called other jets."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import pytest
import torch

import zoo
from zoo.data.batch import batch_quantities, collate, gather
from zoo.data.context import NO_CONTEXT
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.odd_jets import OddJetsWarning
from zoo.data.ranges import InputRanges, Range, RangeCheck, measure_ranges, require_momenta
from zoo.data.readers import read_jets
from zoo.data.store import write_store
from zoo.hub import PACKAGED, PretrainedError, load_pretrained
from zoo.inference import predict, predict_file

MODEL = "pfn_energyflow.top_tagging"


@pytest.fixture(scope="module")
def jets():
    return read_jets(resolve_file("sample:top_tagging/test"), (0, 400))


@pytest.fixture(scope="module")
def batch(jets):
    return collate(gather(jets, np.arange(len(jets))), feature_table("kin"))


def scaled(table, factor):
    particles = {name: values * np.float32(factor) for name, values in table.particles.items()}
    return dataclasses.replace(table, particles=particles)


def test_ranges_are_those_of_numpy(jets, batch):
    half = [torch.arange(200), torch.arange(200, 400)]
    parts = ([(name, values[rows]) for name, values in quantities_of_jets(batch)] for rows in half)
    ranges = measure_ranges(400, parts)
    assert ranges.jets == 400
    px, py, pz, energy = (
        np.add.reduceat(jets.particles[f"part_{name}"].astype(float), jets.offsets[:-1])
        for name in ("px", "py", "pz", "energy")
    )
    expected = {
        "number of particles": jets.counts,
        "jet pt (GeV)": np.hypot(px, py),
        "jet mass (GeV)": np.sqrt(energy**2 - px**2 - py**2 - pz**2),
    }
    for name, values in expected.items():
        wanted = np.quantile(values, [0.001, 0.5, 0.999], method="nearest")
        np.testing.assert_allclose(ranges.ranges[name], wanted, rtol=1e-5)
    assert InputRanges.from_dict(json.loads(json.dumps(ranges.to_dict()))) == ranges


def quantities_of_jets(batch):
    return [
        (name, values)
        for name, values in batch_quantities(batch, feature_table("kin"), NO_CONTEXT)
        if len(values) == 400
    ]


def test_features_have_the_values_of_their_formulas(jets, batch):
    found = dict(batch_quantities(batch, feature_table("kin"), NO_CONTEXT))
    pt = np.hypot(jets.particles["part_px"], jets.particles["part_py"])
    np.testing.assert_allclose(found["part_pt_log"], np.log(pt), atol=1e-5)
    np.testing.assert_allclose(found["particle pt (GeV)"], pt, rtol=1e-6)


def test_a_tenth_outside_is_too_much():
    check = RangeCheck(InputRanges(10, {"x": Range(0.0, 1.0, 2.0)}))
    check.update([("x", torch.tensor([1.0] * 45 + [-1.0])), ("unknown", torch.ones(3))])
    check.update([("x", torch.tensor([2.0, 3.0, 3.0, 3.0]))])
    assert check.findings() == {}  # 4 of 50
    check.update([("x", torch.tensor([4.0, 3.0]))])
    assert check.findings() == {
        "x": "x: trained on 0 to 2, 1.92 % are below (down to -1) and 9.62 % are above (up to 4)"
    }


def test_a_few_particles_outside_are_chance_unless_there_are_no_others():
    for values, is_odd in (([3.0], True), ([3.0, 1.0], False), ([3.0] * 4 + [1.0], False), ([3.0] * 5 + [1.0], True)):
        check = RangeCheck(InputRanges(10, {"x": Range(0.0, 1.0, 2.0)}))
        check.update([("x", torch.tensor(values))])
        assert bool(check.findings()) == is_odd


def test_jets_like_those_of_the_training_are_not_odd(jets, tmp_path):
    write_store(tmp_path / "jets.arrow", jets)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = predict(MODEL, tmp_path / "jets.arrow")
    assert result.oddities == ()


def test_jets_in_another_unit_are_odd(jets, tmp_path, capsys):
    write_store(tmp_path / "mev.arrow", scaled(jets, 1000))
    with pytest.warns(OddJetsWarning, match=r"jet pt \(GeV\): trained on 550 to 650, 100 % are above .*in MeV\?"):
        predict(MODEL, tmp_path / "mev.arrow")
    predict_file(MODEL, str(tmp_path / "mev.arrow"), out=tmp_path / "s.csv", rows=None, layout=None, weaver_yaml=None)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("odd: ")
    assert said[-1].startswith(f"{tmp_path / 'mev.arrow'}: 400 of 400 rows")


def test_events_are_odd_to_a_tagger_of_jets(tmp_path):
    with pytest.warns(OddJetsWarning, match="jet mass .* 100 % are above"):
        predict(MODEL, "sample:four_tops/test", rows=(0, 200))


def test_tensors_are_looked_at_too_and_each_oddity_is_said_once(batch):
    tagger = zoo.load_pretrained(MODEL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tagger(batch.four_momenta, batch.mask)
    with pytest.warns(OddJetsWarning, match="jet pt"):
        tagger(batch.four_momenta * 1000, batch.mask)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tagger(batch.four_momenta * 1000, batch.mask)


def test_the_energy_comes_first(batch):
    tagger = zoo.load_pretrained(MODEL)
    with pytest.raises(ValueError, match=r"must be \(E, px, py, pz\) .* like \(px, py, pz, E\): give four_momenta"):
        tagger(batch.four_momenta[..., [1, 2, 3, 0]], batch.mask)
    backbone = zoo.load_pretrained("particle_transformer.substructure")
    with pytest.raises(ValueError, match=r"must be \(E, px, py, pz\)"):
        backbone.encode(batch.four_momenta[:2, :, [1, 2, 3, 0]], batch.mask[:2])
    with pytest.raises(ValueError, match=r"1 of 1 particles have E < .p.; correct them; of .pt, eta, phi, mass."):
        require_momenta(torch.tensor([[[1.0, 2, 0, 0]]]), torch.ones(1, 1, dtype=torch.bool))
    padded = torch.where(batch.mask[..., None], batch.four_momenta, -1.0)  # what is no particle does not matter
    require_momenta(padded, batch.mask)


def test_zeros_are_no_particles(batch):
    """A mask of ones on padded tensors moves the logits of every model, by far more than classes differ."""
    padded = batch.four_momenta.masked_fill(~batch.mask[..., None], 0)
    count = int((~batch.mask).sum())
    assert count > 0
    with pytest.raises(ValueError, match=f"the mask calls {count} of {batch.mask.numel()} particles real"):
        require_momenta(padded, torch.ones_like(batch.mask))


def test_older_folders_load_and_wrong_ranges_do_not(tmp_path, batch):
    import hashlib

    def change(version, inputs):
        folder = tmp_path / f"{version}{inputs}"
        shutil.copytree(PACKAGED / MODEL, folder)
        values = json.loads((folder / "config.json").read_text()) | {"format_version": version, "inputs": inputs}
        content = json.dumps({key: value for key, value in values.items() if value is not None}).encode()
        sums = (folder / "SHA256SUMS").read_text().splitlines()
        sums = [line for line in sums if not line.endswith("config.json")]
        (folder / "config.json").write_bytes(content)
        (folder / "SHA256SUMS").write_text("\n".join([*sums, f"{hashlib.sha256(content).hexdigest()}  config.json"]))
        return load_pretrained(folder)

    older = change(2, None)
    assert older.ranges is None
    older(batch.four_momenta * 1000, batch.mask)  # nobody can tell
    with pytest.raises(PretrainedError, match="'inputs' must have jets and ranges of three numbers"):
        change(3, {"jets": 1, "ranges": {"x": [1]}})

"""What rounding, padding and single bad numbers do to jets: mended within stated limits, counted, and else refused."""

import contextlib
import dataclasses

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.data.writers import write_parquet, write_root
from zoo.data.convert import convert, describe
from zoo.data.datasets import resolve_file
from zoo.data.formats.layout import DROPPED, Layout
from zoo.data.formats.layout_yaml import read_layout
from zoo.data.formats.momenta import NEGATIVE_MASS, NO_MASS, PADDING, RAISED
from zoo.data.read_report import MendedWarning, RejectedJetsWarning
from zoo.data.readers import read_jets
from zoo.data.source import open_source
from zoo.data.store import NoJetsError
from zoo.inference import predict

POLAR = {name: name for name in ("pt", "eta", "phi", "mass")}
CARTESIAN = {name: name for name in ("px", "py", "pz", "energy")}
LAYOUT = Layout(name="mine", classes=("a", "b"), momenta=POLAR, label="label")


def write_hdf5(path, columns):
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            if isinstance(values, ak.Array):
                data = file.create_dataset(name, len(values), h5py.vlen_dtype(ak.to_numpy(ak.flatten(values)).dtype))
                for row, jet in enumerate(values):
                    data[row] = ak.to_numpy(jet)
            else:
                file[name] = values
    return path


WRITERS = {"parquet": write_parquet, "root": write_root, "h5": write_hdf5}


def jets(dtype=np.float32, **columns):
    """Columns of jets with two particles each."""
    lists = {name: ak.Array(np.array(values, dtype=dtype).reshape(-1, 2)) for name, values in columns.items()}
    lists = {name: ak.from_regular(values) for name, values in lists.items()}
    return lists | {"label": np.arange(len(next(iter(lists.values())))) % 2}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_mass_below_zero_by_rounding_is_zero_and_counted(ending, tmp_path):
    """The first jet is that of public CMS files; a muon's mass with the wrong sign is no rounding."""
    columns = jets(pt=[5, 5, 5, 5], eta=[0, 1, 0, 1], phi=[0, 1, 0, 1], mass=[-2.4e-7, 0.1, -0.105, 0.1])
    path = WRITERS[ending](tmp_path / f"jets.{ending}", columns)
    table, report = open_source(path, layout=LAYOUT).read()
    assert table.source_rows.tolist() == [0]
    assert table.particles["part_energy"][0] == 5
    assert dict(report.mended) == {NO_MASS: 1, NEGATIVE_MASS: 1}
    assert report.rejected["negative energy"] == 1
    with (
        pytest.warns(MendedWarning, match=f"jets.{ending}: 1 {NO_MASS}; 1 {NEGATIVE_MASS}"),
        pytest.warns(RejectedJetsWarning),
    ):
        read_jets(path, layout=LAYOUT)


def test_masses_of_massless_particles_in_single_precision_are_rounding(tmp_path):
    """sgn(m2) sqrt|m2| of float32 energies and momenta: all are within the tolerance, many are negative."""
    random = np.random.default_rng(1)
    pt, eta, phi = random.exponential(30, 4000) + 0.1, random.normal(0, 1.5, 4000), random.uniform(-3, 3, 4000)
    energy, px, py, pz = (
        values.astype(np.float32)
        for values in (pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta))
    )
    mass2 = energy * energy - px * px - py * py - pz * pz
    mass = np.sign(mass2) * np.sqrt(np.abs(mass2))
    assert (mass < 0).mean() > 0.3
    for dtype in (np.float32, np.float64):
        columns = jets(dtype, pt=pt, eta=eta, phi=phi, mass=mass)
        table, report = open_source(write_parquet(tmp_path / "jets.parquet", columns), layout=LAYOUT).read()
        assert len(table) == 2000
        assert report.mended[NO_MASS] == (mass < 0).sum()


def of_type(values, dtype):
    return ak.values_astype(values, dtype)


def half_precision(random):
    """Massless particles, px, py, pz and energy rounded to float16."""
    pt, eta, phi = random.exponential(20, 600) + 1, random.normal(0, 1, 600), random.uniform(-3, 3, 600)
    momenta = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta), "energy": pt * np.cosh(eta)}
    return jets(np.float16, **momenta)


def test_half_precision_loses_no_jet(tmp_path):
    path = write_parquet(tmp_path / "jets.parquet", half_precision(np.random.default_rng(2)))
    layout = dataclasses.replace(LAYOUT, momenta=CARTESIAN)
    table, report = open_source(path, layout=layout).read()
    assert len(table) == 300
    assert report.mended[RAISED] > 100
    energy, *momentum = (table.particles[f"part_{name}"].astype(float) for name in ("energy", "px", "py", "pz"))
    assert np.all(np.sqrt(np.sum(np.square(momentum), axis=0)) <= energy * (1 + 1e-5))


def test_more_than_rounding_is_refused_until_a_layout_allows_it(tmp_path):
    """Energies 2 % too small in half precision, 1 % in single precision."""
    columns = half_precision(np.random.default_rng(2))
    layout = dataclasses.replace(LAYOUT, momenta=CARTESIAN)
    path = write_parquet(tmp_path / "jets.parquet", columns | {"energy": of_type(columns["energy"] * 0.98, np.float16)})
    with pytest.raises(ValueError, match="300 momentum above energy"):
        read_jets(path, layout=layout)
    single = {name: of_type(columns[name], np.float32) for name in CARTESIAN} | {"label": columns["label"]}
    write_parquet(path, single | {"energy": of_type(single["energy"] * 0.99, np.float32)})
    with pytest.raises(ValueError, match="300 momentum above energy"):
        read_jets(path, layout=layout)
    table, _ = open_source(path, layout=dataclasses.replace(layout, momentum_tolerance=0.02)).read()
    assert len(table) == 300


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("angle", [0, 0.3])
def test_zeros_at_the_end_of_lists_are_no_particles(ending, angle, tmp_path):
    """Whatever their angles; a particle at rest with a mass is one."""
    columns = jets(pt=[5, 3, 4, 0], eta=[0, 1, 0, angle], phi=[0, 1, 2, angle], mass=[0, 0, 0.1, 0])
    path = WRITERS[ending](tmp_path / f"jets.{ending}", columns)
    with pytest.warns(MendedWarning, match=f"1 {PADDING}"):
        table = read_jets(path, layout=LAYOUT)
    assert table.counts.tolist() == [2, 1]
    at_rest = WRITERS[ending](tmp_path / f"rest.{ending}", columns | {"mass": columns["mass"] + np.float32(0.5)})
    assert read_jets(at_rest, layout=LAYOUT).counts.tolist() == [2, 2]


@pytest.mark.parametrize("ending", WRITERS)
def test_padding_of_lists_moves_no_score(ending, tmp_path):
    """Real jets as they are, and with zeros up to 200 particles."""
    jets = read_jets(resolve_file("sample:top_tagging/test"), (0, 30))
    momenta = {name: ak.unflatten(jets.particles[f"part_{name}"], jets.counts) for name in CARTESIAN}
    layout = dataclasses.replace(LAYOUT, classes=("qcd", "top"), momenta=CARTESIAN)
    scores = []
    for number, most in enumerate((None, 200)):
        lists = momenta if most is None else {name: zero_padded(values, most) for name, values in momenta.items()}
        path = WRITERS[ending](tmp_path / f"{number}.{ending}", lists | {"label": jets.label})
        with contextlib.nullcontext() if most is None else pytest.warns(MendedWarning, match=PADDING):
            scores.append(predict("pfn_energyflow.top_tagging", path, layout=layout).logits)
    np.testing.assert_array_equal(*scores)


def zero_padded(values, most):
    return ak.values_astype(ak.from_regular(ak.fill_none(ak.pad_none(values, most, clip=True), 0)), np.float32)


@pytest.fixture
def damaged(tmp_path):
    """Three jets: one whose impact parameter is unknown, one with a bad candidate, one with both and a bad field."""
    nan = np.nan
    columns = jets(
        pt=[5, 3, 4, nan, 4, -1],
        eta=[0, 1, 0, 0, 1, 2],
        phi=[0, 1, 2, 0, 0, 0],
        mass=[0, 0, 0.1, 0, 0, 0],
        d0=[nan, 0.5, 0.1, 0.2, np.inf, 0],
    )
    columns["tau21"] = np.array([0.5, 0.5, nan], dtype=np.float32)
    path = write_parquet(tmp_path / "jets.parquet", columns)
    return path, dataclasses.replace(LAYOUT, particles={"part_d0val": "d0"}, fields={"tau21": "tau21"})


def test_a_report_names_the_columns_that_are_not_finite(damaged):
    path, layout = damaged
    with pytest.raises(ValueError, match=r"3 not finite \(part_energy in 1, .*part_d0val in 2, tau21 in 1\)"):
        read_jets(path, layout=layout)


def test_numbers_are_filled_and_particles_dropped_where_the_layout_says_so(damaged):
    path, layout = damaged
    layout = dataclasses.replace(layout, fill={"part_d0val": -9, "tau21": 0}, bad_particles="drop")
    table, report = open_source(path, layout=layout).read()
    assert table.counts.tolist() == [2, 1, 1]
    assert table.particles["part_d0val"].tolist() == [-9, 0.5, pytest.approx(0.1), -9]
    assert table.fields["tau21"].tolist() == [0.5, 0.5, 0]
    assert not report.left_out
    assert dict(report.mended) == {
        DROPPED: 2,
        "values of 'part_d0val' that are not finite, filled with -9": 2,
        "values of 'tau21' that are not finite, filled with 0": 1,
    }


def test_the_keys_in_yaml_and_in_a_converted_folder(damaged, tmp_path):
    path, layout = damaged
    text = """
        {units: GeV, classes: [a, b], label: label, particles: {part_d0val: d0}, fields: [tau21],
         momenta: {pt: pt, eta: eta, phi: phi, mass: mass}, fill: {part_d0val: -9, tau21: 0}, bad_particles: drop}
    """
    (tmp_path / "mine.yaml").write_text(text)
    wanted = dataclasses.replace(layout, fill={"part_d0val": -9, "tau21": 0}, bad_particles="drop")
    assert read_layout(tmp_path / "mine.yaml") == wanted
    manifest = convert([path], tmp_path / "folder", processes=1, layout=wanted)
    assert manifest.jets == 3
    assert manifest.sources[0].mended[DROPPED] == 2
    assert f"2 {DROPPED}" in describe(tmp_path / "folder", manifest)
    for key in ("fill", "bad_particles", "momentum_tolerance"):  # so that older folders are those of the same layout
        assert key not in LAYOUT.values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fill": {"part_d0": 0}}, "fill: 'part_d0' is none of 'particles' and 'fields'; did you mean 'part_d0val'"),
        ({"bad_particles": "keep"}, "bad_particles: must be reject or drop, not 'keep'"),
        ({"momentum_tolerance": -1}, "momentum_tolerance: must be from 0 to 1, not -1"),
    ],
)
def test_wrong_keys(damaged, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(damaged[1], **change)


def test_files_all_of_whose_jets_are_padded_with_other_things_than_zeros_point_to_the_mask(tmp_path):
    """No jet is left then; a mass beside a momentum of NaN is padding, too, and no negative energy."""
    real = np.ones((2, 3))
    padded, far, masses = (
        np.where([True, True, False], here, there) * real for here, there in ((1, np.nan), (0, 1e10), (0.1, -1))
    )
    for name, columns in {
        "nan": dict.fromkeys(POLAR, padded) | {"mass": masses},
        "eta": dict.fromkeys(POLAR, real) | {"eta": far},
    }.items():
        path = write_hdf5(tmp_path / f"{name}.h5", columns | {"label": [0, 1]})
        with pytest.raises(NoJetsError, match=r"no jet is left.*2 entries of padded arrays.*'mask'") as error:
            read_jets(path, layout=LAYOUT)
        assert NEGATIVE_MASS not in str(error.value)


def test_lists_of_lists_point_to_the_jets_of_events(tmp_path):
    path, nested = tmp_path / "jets.parquet", [[[1.0], [2.0, 3.0]], [[4.0]]]
    parquet.write_table(pa.table(dict.fromkeys(POLAR, nested) | {"label": [0, 1]}), path)
    with pytest.raises(ValueError, match=r"must hold lists .* not lists of lists of float64; name .* in 'jets'"):
        read_jets(path, layout=LAYOUT)

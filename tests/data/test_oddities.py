"""What `zoo data info` finds odd, trainings say too."""

import dataclasses
import warnings

import numpy as np
import pytest

from zoo.data import JetDataModule
from zoo.data.datamodule import Split
from zoo.data.odd_jets import OddJetsWarning
from zoo.data.oddities import find_oddities
from zoo.data.store import MOMENTUM_COLUMNS, write_store


def scaled(table, factor):
    particles = {name: values * np.float32(factor) for name, values in table.particles.items()}
    return dataclasses.replace(table, particles=particles)


@pytest.fixture
def fit(tmp_path):
    """Function that writes tables, and reads them as a training."""

    def fit(*tables):
        files = [str(tmp_path / f"{number}.arrow") for number in range(len(tables))]
        for file, table in zip(files, tables, strict=True):
            write_store(file, table)
        JetDataModule(train=Split(files)).setup("fit")

    return fit


def test_a_training_on_mev_called_gev_is_told(fit, make_table):
    with pytest.warns(
        OddJetsWarning, match=r"train: odd: a typical jet has .* GeV of transverse momentum: is the file in MeV"
    ):
        fit(scaled(make_table(40), 1000))


def test_good_jets_are_not_odd(fit, make_table):
    with warnings.catch_warnings():
        warnings.simplefilter("error", OddJetsWarning)
        fit(make_table(40))


def test_one_file_in_another_unit(fit, make_table):
    first, second = make_table(40), scaled(make_table(80), 1000).slice(40, 80)
    with pytest.warns(OddJetsWarning, match=r"GeV .* in .*0.arrow, .* in .*1.arrow: are they in the same unit\?"):
        fit(first, second)


def test_columns_that_no_feature_uses_do_not_matter(fit, make_table):
    table = make_table(40)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OddJetsWarning)
        fit(dataclasses.replace(table, fields=table.fields | {"constant": np.full(40, 3.0)}))


def test_columns_that_features_use_are_looked_at_but_not_flags_of_rare_particles(make_table, tmp_path):
    table = make_table(40)
    zeros = np.zeros(table.offsets[-1], np.float32)
    names = ("part_charge", "part_isChargedHadron", "part_isNeutralHadron", "part_isPhoton", "part_isElectron")
    flags = {name: zeros.astype(np.uint8) for name in (*names[1:], "part_isMuon")}
    write_store(
        tmp_path / "jets.arrow", dataclasses.replace(table, particles=table.particles | flags | {names[0]: zeros})
    )
    datamodule = JetDataModule(features="kinpid", train=Split([str(tmp_path / "jets.arrow")]))
    with pytest.warns(OddJetsWarning, match=r"^train: odd: the column 'part_charge' is 0 everywhere$"):
        datamodule.setup("fit")


def test_padding_in_files_of_the_zoo(make_table):
    """Which earlier versions wrote when they read zero-padded lists."""
    table = make_table(40)
    for name in MOMENTUM_COLUMNS:
        table.particles[name][3:10] = 0
    (oddity,) = find_oddities(table)
    assert oddity.startswith(f"7 of {table.offsets[-1]} particles have neither momentum nor energy")

"""Frozen facts about the data sets: classes in order, units, origin, and the packaged samples."""

import dataclasses
import difflib
import glob
import importlib.resources
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.data.manifest import folder_of, read_manifest
from zoo.data.remote import fetch, is_remote

SAMPLE_PREFIX = "sample:"

#: Fields of a table whose file gives the momentum of each jet, which may differ from the sum of the jet's particles.
JET_COLUMNS = ("jet_pt", "jet_eta", "jet_phi", "jet_energy")


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file that `zoo data download` fetches: its name, where it is, its MD5 as published, and its size if known."""

    name: str
    url: str
    md5: str
    size: int | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Facts about one data set.

    Args:
        name: name in configurations and file metadata.
        classes: class names; a jet's label is an index into them.
        label_columns: columns of the label in the source files: one of indices, or one of 0 and 1 for each class.
        units: unit of momenta and energies in a table of these jets.
        max_particles: largest number of constituents of a jet in the source files, None if it is not fixed.
        jets: number of rows of each source file, or of each part of many files.
        source: where the files are.
        citation: paper.
        licence: licence of the files.
        file_units: unit of momenta and energies in the source files.
        conditions: which jets these are and how they were simulated; empty if not known here.
        files: the files that can be downloaded, with checksums.
        rows: what the rows are, ``jets`` or ``events``, as reports call them.
    """

    name: str
    classes: tuple[str, ...]
    label_columns: tuple[str, ...]
    units: str
    max_particles: int | None
    jets: tuple[tuple[str, int], ...]
    source: str
    citation: str
    licence: str
    file_units: str = "GeV"
    conditions: str = ""
    files: tuple[RemoteFile, ...] = ()
    rows: str = "jets"

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of a table of these jets."""
        return {"dataset": self.name, "classes": list(self.classes), "units": self.units}


_JETCLASS = ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")

#: Classes of JetClass-II in the order of ``jet_label``, named as in the Sophon release less ``label_``: q is u or d, m
#: a muon, v a neutrino; tauhtaue are a tau that decays into hadrons and one into an electron. A test compares the 60 of
#: the 188 that are in the public example with the partons that it stores.
_JETCLASS2 = """
X_bb X_cc X_ss X_qq X_bc X_cs X_bq X_cq X_sq X_gg X_ee X_mm X_tauhtaue X_tauhtaum X_tauhtauh X_YY_bbbb X_YY_bbcc
X_YY_bbss X_YY_bbqq X_YY_bbgg X_YY_bbee X_YY_bbmm X_YY_bbtauhtaue X_YY_bbtauhtaum X_YY_bbtauhtauh X_YY_bbb X_YY_bbc
X_YY_bbs X_YY_bbq X_YY_bbg X_YY_bbe X_YY_bbm X_YY_cccc X_YY_ccss X_YY_ccqq X_YY_ccgg X_YY_ccee X_YY_ccmm
X_YY_cctauhtaue X_YY_cctauhtaum X_YY_cctauhtauh X_YY_ccb X_YY_ccc X_YY_ccs X_YY_ccq X_YY_ccg X_YY_cce X_YY_ccm
X_YY_ssss X_YY_ssqq X_YY_ssgg X_YY_ssee X_YY_ssmm X_YY_sstauhtaue X_YY_sstauhtaum X_YY_sstauhtauh X_YY_ssb X_YY_ssc
X_YY_sss X_YY_ssq X_YY_ssg X_YY_sse X_YY_ssm X_YY_qqqq X_YY_qqgg X_YY_qqee X_YY_qqmm X_YY_qqtauhtaue X_YY_qqtauhtaum
X_YY_qqtauhtauh X_YY_qqb X_YY_qqc X_YY_qqs X_YY_qqq X_YY_qqg X_YY_qqe X_YY_qqm X_YY_gggg X_YY_ggee X_YY_ggmm
X_YY_ggtauhtaue X_YY_ggtauhtaum X_YY_ggtauhtauh X_YY_ggb X_YY_ggc X_YY_ggs X_YY_ggq X_YY_ggg X_YY_gge X_YY_ggm
X_YY_bee X_YY_cee X_YY_see X_YY_qee X_YY_gee X_YY_bmm X_YY_cmm X_YY_smm X_YY_qmm X_YY_gmm X_YY_btauhtaue
X_YY_ctauhtaue X_YY_stauhtaue X_YY_qtauhtaue X_YY_gtauhtaue X_YY_btauhtaum X_YY_ctauhtaum X_YY_stauhtaum
X_YY_qtauhtaum X_YY_gtauhtaum X_YY_btauhtauh X_YY_ctauhtauh X_YY_stauhtauh X_YY_qtauhtauh X_YY_gtauhtauh X_YY_qqqb
X_YY_qqqc X_YY_qqqs X_YY_bbcq X_YY_ccbs X_YY_ccbq X_YY_ccsq X_YY_sscq X_YY_qqbc X_YY_qqbs X_YY_qqcs X_YY_bcsq
X_YY_bcs X_YY_bcq X_YY_bsq X_YY_csq X_YY_bcev X_YY_csev X_YY_bqev X_YY_cqev X_YY_sqev X_YY_qqev X_YY_bcmv X_YY_csmv
X_YY_bqmv X_YY_cqmv X_YY_sqmv X_YY_qqmv X_YY_bctauev X_YY_cstauev X_YY_bqtauev X_YY_cqtauev X_YY_sqtauev
X_YY_qqtauev X_YY_bctaumv X_YY_cstaumv X_YY_bqtaumv X_YY_cqtaumv X_YY_sqtaumv X_YY_qqtaumv X_YY_bctauhv X_YY_cstauhv
X_YY_bqtauhv X_YY_cqtauhv X_YY_sqtauhv X_YY_qqtauhv QCD_bbccss QCD_bbccs QCD_bbcc QCD_bbcss QCD_bbcs QCD_bbc
QCD_bbss QCD_bbs QCD_bb QCD_bccss QCD_bccs QCD_bcc QCD_bcss QCD_bcs QCD_bc QCD_bss QCD_bs QCD_b QCD_ccss QCD_ccs
QCD_cc QCD_css QCD_cs QCD_c QCD_ss QCD_s QCD_light
"""

#: MD5 sums of ``QG_jets.npz`` and ``QG_jets_1.npz`` to ``QG_jets_19.npz``, as the EnergyFlow package compares them.
_QUARK_GLUON_MD5 = """
f5d052f10a79c6e8b9382637aca0ef52 f6a1081c76a47386bc11abcf0e499552 2628367c57ba598f4473c870d1381041
dd3ad998b0a1bd9acea2ecf029a8a921 a56d6bb98361b55382aa8c06225e05d8 266c688e9e6ff1cd20840692d45eaaf8
95a9f7e555fb7b1073967056b9030b11 4ae72aaabe121bd489532c99a6bdde95 a2b80bd4199468fde4f302d346a8c9d8
1157cbace488c70c9dcfc250f3345b06 4b424b553e1e7f852e47ea9904bc2dcf ccd29c9d1abb34dd7cfb48cfc57a9695
1ed1f6f19fb8439c9811dced41d5127d af45818c361e11ca9b3adaba30db06ad 488ced3ea409d7e2b196da67f7d182ec
c5e083019de6cd6a0ef12bcec1ea566b 48605d55edff665f0c7d2f800b5a622e 8fd47760957b5fd9adec9048b50cd1a9
d43d611484b55391e891ba31c605f792 6753508e34014cc69714a01fca20ec38
"""
_ZENODO = "https://zenodo.org/records/{record}/files/{name}?download=1"


def _on_zenodo(record: int, name: str, md5: str, size: int | None = None) -> RemoteFile:
    return RemoteFile(name, _ZENODO.format(record=record, name=name), md5, size)


#: MD5 of the archives of JetClass as published beside them.
_JETCLASS_ARCHIVES = {
    "train_100M_part0": "de4fd2dca2e68ab3c85d5cfd3bcc65c3",
    "train_100M_part1": "9722a359c5ef697bea0fbf79bf50f003",
    "train_100M_part2": "1e9f66cd1f915f9d10e90ae1d7761720",
    "train_100M_part3": "47348fc8985319fa4806da87500482fa",
    "train_100M_part4": "6b0ce16bd93b442a8d51914466990279",
    "train_100M_part5": "416e347512e716de51d392bee327b8e9",
    "train_100M_part6": "e9b9c1557b1b39bf0a16e4ab631ae451",
    "train_100M_part7": "5bfc6cb285ccb7680cefa9ac82ad1a2e",
    "train_100M_part8": "540c1a0d66dfad78d2b363c5740ccf86",
    "train_100M_part9": "668f40b3275167ff7104c48317c0ae2a",
    "val_5M": "7235ccb577ed85023ea3ab4d5e6160cf",
    "test_20M": "64e5156d26d101adeb43b8388207d767",
}

DATASETS = {
    "top_tagging": Dataset(
        name="top_tagging",
        classes=("qcd", "top"),
        label_columns=("is_signal_new",),
        units="GeV",
        max_particles=200,
        jets=(("train.h5", 1_211_000), ("val.h5", 403_000), ("test.h5", 404_000)),
        source="https://zenodo.org/records/2603256",
        citation="Kasieczka et al., The Machine Learning Landscape of Top Taggers (2019), arXiv:1902.09914",
        licence="CC-BY-4.0",
        conditions="anti-kT jets with R = 0.8, transverse momentum of 550 to 650 GeV and |eta| < 2 in collisions at "
        "14 TeV, by Pythia 8 without multiple interactions and pile-up and Delphes with its ATLAS card",
        files=(
            _on_zenodo(2603256, "train.h5", "45663819f47c13724f67eb0fd80bfa5c", 1_038_496_555),
            _on_zenodo(2603256, "val.h5", "dca4b7248027618f041f9baa86d360fc", 347_378_076),
            _on_zenodo(2603256, "test.h5", "13163479dee30a5fe546e4536cc3d04d", 347_849_376),
        ),
    ),
    "jetclass": Dataset(
        name="jetclass",
        classes=_JETCLASS,
        label_columns=tuple(f"label_{name}" for name in _JETCLASS),
        units="GeV",
        max_particles=None,
        jets=(("train_100M", 100_000_000), ("val_5M", 5_000_000), ("test_20M", 20_000_000)),
        source="https://zenodo.org/records/6619768",
        citation="Qu, Li and Qian, Particle Transformer for Jet Tagging (2022), arXiv:2202.03772",
        licence="CC-BY-4.0",
        conditions="anti-kT jets with R = 0.8, transverse momentum of 500 to 1000 GeV and |eta| < 2 in collisions at "
        "13 TeV, by MadGraph, Pythia 8 and Delphes with its CMS card, without pile-up",
        files=tuple(
            _on_zenodo(6619768, f"JetClass_Pythia_{name}.tar", md5) for name, md5 in _JETCLASS_ARCHIVES.items()
        ),
    ),
    "jetclass2": Dataset(
        name="jetclass2",
        classes=tuple(_JETCLASS2.split()),
        label_columns=("jet_label",),
        units="GeV",
        max_particles=None,
        jets=(("Res2P", 30_000_000), ("Res34P", 129_000_000), ("QCD", 42_000_000)),
        source="https://huggingface.co/datasets/jet-universe/jetclass2",
        citation="Li et al., Accelerating Resonance Searches via Signature-Oriented Pre-training, arXiv:2405.12972",
        licence="MIT",
    ),
    "quark_gluon": Dataset(
        name="quark_gluon",
        classes=("gluon", "quark"),
        label_columns=("y",),
        units="GeV",
        max_particles=None,
        jets=(("QG_jets*.npz", 2_000_000), ("QG_jets_withbc_*.npz", 2_000_000)),
        source="https://zenodo.org/records/3164691",
        citation="Komiske, Metodiev and Thaler, Energy Flow Networks (2018), arXiv:1810.05165",
        licence="CC-BY-4.0",
        conditions="anti-kT jets with R = 0.4, transverse momentum of 500 to 550 GeV and |rapidity| < 1.7 in "
        "collisions at 14 TeV, by Pythia 8 without a detector",
        files=tuple(
            _on_zenodo(3164691, f"QG_jets{f'_{number}' if number else ''}.npz", md5)
            for number, md5 in enumerate(_QUARK_GLUON_MD5.split())
        ),
    ),
    "hls4ml": Dataset(
        name="hls4ml",
        classes=("g", "q", "w", "z", "t"),
        label_columns=("j_g", "j_q", "j_w", "j_z", "j_t"),
        units="GeV",
        max_particles=150,
        jets=(("train", 620_000), ("val", 260_000)),
        source="https://zenodo.org/records/3602260",
        citation="Moreno et al., JEDI-net: a jet identification algorithm based on interaction networks (2019), "
        "arXiv:1908.05318",
        licence="CC-BY-4.0",
    ),
    "jetnet": Dataset(
        name="jetnet",
        classes=("g", "q", "t", "w", "z"),
        label_columns=(),
        units="GeV",
        max_particles=150,
        jets=(
            ("g.hdf5", 177_252),
            ("q.hdf5", 170_679),
            ("t.hdf5", 177_945),
            ("w.hdf5", 177_172),
            ("z.hdf5", 176_952),
        ),
        source="https://zenodo.org/records/6975118",
        citation="Kansal et al., Particle Cloud Generation with Message Passing GANs (2021), arXiv:2106.11535",
        licence="CC-BY-4.0",
        files=(
            _on_zenodo(6975118, "g.hdf5", "4f537329da897a22a59762c9fd8b74da"),
            _on_zenodo(6975118, "q.hdf5", "0ede789774bb74d4795c5d19d7ef66c6"),
            _on_zenodo(6975118, "t.hdf5", "6c9d0663b352c85f74fcd2553e6872bf"),
            _on_zenodo(6975118, "w.hdf5", "16cc265cb039f76bba43bab408916e3e"),
            _on_zenodo(6975118, "z.hdf5", "90ffacd034dc87c802bc43385af9fea3"),
        ),
    ),
    "lhc_olympics": Dataset(
        name="lhc_olympics",
        classes=("background", "signal"),
        label_columns=("label",),
        units="GeV",
        max_particles=700,
        jets=(("events_anomalydetection.h5", 1_100_000),),
        source="https://zenodo.org/records/6466204",
        citation="Kasieczka et al., The LHC Olympics 2020 (2021), arXiv:2101.08320",
        licence="CC-BY-4.0",
    ),
    "four_tops": Dataset(
        name="four_tops",
        classes=("ttH", "ttW", "ttWW", "ttZ", "tttt"),
        label_columns=("process",),
        units="GeV",
        max_particles=None,
        jets=(),
        source="https://zenodo.org/records/3685861",
        citation="Builtjes et al., Attention to the strengths of physical interactions (2022), arXiv:2211.05143",
        licence="CC-BY-4.0",
        file_units="MeV",
        conditions="events of any origin in the format of that set; the files stand in the settings, and the packaged "
        "sample was made with Sherpa (CC0) and is not of that set",
        rows="events",
    ),
}


def describe_dataset(name: str) -> Dataset:
    """The facts about the data set called ``name``.

    Raises:
        ValueError: if there is none; the message suggests the closest ones.

    Example:
        >>> describe_dataset("top_tagging").classes
        ('qcd', 'top')
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1) or list(DATASETS)
        raise ValueError(f"dataset: no data set is called {name!r}; did you mean {', '.join(close)}?")
    return DATASETS[name]


def resolve_file(name: str | Path) -> Path:
    """Path of a file or of a converted folder; ``sample:top_tagging/train`` names a sample inside the package.

    A file at an address such as ``https://`` or ``root://`` is downloaded once, see `zoo.data.remote`.

    Raises:
        FileNotFoundError: if there is no such file or sample, or a folder is not converted; the message says what to
            do.
        ValueError: if the manifest of a folder is damaged.
    """
    if is_remote(name):
        return fetch(str(name))
    if not str(name).startswith(SAMPLE_PREFIX):
        path = Path(name).expanduser()
        if folder := folder_of(path):
            read_manifest(folder)
            return folder
        if not path.is_file():
            raise FileNotFoundError(f"files: {path} is not a file; {_remedy(path)}")
        return path
    sample = str(name).removeprefix(SAMPLE_PREFIX)
    folder = importlib.resources.files("zoo.data") / "samples"
    path = Path(str(folder / f"{sample.replace('/', '_')}.arrow"))
    if not path.is_file():
        there = ", ".join(_sample_names(path.parent)) or "none; make jets with 'zoo simulate'"
        raise FileNotFoundError(f"files: this installation has no sample {name!r}; it has: {there}")
    return path


def resolve_files(names: Sequence[str | Path]) -> list[Path]:
    """Resolved paths of files and folders in order; those of a pattern such as ``jets/*.root`` are sorted by name.

    A pattern or path may follow a name, as in weaver's ``QCD:jets/QCD_*.root``; the name is ignored.

    Raises:
        FileNotFoundError: as `resolve_file`, and if no file matches a pattern.
        ValueError: if a file is named twice.
    """
    paths = [resolve_file(file).resolve() for name in names for file in expand_pattern(name)]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"files: {path} is named twice, also by a pattern; name it once")
    return paths


def expand_pattern(name: str | Path) -> list[str]:
    """The files that match a pattern, sorted by name; a name that is no pattern is returned as it is.

    Raises:
        FileNotFoundError: if no file matches.
    """
    name = str(name)
    if is_remote(name):
        return [name]
    group = _GROUP.match(name)
    if group and not name.startswith(SAMPLE_PREFIX) and not Path(name).exists():
        return expand_pattern(name[group.end() :])
    pattern = str(Path(name).expanduser())
    if not glob.has_magic(pattern) or Path(pattern).exists():
        return [name]
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise FileNotFoundError(f"files: no file fits the pattern {name!r}; correct it")
    return found


def _remedy(path: Path) -> str:
    if ":" in "".join(path.parts[:1]):
        return "an address is given as text, as a path has but one of its slashes"
    if len(path.parts) > 2 and path.parts[0] == "data" and (facts := DATASETS.get(path.parts[1])):
        fetched = f"'zoo data download {facts.name}', or " if facts.files else ""
        return f"put it there with {fetched}'zoo data link {facts.name} FILE'"
    return f"give a path that exists or a name like {_EXAMPLE}"


#: A name before a pattern, as weaver writes it, but not an address such as ``root://``.
_GROUP = re.compile(r"\w+:(?!//)")

_EXAMPLE = f"{SAMPLE_PREFIX}top_tagging/train"


def _sample_names(folder: Path) -> list[str]:
    stems = (path.stem.rsplit("_", 1) for path in sorted(folder.glob("*_*.arrow")))
    return [f"{SAMPLE_PREFIX}{dataset}/{split}" for dataset, split in stems]

import pytest

from zoo.data.formats.layout import Layout
from zoo.data.formats.layout_yaml import read_layout

FULL = """
name: mine
tree: Events
units: MeV
classes: [qcd, top]
momenta: {pt: PFCands_pt, eta: PFCands_eta, phi: PFCands_phi, mass: PFCands_mass}
particles: {part_charge: PFCands_charge}
fields: [event, run]
label: flavour
label_values: [0, 6]
weight: genWeight
mask: PFCands_valid
max_particles: 150
"""

SHORT = """
units: GeV
classes: [qcd, top]
momenta: {px: px, py: py, pz: pz}
label: {"TT*.root": top, "QCD*.root": qcd}
"""


@pytest.fixture
def write(tmp_path):
    """Function that writes text as a layout."""

    def write(text):
        (tmp_path / "mine.yaml").write_text(text)
        return tmp_path / "mine.yaml"

    return write


def test_all_keys(write):
    assert read_layout(write(FULL)) == Layout(
        name="mine",
        tree="Events",
        units="MeV",
        classes=("qcd", "top"),
        momenta={"pt": "PFCands_pt", "eta": "PFCands_eta", "phi": "PFCands_phi", "mass": "PFCands_mass"},
        particles={"part_charge": "PFCands_charge"},
        fields={"event": "event", "run": "run"},
        label="flavour",
        label_values=(0, 6),
        weight="genWeight",
        mask="PFCands_valid",
        max_particles=150,
    )


def test_several_values_of_one_class(write):
    text = FULL.replace("[0, 6]", "{0: qcd, 21: qcd, 6: top}")
    assert read_layout(write(text)).label_values == {0: "qcd", 21: "qcd", 6: "top"}


def test_few_keys(write):
    layout = read_layout(str(write(SHORT)))
    assert layout.name == "mine"
    assert layout.label == {"TT*.root": "top", "QCD*.root": "qcd"}
    assert read_layout(write(SHORT.replace('{"TT*.root": top, "QCD*.root": qcd}', "[is_qcd, is_top]"))).label == (
        "is_qcd",
        "is_top",
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("units: GeV", "unit: GeV", r"there is no key 'unit'; did you mean 'units'\?"),
        ("units: GeV", "units: GeV\nfoo: 1", "there is no key 'foo'; found bad_particles, classes, fields"),
        ("units: GeV", "", "the key 'units' is missing; a layout has at least units, classes, momenta, label"),
        ("units: GeV", "units: GeV\nunits: MeV", "the key 'units' is given twice"),
        ("px: px", "px: px, px: py", "the key 'px' is given twice"),
        ("[qcd, top]", "[on, top]", "classes: must be a string, not True; put quotes"),
        ("[qcd, top]", "qcd", "classes: must be a list of strings, not 'qcd'"),
        ("px: px", "px: 3", "momenta.px: must be a string, not 3"),
        ("{px: px, py: py, pz: pz}", "[px, py, pz]", "momenta: must be a mapping of names to columns or values, not"),
        ("units: GeV", "units: GeV\nmax_particles: many", "max_particles: must be a whole number, not 'many'"),
        ("units: GeV", "units: GeV\nlabel_values: 5", "label_values: must be a list of whole numbers or a .*, not 5"),
        ("units: GeV", "units: GeV\nlabel_values: {0.5: qcd}", "label_values: must be a whole number, not 0.5"),
        ("units: GeV", "units: GeV\nname: jetclass", "name: 'jetclass' is a data set of the zoo; add a 'name' of your"),
        ("units: GeV", "units: TeV", "units: must be GeV or MeV, not 'TeV'"),
        ("units: GeV", "units: [GeV", "while parsing a flow sequence"),
        ("units: GeV", "units: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_mistakes_are_named(write, old, new, message):
    assert old in SHORT
    with pytest.raises(ValueError, match=rf"(?s)mine.yaml: .*{message}"):
        read_layout(write(SHORT.replace(old, new)))


def test_something_else_than_a_mapping(write):
    with pytest.raises(ValueError, match=r"mine.yaml: a layout is a mapping with the keys name, classes"):
        read_layout(write("- a\n"))
    with pytest.raises(FileNotFoundError):
        read_layout("absent.yaml")


def test_a_data_file_of_weaver_is_told_apart(write):
    with pytest.raises(ValueError, match=r"mine.yaml: a data file of weaver is no layout; give it as weaver_yaml"):
        read_layout(write("treename: tree\ninputs: {}\nlabels: {type: simple, value: [a, b]}\n"))


def test_labels_may_be_left_out_where_none_are_needed(write):
    text = "units: GeV\nmomenta: {px: px, py: py, pz: pz}\n"
    layout = read_layout(write(text), labelled=False)
    assert (layout.label, layout.classes, layout.label_columns) == (None, (), ())
    assert read_layout(write(SHORT), labelled=False) == read_layout(write(SHORT))
    with pytest.raises(ValueError, match="the key 'classes' is missing"):
        read_layout(write(text))
    with pytest.raises(ValueError, match="the key 'units' is missing; a layout has at least units, momenta"):
        read_layout(write(text.replace("units: GeV", "")), labelled=False)
    with pytest.raises(ValueError, match="label_values: belong to a label in one column"):
        read_layout(write(f"{text}label_values: [0, 1]\n"), labelled=False)

"""What an installed package says of itself: its name and its version."""

import configparser
import re
from pathlib import Path

import zoo
from zoo.limits import parse_yaml

ROOT = Path(zoo.__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
EXTRAS = SETUP["options.extras_require"]


def test_messages_and_docs_name_the_distribution():
    """``zoo`` on the package index is another project."""
    files = [*ROOT.glob("zoo/**/*.py"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.py"), ROOT / "README.md"]
    found = set()
    for path in files:
        text = path.read_text()
        assert not re.search(r"pip install[^\n]*\bzoo\b", text), path
        found |= {(path.name, extra) for extra in re.findall(r"pip install 'hepzoo\[(\w+)\]'", text)}
        if path.suffix == ".py":
            assert not re.search(r"pip install[^\n]*'\.\[", text), f"{path} names extras of a checkout"
    assert {extra for _, extra in found} <= set(EXTRAS)
    assert {"generator.py", "hf.py", "boosted_trees.py", "remote.py", "convert.py"} <= {name for name, _ in found}


def test_the_version_has_one_source():
    assert SETUP["metadata"]["name"] == "hepzoo"
    assert SETUP["metadata"]["version"] == "attr: zoo.__version__"
    assert parse_yaml((ROOT / "CITATION.cff").read_text())["version"] == zoo.__version__

"""The documentation as a site: it builds without a warning, and says what the registry and the files of results say."""

import csv
import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zoo

pytest.importorskip("material", reason="needs the extra 'docs'")
pytest.importorskip("mkdocstrings", reason="needs the extra 'docs'")

ROOT = Path(zoo.__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    build = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    return out


def test_every_model_is_listed_with_its_paper(site):
    page = (site / "all_models.html").read_text().replace("<wbr>", "")
    for name in zoo.list_models():
        number = zoo.registry.model_facts(name).paper.id.removeprefix("arXiv:")
        row = re.search(rf"<tr>\s*<td><a [^>]*><code>{name}</code>.*?</tr>", page, re.DOTALL)
        assert row, name
        assert number in row[0], name


@pytest.mark.parametrize("name", ["trained_real", "trained_sample", "few_labels", "four_tops", "four_tops_few_labels"])
def test_every_result_is_shown_with_its_error(site, name):
    page = (site / "results.html").read_text()
    with open(ROOT / "benchmarks" / "results" / f"{name}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        first = rf"<tr>\s*<td>(?:<code>)?{re.escape(html.escape(row['model']))}(?:</code>)?</td>"
        shown = " ".join(re.findall(first + r".*?</tr>", page, re.DOTALL))
        auc, error = float(row["auc"]), float(row["auc_spread"] or row["auc_error"])
        decimals = {len(value.partition(".")[2]) for value in re.findall(r"0\.\d+", shown)}
        assert any(f"{auc:.{places}f} ± {error:.{places}f}" in shown for places in decimals), row["model"]


def test_pages_fetch_nothing_and_formulas_are_drawn(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        content = page.read_text()
        assert not re.search(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(?:https?:)?//', content), page
        assert ".. math::" not in content, page
        assert ":math:" not in content, page
        assert "arithmatex" not in content, page
    assert "<mfrac>" in (site / "reference" / "zoo.physics.html").read_text()

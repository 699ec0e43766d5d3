"""What docs/deployment.md says works as it stands there."""

import re
import shlex
from pathlib import Path

import onnxruntime

from zoo.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()


def test_the_page_from_the_command_to_the_logits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^zoo (export .*)$", PAGE, flags=re.MULTILINE)
    main(shlex.split(command))
    files = set(re.findall(r"^\| `([\w.]+\.\w+|SHA256SUMS)` \|", PAGE, flags=re.MULTILINE))
    assert files == {path.name for path in Path("lorentznet_onnx").iterdir()}
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    capsys.readouterr()
    exec(program, {})
    assert re.fullmatch(r"qcd: -?\d+\.\d{3}\ntop: -?\d+\.\d{3}\n", capsys.readouterr().out)
    session = onnxruntime.InferenceSession("lorentznet_onnx/model.onnx")
    rows = dict(re.findall(r"^\| `(features|four_momenta|mask)` \| (\w+) \|", PAGE, flags=re.MULTILINE))
    assert {value.name: value.type for value in session.get_inputs()} == {
        name: f"tensor({kind})" for name, kind in rows.items()
    }

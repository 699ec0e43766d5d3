"""The profile of a model: which operators count as one."""

import pytest

from benchmarks import profile


@pytest.mark.parametrize(
    ("operator", "group"),
    [
        ("aten::addmm", "matrix products"),
        ("mkldnn::_linear_pointwise", "matrix products"),
        ("aten::index_add_", "gathers and sums over groups"),
        ("aten::gelu", "aten::gelu"),
    ],
)
def test_operators_are_grouped_by_their_last_name(operator, group):
    assert profile.group_of(operator) == group


def test_matrix_products_take_most_of_particle_transformer(shared_data, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["profile", "particle_transformer", "--batch-size", "4", "--batches", "1"])
    profile.main()
    inference, training = capsys.readouterr().out.split("particle_transformer, training")
    for task in (inference, training):
        first = next(line for line in task.splitlines() if "%" in line)
        assert "matrix products" in first

"""The representations are irreducible and the Clebsch-Gordan maps are all there are, told by numerical null spaces."""

import itertools

import pytest
import torch
from torch import Tensor

from zoo.lgn.irreps import BASIS, CLEBSCH_GORDAN, COMMUTANT, IRREPS, Coupling, compress, couple, square_couplings
from zoo.physics.lorentz import minkowski_dot, random_lorentz

TRIPLES = [(*pair, out) for pair in itertools.combinations_with_replacement(IRREPS, 2) for out in IRREPS]


def representation(name: str, matrix: Tensor) -> Tensor:
    """How the components of ``name`` transform: as those of the matrices that they stand for."""
    if name == "vector":
        return matrix
    basis = BASIS[name].flatten(1).T
    transformed = (matrix @ BASIS[name] @ torch.linalg.inv(matrix)).flatten(1).T
    solution = torch.linalg.lstsq(basis, transformed).solution
    torch.testing.assert_close(basis @ solution, transformed, rtol=0, atol=1e-10)  # the basis spans what it becomes
    return solution.contiguous()


def generic() -> Tensor:
    """Two transformations; what commutes with both commutes with the whole group, which they generate densely."""
    return random_lorentz(2, gamma=1.3)


def null_dimension(equations: Tensor) -> int:
    return int((torch.linalg.svdvals(equations) < 1e-8).sum())


def commutant_dimension(matrices: list[Tensor]) -> int:
    identity = torch.eye(len(matrices[0]), dtype=torch.float64)
    return null_dimension(
        torch.cat([torch.kron(m, identity) - torch.kron(identity, m.T.contiguous()) for m in matrices])
    )


@pytest.mark.parametrize("name", IRREPS)
def test_components_are_a_representation(name):
    one, two = generic()
    product = representation(name, one) @ representation(name, two)
    assert len(product) == IRREPS[name]
    torch.testing.assert_close(representation(name, one @ two), product, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "dimension"), [("scalar", 1), ("vector", 1), ("bivector", 2), ("tensor", 1)])
def test_representations_are_irreducible(name, dimension):
    """Representations of this group are sums of irreducible ones, each with a commutant of its own.

    So a commutant of dimension 1 leaves no room for a second one; nor does that of the bivector, in which every matrix
    but zero can be inverted, since the square of the dual is -1.
    """
    matrices = [representation(name, matrix) for matrix in generic()]
    assert commutant_dimension(matrices) == dimension == len(COMMUTANT[name])
    for matrix, way in itertools.product(matrices, COMMUTANT[name]):
        torch.testing.assert_close(matrix @ way, way @ matrix, rtol=0, atol=1e-10)
    if name == "bivector":
        torch.testing.assert_close(COMMUTANT[name][1] @ COMMUTANT[name][1], -COMMUTANT[name][0])


def test_a_reducible_representation_would_be_seen():
    """All 4x4 matrices are scalar + bivector + tensor."""
    matrices = [torch.kron(matrix, torch.linalg.inv(matrix).T.contiguous()) for matrix in generic()]
    assert commutant_dimension(matrices) == 1 + 2 + 1


@pytest.mark.parametrize("coupling", CLEBSCH_GORDAN, ids=str)
def test_maps_are_equivariant(coupling):
    coefficients = CLEBSCH_GORDAN[coupling]
    for matrix in generic():
        left, right, out = (representation(name, matrix) for name in coupling[:3])
        after = torch.einsum("po,oab->pab", out, coefficients)
        before = torch.einsum("oab,ac,bd->ocd", coefficients, left, right)
        torch.testing.assert_close(before, after, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("left", "right", "out"), TRIPLES)
def test_maps_are_all_there_are(left, right, out):
    """The maps, followed by the commutant of the output, are a basis of the solutions of the equations above."""
    equations = []
    for matrix in generic():
        pair = torch.kron(representation(left, matrix), representation(right, matrix))
        target = representation(out, matrix)
        identities = [torch.eye(len(side), dtype=torch.float64) for side in (target, pair)]
        equations.append(torch.kron(target, identities[1]) - torch.kron(identities[0], pair.T.contiguous()))
    maps = [
        torch.einsum("po,oab->pab", way, coefficients).flatten()
        for coupling, coefficients in CLEBSCH_GORDAN.items()
        for way in COMMUTANT[out]
        if coupling[:3] == (left, right, out)
    ]
    assert null_dimension(torch.cat(equations)) == len(maps)
    if maps:
        assert torch.linalg.matrix_rank(torch.stack(maps)) == len(maps)


def test_products_by_hand():
    v, w = torch.randn(2, 1, 5, 4, dtype=torch.float64)
    names = [
        Coupling("vector", "vector", "scalar", False, False),
        Coupling("vector", "vector", "bivector", True, False),
    ]
    dot, wedge = couple({"vector": v}, {"vector": w}, names)
    torch.testing.assert_close(4 * dot[..., 0], minkowski_dot(v, w))
    squares = [Coupling("bivector", "bivector", "scalar", False, is_dual) for is_dual in (False, True)]
    plain, dual = couple({"bivector": wedge}, {"bivector": wedge}, squares)
    # With an electric part E and a magnetic part B: E^2 - B^2, and E B, which vanishes for a product of two vectors.
    gram = minkowski_dot(v, w).square() - minkowski_dot(v, v) * minkowski_dot(w, w)
    torch.testing.assert_close(8 * plain[..., 0], gram)
    assert dual.abs().max() < 1e-12


def test_only_antisymmetric_squares_vanish():
    activations = {name: torch.randn(1, 3, dim, dtype=torch.float64) for name, dim in IRREPS.items()}
    vanishing = [coupling for coupling in CLEBSCH_GORDAN if coupling.is_antisymmetric]
    assert len(vanishing) == 4
    assert all(result.abs().max() < 1e-12 for result in couple(activations, activations, vanishing))
    kept = square_couplings(list(IRREPS), list(IRREPS))
    assert len(kept) + len(vanishing) == len(CLEBSCH_GORDAN)
    assert all(result.abs().max() > 1e-3 for result in couple(activations, activations, kept))


@pytest.mark.parametrize("name", ["vector", "bivector", "tensor"])
def test_compression_is_equivariant_and_bounds_invariants(name):
    values = 1e6 * torch.randn(2, 3, IRREPS[name], dtype=torch.float64)
    matrix = representation(name, random_lorentz(gamma=2.0))
    small = compress({name: values})[name]
    torch.testing.assert_close(compress({name: values @ matrix.T})[name], small @ matrix.T, rtol=1e-9, atol=0)
    invariants = couple({name: small}, {name: small}, square_couplings([name], ["scalar"]))
    assert max(invariant.abs().max() for invariant in invariants) < 1 + 1e-9
    tiny = 1e-6 * values / 1e6
    torch.testing.assert_close(compress({name: tiny})[name], tiny)

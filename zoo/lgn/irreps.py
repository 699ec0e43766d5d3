r"""Irreducible real representations of SO+(1,3) up to weight 2, and the Clebsch-Gordan maps between them.

======== ============== ========= ===============================================================
name     (k, n)         dimension what it is
======== ============== ========= ===============================================================
scalar   (0,0)          1         number
vector   (1,1)          4         four-vector :math:`v^\mu`
bivector (2,0) + (0,2)  6         antisymmetric :math:`B^{\mu\nu}`, such as the electromagnetic field
tensor   (2,2)          9         symmetric traceless :math:`T^{\mu\nu}`
======== ============== ========= ===============================================================

With their second index lowered, scalar, bivector and tensor are the three parts of a 4x4 matrix :math:`M^\mu{}_\nu`,
on which a transformation acts as :math:`\Lambda M \Lambda^{-1}`. So matrix algebra gives every Clebsch-Gordan map: two
matrices couple by their product, a matrix and a vector by :math:`M v`, two vectors by :math:`v \, (\eta w)^T`, each
followed by the projection on the wanted representation.

References:
    Lorentz Group Equivariant Neural Network for Particle Physics (2020), arXiv:2006.04780.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels.mode import use_reference
from zoo.physics.lorentz import METRIC

#: Dimension of each representation.
IRREPS = {"scalar": 1, "vector": 4, "bivector": 6, "tensor": 9}

#: Activations: for each representation (channel, ..., component), for instance (channel, node, component).
Irreps = dict[str, Tensor]


class Coupling(NamedTuple):
    """One Clebsch-Gordan map; ``left`` stands before or at ``right`` in `IRREPS`."""

    left: str
    right: str
    out: str
    is_antisymmetric: bool  #: whether exchanging the two factors flips the sign, so that a square vanishes
    is_dual: bool  #: whether the (first) bivector is replaced by its dual


def _matrix_basis() -> Irreps:
    """Bases (component, 4, 4) of mixed matrices, orthogonal in the trace of the product, which is 4 or +-2."""
    metric = torch.diag(torch.tensor(METRIC, dtype=torch.float64))

    def unit(row: int, column: int) -> Tensor:
        matrix = torch.zeros(4, 4, dtype=torch.float64)
        matrix[row, column] = 1
        return matrix

    def diagonal(*entries: float) -> Tensor:
        vector = torch.tensor(entries, dtype=torch.float64)
        return torch.diag(vector) * (2 / vector.square().sum()).sqrt()

    boosts = [unit(0, axis) - unit(axis, 0) for axis in (1, 2, 3)]
    rotations = [unit(3, 2) - unit(2, 3), unit(1, 3) - unit(3, 1), unit(2, 1) - unit(1, 2)]
    symmetric = [unit(a, b) + unit(b, a) for a in range(4) for b in range(a + 1, 4)]
    traceless = [diagonal(3, 1, 1, 1), diagonal(0, 1, -1, 0), diagonal(0, 1, 1, -2)]
    return {
        "scalar": torch.eye(4, dtype=torch.float64)[None],
        "bivector": torch.stack(boosts + rotations) @ metric,
        "tensor": torch.stack(symmetric + traceless) @ metric,
    }


#: Matrices that the components of a representation stand for, (component, 4, 4).
BASIS = _matrix_basis()

#: Matrices that commute with the group, (way, component, component) for (way, out, in): multiples of the identity, and
#: for bivectors also those of the dual, which makes them complex vectors E + iB and their mixing weights complex.
COMMUTANT = {name: torch.eye(dim, dtype=torch.float64)[None] for name, dim in IRREPS.items()}
COMMUTANT["bivector"] = torch.stack(
    [COMMUTANT["bivector"][0], torch.cat([-COMMUTANT["bivector"][0, 3:], COMMUTANT["bivector"][0, :3]])]
)


def _couple_bases(left: str, right: str, out: str) -> Tensor | None:
    """Coefficients (out, left, right) of the product in matrix algebra, None if these do not couple."""
    vectors = [left, right, out].count("vector")
    if vectors == 0:
        product = torch.einsum("apq,bqr->abpr", BASIS[left], BASIS[right])
    elif vectors == 2 and out != "vector":
        lowered = torch.diag(torch.tensor(METRIC, dtype=torch.float64))
        product = torch.einsum("ap,br->abpr", torch.eye(4, dtype=torch.float64), lowered)
    elif vectors == 2:
        return BASIS[left].permute(1, 0, 2) if right == "vector" else BASIS[right].permute(1, 2, 0)
    else:
        return None
    norms = torch.einsum("opq,oqp->o", BASIS[out], BASIS[out])
    coefficients = torch.einsum("opq,abqp->oab", BASIS[out], product) / norms[:, None, None]
    return coefficients if coefficients.abs().max() > 1e-12 else None


def _clebsch_gordan() -> dict[Coupling, Tensor]:
    maps = {}
    names = list(IRREPS)
    for left in names:
        for right in names[names.index(left) :]:
            for out in names:
                plain = _couple_bases(left, right, out)
                if plain is None:
                    continue
                ways = [plain]
                dual = COMMUTANT["bivector"][1]
                if out != "bivector" and left == "bivector":
                    ways.append(torch.einsum("oab,ac->ocb", plain, dual))
                elif out != "bivector" and right == "bivector":
                    ways.append(torch.einsum("oab,bc->oac", plain, dual))
                for is_dual, way in enumerate(ways):
                    is_antisymmetric = left == right and torch.allclose(way, -way.mT)
                    maps[Coupling(left, right, out, is_antisymmetric, bool(is_dual))] = way
    return maps


#: Coefficients (out, left, right) of every map. Followed by `COMMUTANT` of the output they are a basis of all bilinear
#: equivariant maps between these representations.
CLEBSCH_GORDAN = _clebsch_gordan()


def on_device(coupling: Coupling, device: torch.device) -> Tensor:
    """Coefficients as a matrix (left * right, out) on a device; float64, which as a buffer a module could round."""
    # Tensors made while a model is traced belong to that trace and must not be kept.
    return (_on_device.__wrapped__ if use_reference() else _on_device)(coupling, device)


@cache
def _on_device(coupling: Coupling, device: torch.device) -> Tensor:
    return CLEBSCH_GORDAN[coupling].flatten(1).T.contiguous().to(device)


def square_couplings(names: list[str], outputs: list[str]) -> list[Coupling]:
    """Maps of the product of an activation with itself, for which antisymmetric maps vanish."""
    return [c for c in CLEBSCH_GORDAN if {c.left, c.right} <= {*names} and c.out in outputs and not c.is_antisymmetric]


def vector_couplings(names: list[str], outputs: list[str]) -> list[Coupling]:
    """Maps of the product of a four-vector with an activation."""
    return [
        c
        for c in CLEBSCH_GORDAN
        if c.out in outputs and any((c.left, c.right) in (("vector", name), (name, "vector")) for name in names)
    ]


def couple(left: Irreps, right: Irreps, couplings: list[Coupling]) -> list[Tensor]:
    """Channel-wise Clebsch-Gordan products.

    Args:
        left: activations (channel, node, component); one channel serves all of ``right``.
        right: activations; a representation of a coupling is taken from ``left`` in either order if only that fits.
        couplings: the maps.

    Returns:
        (channel, node, component) for each of ``couplings``.
    """
    products: dict[tuple[str, str], Tensor] = {}
    results = []
    for coupling in couplings:
        key = coupling.left, coupling.right
        if key not in products:
            if coupling.left in left and coupling.right in right:
                one, two = left[coupling.left], right[coupling.right]
            else:
                one, two = right[coupling.left], left[coupling.right]
            products[key] = (one[..., :, None] * two[..., None, :]).flatten(-2)
        results.append(products[key] @ on_device(coupling, products[key].device))
    return results


def compress(activations: Irreps) -> Irreps:
    r"""Scale every tensor by its own invariants, which keeps small ones and bounds the invariants of large ones.

    .. math:: F \leftarrow F \, (1 + \textstyle\sum_w \langle F, F \rangle_w^2)^{-1/4}

    The sum has one term for a vector and a tensor, and two for a bivector: the products with itself and its dual.
    Scalars are left as they are.
    """
    compressed = {}
    for name, values in activations.items():
        if name != "scalar":
            invariants = couple({name: values}, {name: values}, square_couplings([name], ["scalar"]))
            values = values * (1 + sum(invariant.square() for invariant in invariants)) ** -0.25
        compressed[name] = values
    return compressed

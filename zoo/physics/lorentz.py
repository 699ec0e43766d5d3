"""Minkowski products and Lorentz transformations, metric (+, -, -, -), four-momenta (E, px, py, pz)."""

import torch
from torch import Tensor

METRIC = (1.0, -1.0, -1.0, -1.0)


def minkowski_dot(a: Tensor, b: Tensor) -> Tensor:
    r"""Minkowski product of four-vectors.

    .. math:: \langle a, b \rangle = a_E b_E - a_x b_x - a_y b_y - a_z b_z

    It is computed and returned in float64 whatever the input: between particles of a boosted jet it is a difference of
    nearly equal numbers, and float32 would keep none of its digits.

    Args:
        a: (..., 4).
        b: (..., 4), broadcast against ``a``.

    Returns:
        (...), float64, in the product of the units of ``a`` and ``b``.

    Example:
        >>> minkowski_dot(torch.tensor([5.0, 0, 0, 3]), torch.tensor([5.0, 0, 0, 3]))
        tensor(16., dtype=torch.float64)
    """
    return (a.double() * b.double()) @ a.new_tensor(METRIC, dtype=torch.float64)


def squared_mass(four_momenta: Tensor) -> Tensor:
    """Minkowski square of four-momenta (..., 4) in GeV, as (...) float64 in GeV^2; negative where space-like."""
    return minkowski_dot(four_momenta, four_momenta)


#: Squared mass, relative to the squared energy, that counts as zero. In float32 it covers momenta rounded once, as read
#: from a file; in float64 also boosted momenta, which keep the rounding errors of larger energies.
MASSLESS = {torch.float32: 4 * torch.finfo(torch.float32).eps, torch.float64: 1e-12}


def resolve_masses(four_momenta: Tensor) -> tuple[Tensor, Tensor]:
    r"""Four-momenta in float64; those that are massless within rounding are put on the light cone.

    Rounding (E, p) to a precision :math:`\epsilon` shifts the squared mass by up to :math:`2 \epsilon E^2`: a 500 GeV
    photon in float32 gets a fake mass of 0.2 GeV, different in every frame. Where :math:`|E^2 - p^2| / E^2` is below
    `MASSLESS`, the energy is replaced by :math:`|p|`, and the mass is exactly zero.

    Args:
        four_momenta: (..., 4) in GeV, float32 or float64; the dtype decides what can be resolved.

    Returns:
        The four-momenta (..., 4) and their squared masses (...) in GeV^2, both float64.

    Raises:
        ValueError: if the dtype is any other, as it is too coarse for momenta.
    """
    if four_momenta.dtype not in MASSLESS:
        raise ValueError(f"four-momenta must be float32 or float64, not {four_momenta.dtype}")
    momenta = four_momenta.double()
    energy, momentum = momenta[..., 0], momenta[..., 1:]
    mass2 = squared_mass(momenta)
    is_massless = mass2.abs() <= MASSLESS[four_momenta.dtype] * energy.square()
    energy = torch.where(is_massless, momentum.norm(dim=-1), energy)
    return torch.cat([energy[..., None], momentum], dim=-1), torch.where(is_massless, 0.0, mass2)


def root(squares: Tensor) -> Tensor:
    r"""Square root (...) of numbers (...), whose gradient at zero is zero and not infinite.

    Example:
        >>> root(torch.tensor([0.0, 4.0])).tolist()
        [0.0, 2.0]
    """
    is_zero = squares == 0
    return squares.masked_fill(is_zero, 1).sqrt().masked_fill(is_zero, 0)


def give_masses(four_momenta: Tensor, mass: Tensor) -> Tensor:
    r"""Restore the masses of massless momenta whose pseudorapidity was set to their rapidity.

    Transverse momentum and rapidity stay as they are, and energy and :math:`p_z` grow by
    :math:`\sqrt{1 + m^2 / p_T^2}`.

    Args:
        four_momenta: massless, (..., 4) as (E, px, py, pz) in GeV.
        mass: (...) in GeV.

    Returns:
        (..., 4) in GeV, float64.

    Example:
        >>> give_masses(torch.tensor([5.0, 4, 0, 3]), torch.tensor(3.0)).tolist()
        [6.25, 4.0, 0.0, 3.75]
    """
    momenta, _ = resolve_masses(four_momenta)
    is_zero = (momenta[..., 1:3] == 0).all(-1)  # as in padding, where the length has no gradient
    transverse = momenta[..., 1:3].masked_fill(is_zero[..., None], 1)
    pt = torch.hypot(*transverse.unbind(-1)).masked_fill(is_zero, torch.finfo(torch.float64).tiny)
    growth = torch.hypot(torch.ones_like(pt), mass.double() / pt)
    return momenta * torch.stack([growth, torch.ones_like(pt), torch.ones_like(pt), growth], dim=-1)


def boost_matrix(velocity: Tensor) -> Tensor:
    r"""Pure boost that gives a particle at rest the velocity :math:`\beta`.

    .. math::
        \Lambda = \begin{pmatrix} \gamma & \gamma \beta^T \\
        \gamma \beta & 1 + \frac{\gamma^2}{1 + \gamma} \beta \beta^T \end{pmatrix}

    Args:
        velocity: (..., 3) in units of c.

    Returns:
        (..., 4, 4) of the same dtype; apply it as ``four_momenta @ matrix.mT``.

    Raises:
        ValueError: if a velocity reaches the speed of light.
    """
    speed2 = velocity.square().sum(-1)
    if (speed2 >= 1).any():
        raise ValueError(f"velocities must be below the speed of light, got |beta| = {speed2.max().sqrt():.6g}")
    gamma = (1 - speed2).rsqrt()[..., None, None]
    beta = velocity[..., :, None]
    identity = torch.eye(3, dtype=velocity.dtype, device=velocity.device)
    space = identity + gamma.square() / (1 + gamma) * beta @ beta.mT
    top = torch.cat([gamma, gamma * beta.mT], dim=-1)
    return torch.cat([top, torch.cat([gamma * beta, space], dim=-1)], dim=-2)


def rotation_matrix(axis: Tensor, angle: Tensor) -> Tensor:
    r"""Right-handed rotation of space by ``angle`` about ``axis`` (Rodrigues' formula), as a Lorentz matrix.

    Args:
        axis: (..., 3), of any non-zero length.
        angle: (...) in radians.

    Returns:
        (..., 4, 4) of the same dtype.
    """
    x, y, z = (axis / axis.norm(dim=-1, keepdim=True)).unbind(-1)
    zero = torch.zeros_like(x)
    generator = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    angle = angle[..., None, None]
    identity = torch.eye(3, dtype=axis.dtype, device=axis.device)
    space = identity + angle.sin() * generator + (1 - angle.cos()) * generator @ generator
    matrix = torch.zeros(*space.shape[:-2], 4, 4, dtype=axis.dtype, device=axis.device)
    matrix[..., 0, 0] = 1
    matrix[..., 1:, 1:] = space
    return matrix


def random_lorentz(
    *shape: int, gamma: float = 2.0, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Random proper Lorentz transformations: an isotropic rotation, then a boost in an isotropic direction.

    Args:
        shape: leading shape of the result.
        gamma: Lorentz factor of every boost.
        generator: source of randomness.
        dtype: of the result; float64 is needed for more than a small boost.

    Returns:
        (*shape, 4, 4).

    Raises:
        ValueError: if ``gamma`` is below 1.
    """
    if gamma < 1:
        raise ValueError(f"a Lorentz factor is at least 1, got gamma = {gamma}")
    # A normalised Gaussian quaternion is uniform over the rotations.
    quaternion = torch.randn(*shape, 4, generator=generator, dtype=torch.float64)
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(quaternion[..., 1:].norm(dim=-1), quaternion[..., 0])
    direction = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    speed = (1 - gamma**-2) ** 0.5
    return (boost_matrix(speed * direction) @ rotation_matrix(quaternion[..., 1:], angle)).to(dtype)

"""Jet images: a jet's transverse momentum in pixels of pseudorapidity and azimuth, in a frame that the jet defines.

References:
    Jet-Images: Computer Vision Inspired Techniques for Jet Tagging (2014), arXiv:1407.5675.
    Jet-Images -- Deep Learning Edition (2015), arXiv:1511.05190.
"""

import math

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from zoo.kernels.padding import harmless_padding
from zoo.physics import kinematics

#: Distances, angles and fractions below this are rounding. Particles on the axis of the jet or in line with it lie
#: exactly on the edge between pixels, and balanced jets have no heavier side; rounding must not decide there.
ROUNDING = 1e-9
#: A pixel holds a per mille of the jet on average. The networks see percent, of order 1 where a pixel is not empty, so
#: that the epsilon of the first batch normalisation is small compared with the variance.
PERCENT = 100.0


class JetImage(nn.Module):
    r"""Image of a jet: the pT of its particles, summed in square pixels of (eta, phi). It has no parameters.

    With :math:`z_i = p_{T,i} / \sum_j p_{T,j}`, in this order, and each step can be left out:

    1. Centre: coordinates :math:`x_i = \eta_i - \eta_J, y_i = \phi_i - \phi_J` (wrapped) about the axis of the jet,

       .. math:: \eta_J = \tfrac12 \ln \frac{\sum_i p_{T,i} e^{\eta_i}}{\sum_i p_{T,i} e^{-\eta_i}}, \quad
           \phi_J = \operatorname{atan2}(\textstyle\sum_i p_{y,i}, \sum_i p_{x,i})

       the rapidity and azimuth of the sum of the particles, taken as massless. It depends on three-momenta only.
    2. Rotate about the axis, so that the principal axis of the distribution, at an angle theta to x by the
       z-weighted covariances,

       .. math:: 2 \theta = \operatorname{atan2}(2 \sigma_{xy}, \sigma_{xx} - \sigma_{yy})

       points up, and the half of larger pT is the upper one.
    3. Flip left and right if needed, so that the half of larger pT is on the right.
    4. Normalise by the scalar sum of pT, inside or outside the frame.

    With all steps, boosts along the beam, rotations about it, and reflections of eta or phi leave the image unchanged.
    Particles outside the frame are in no pixel: their pT is lost. Without step 1 the frame is centred on
    eta = phi = 0, and the jet is rotated and flipped in place about its own axis. A jet without a preferred direction
    is not rotated, and one whose halves are equal is not turned over.

    The image is differentiable in the particles' pT; its gradient with respect to their positions is zero, as they
    only select pixels. Everything is computed in float64, also under autocast.

    Note: the axis has the rapidity of the jet, not its pseudorapidity, which would move relative to the particles under
        a boost along the beam, as a jet has a mass.

    Args:
        pixels: rows and columns of the image.
        pixel_size: of one pixel, in units of eta and in radians.
        centre: whether to do step 1.
        rotate: whether to do step 2.
        flip: whether to do step 3.
        normalise: whether to do step 4; otherwise pixels are in GeV.

    Shapes:
        four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV, mask (batch, particle), True for a real particle;
        image (batch, 1, pixel, pixel) in float64, rows from low to high phi, columns from low to high eta.

    Raises:
        ValueError: if the number or the size of the pixels is not positive.

    Example:
        >>> photons = torch.tensor([[[5.0, 3, 4, 0], [5.0, 3, 4, 0]]])
        >>> JetImage(pixels=3, pixel_size=0.1)(photons, torch.tensor([[True, False]]))[0, 0].tolist()
        [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """

    def __init__(
        self,
        pixels: int = 64,
        pixel_size: float = 0.025,
        *,
        centre: bool = True,
        rotate: bool = True,
        flip: bool = True,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        if pixels < 1 or not 0 < pixel_size < math.inf:
            raise ValueError(f"an image needs pixels of some size, got pixels = {pixels}, pixel_size = {pixel_size}")
        self.pixels = pixels
        self.pixel_size = pixel_size
        self.centre = centre
        self.rotate = rotate
        self.flip = flip
        self.normalise = normalise

    def extra_repr(self) -> str:
        """The settings, for printing."""
        names = ("pixels", "pixel_size", "centre", "rotate", "flip", "normalise")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def forward(self, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Images (batch, 1, pixel, pixel); see the class for the shapes."""
        with torch.autocast(four_momenta.device.type, enabled=False):
            momenta = harmless_padding(four_momenta, mask).double()
            # This way of writing pT has a gradient along the beam: zero.
            pt = torch.where(mask, torch.linalg.vector_norm(momenta[..., 1:3], dim=-1), 0.0)
            total = _sum(pt)
            fraction = pt / torch.where(total > 0, total, 1.0)
            pixel, is_inside = self._pixels(momenta.detach(), mask, pt.detach(), fraction.detach())
            weight = (fraction if self.normalise else pt) * is_inside
            first = self.pixels**2 * torch.arange(mask.shape[0], device=mask.device)[:, None]
            image = weight.new_zeros(mask.shape[0] * self.pixels**2)
            image = image.index_add(0, (first + pixel).flatten(), weight.flatten())
            return rearrange(image, "(batch row column) -> batch 1 row column", row=self.pixels, column=self.pixels)

    def _pixels(self, momenta: Tensor, mask: Tensor, pt: Tensor, fraction: Tensor) -> tuple[Tensor, Tensor]:
        """Index of each particle's pixel among those of its image, and whether it lies in the frame.

        One outside, or at an unknown position, gets the first pixel: a NaN times zero is still NaN.
        """
        eta = kinematics.finite_eta(momenta)
        axis_eta, axis_phi = _jet_axis(momenta, mask, pt, eta)
        x, y = kinematics.from_axis(eta, kinematics.phi(momenta), axis_eta, axis_phi)
        if self.rotate:
            angle = _principal_angle(x, y, fraction)
            x, y = x * angle.sin() - y * angle.cos(), x * angle.cos() + y * angle.sin()
            side = _heavier_side(y, fraction)
            x, y = side * x, side * y
        if self.flip:
            x = _heavier_side(x, fraction) * x
        if not self.centre:
            x, y = x + axis_eta, kinematics.delta_phi(y, -axis_phi)
        row, column = ((z / self.pixel_size + self.pixels / 2 + ROUNDING).floor().long() for z in (y, x))
        is_inside = (row >= 0) & (row < self.pixels) & (column >= 0) & (column < self.pixels)
        return torch.where(is_inside, row * self.pixels + column, 0), is_inside


def _sum(values: Tensor) -> Tensor:
    """Sum over the particles of each jet, as a column that broadcasts against them."""
    return reduce(values, "batch particle -> batch 1", "sum")


def _jet_axis(momenta: Tensor, mask: Tensor, pt: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    """Rapidity and azimuth of the sum of a jet's particles, taken as massless, (batch, 1) each; 0 for an empty jet."""
    smallest = torch.finfo(pt.dtype).tiny
    forward, backward = (_sum(pt * (side * eta).exp()).clamp(min=smallest) for side in (1, -1))
    px, py = (_sum(torch.where(mask, component, 0.0)) for component in momenta[..., 1:3].unbind(-1))
    return (forward / backward).log() / 2, torch.atan2(py, px)


def _principal_angle(x: Tensor, y: Tensor, fraction: Tensor) -> Tensor:
    """Angle (batch, 1) of the axis of largest variance, counted from x and in [0, pi) up to rounding.

    It is that of y if all directions have the same variance.
    """
    mean_x, mean_y = _sum(fraction * x), _sum(fraction * y)
    variance_x, variance_y = _sum(fraction * x * x) - mean_x**2, _sum(fraction * y * y) - mean_y**2
    covariance = _sum(fraction * x * y) - mean_x * mean_y
    difference = variance_x - variance_y
    is_round = torch.hypot(difference, 2 * covariance) <= ROUNDING * (variance_x + variance_y)
    double_angle = torch.atan2(2 * covariance, difference)
    # The cut lies just below zero, so that rounding cannot turn over a jet aligned with eta or phi.
    double_angle = torch.remainder(double_angle + ROUNDING, 2 * math.pi) - ROUNDING
    return torch.where(is_round, math.pi / 2, double_angle / 2)


def _heavier_side(coordinate: Tensor, fraction: Tensor) -> Tensor:
    """Sign (batch, 1) of the coordinate on the side with more pT; 1 if both sides have the same."""
    side = (coordinate > ROUNDING).to(fraction) - (coordinate < -ROUNDING).to(fraction)
    balance = _sum(fraction * side)
    return torch.where(balance < -ROUNDING, -torch.ones_like(balance), 1.0)

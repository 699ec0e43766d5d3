"""Jet images against numpy's histogram, by hand, and their symmetries."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.cnn_jetimage import JetImage
from zoo.data.batch import JetBatch
from zoo.physics.lorentz import boost_matrix, rotation_matrix

STEPS = {"centre": True, "rotate": True, "flip": True, "normalise": True}


def massless(jets: JetBatch) -> Tensor:
    momentum = jets.four_momenta[..., 1:].double()
    return torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)


def one_jet(*particles: tuple[float, float, float], eta: float = 0.0, phi: float = 0.0) -> tuple[Tensor, Tensor]:
    """A jet of massless particles (pT, deta, dphi) about some direction."""
    pt, x, y = torch.tensor(particles, dtype=torch.float64).T
    x, y = x + eta, y + phi
    momenta = torch.stack([pt * x.cosh(), pt * y.cos(), pt * y.sin(), pt * x.sinh()], dim=-1)
    return momenta[None], torch.ones(1, len(particles), dtype=torch.bool)


def pixels_of(image: Tensor) -> dict[tuple[int, int], float]:
    """(row, column) -> value of the pixels of one image that hold something."""
    return {(row, column): round(image[0, 0, row, column].item(), 9) for row, column in image[0, 0].nonzero().tolist()}


def histogram(momenta: np.ndarray, pixels: int, pixel_size: float, steps: dict[str, bool]) -> np.ndarray:
    """Image of one jet in numpy: other formulas for the same coordinates, a general eigensolver, `histogram2d`."""
    px, py, pz = momenta.T
    pt = np.sqrt(px**2 + py**2)
    eta, phi = np.arctanh(pz / np.sqrt(px**2 + py**2 + pz**2)), np.angle(px + 1j * py)
    energy = np.sqrt((momenta**2).sum(axis=1)).sum()
    axis_eta = 0.5 * np.log((energy + pz.sum()) / (energy - pz.sum()))
    axis_phi = np.angle(px.sum() + 1j * py.sum())
    x, y = eta - axis_eta, np.angle(np.exp(1j * (phi - axis_phi)))
    if steps["rotate"]:
        _, vectors = np.linalg.eigh(np.cov(x, y, aweights=pt))
        along = vectors[:, 1]
        x, y = along[1] * x - along[0] * y, along[0] * x + along[1] * y
        if pt[y > 0].sum() < pt[y < 0].sum():
            x, y = -x, -y
    if steps["flip"] and pt[x > 0].sum() < pt[x < 0].sum():
        x = -x
    if not steps["centre"]:
        x, y = x + axis_eta, y + axis_phi
    edges = (np.arange(pixels + 1) - pixels / 2) * pixel_size
    image, _, _ = np.histogram2d(y, x, bins=(edges, edges), weights=pt)
    return image / pt.sum() if steps["normalise"] else image


@pytest.mark.parametrize("frame", [(64, 0.025), (40, 0.04), (9, 0.5)])
@pytest.mark.parametrize("left_out", [None, *STEPS])
def test_equals_numpy(jets, frame, left_out):
    steps = STEPS | ({left_out: False} if left_out else {})
    images = JetImage(*frame, **steps)(massless(jets), jets.mask)
    assert images.shape == (8, 1, frame[0], frame[0])
    for jet in range(8):
        momenta = jets.four_momenta[jet, jets.mask[jet], 1:].double().numpy()
        expected = histogram(momenta, *frame, steps)
        np.testing.assert_allclose(images[jet, 0].numpy(), expected, rtol=1e-12, atol=1e-15)
    assert images.sum() > 0


@pytest.mark.parametrize("phi", [0.0, math.pi - 0.01, -2.0])
def test_centre_by_hand(phi):
    """Two equal particles 0.4 apart lie 0.2 to either side of their axis, also across the seam of phi."""
    momenta, mask = one_jet((10.0, 0.0, -0.2), (10.0, 0.0, 0.2), eta=0.7, phi=phi)
    image = JetImage(9, 0.1, rotate=False, flip=False)(momenta, mask)
    assert pixels_of(image) == {(2, 4): 0.5, (6, 4): 0.5}
    image = JetImage(9, 0.1, centre=False, rotate=False, flip=False)(*one_jet((10.0, 0.31, -0.22)))
    assert pixels_of(image) == {(2, 7): 1.0}, "without the step, the centre is eta = phi = 0"


#: Four particles about their own axis, in the frame of the image: (pT, eta, phi), uncorrelated and centred at zero.
FOUR = ((15.0, 0.05, 0.15), (5.0, -0.15, 0.15), (9.0, 0.05, -0.25), (3.0, -0.15, -0.25))
FOUR_IMAGE = {(5, 4): 0.46875, (5, 2): 0.15625, (1, 4): 0.28125, (1, 2): 0.09375}


def turned(angle: float, mirror: bool) -> list[tuple[float, float, float]]:
    cos, sin = math.cos(angle), math.sin(angle)
    sign = -1 if mirror else 1
    return [(pt, sign * (cos * x - sin * y), sin * x + cos * y) for pt, x, y in FOUR]


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("angle", np.arange(0, 2 * math.pi, math.pi / 6))
def test_rotate_and_flip_by_hand(angle, mirror):
    """Turned and mirrored in any way they give one image: the long way upright, the heavier halves up and right."""
    jet = one_jet(*turned(angle, mirror), eta=-1.1, phi=2.0)
    assert pixels_of(JetImage(8, 0.1)(*jet)) == FOUR_IMAGE


def test_steps_left_out_by_hand():
    upside_down, mirrored, turned_left = turned(math.pi, False), turned(0, True), turned(math.pi / 2, False)
    rotated_only = pixels_of(JetImage(8, 0.1, flip=False)(*one_jet(*mirrored)))
    assert rotated_only == {(row, 7 - column): value for (row, column), value in FOUR_IMAGE.items()}
    flipped_only = pixels_of(JetImage(8, 0.1, rotate=False)(*one_jet(*upside_down)))
    assert flipped_only == {(7 - row, column): value for (row, column), value in FOUR_IMAGE.items()}
    neither = pixels_of(JetImage(8, 0.1, rotate=False, flip=False)(*one_jet(*turned_left)))
    assert neither == {(column, 7 - row): value for (row, column), value in FOUR_IMAGE.items()}


def test_normalise_by_hand():
    jet = one_jet((30.0, 0.0, 0.2), (60.0, 0.0, -0.1))
    assert pixels_of(JetImage(9, 0.1)(*jet)) == {(5, 4): round(2 / 3, 9), (2, 4): round(1 / 3, 9)}
    assert pixels_of(JetImage(9, 0.1, normalise=False)(*jet)) == {(5, 4): 60.0, (2, 4): 30.0}


def test_real_images_are_upright(jets):
    """Halves and tilt from the pixels alone; without the steps some jet fails each of the three."""

    def faults(image: Tensor) -> tuple[bool, bool, bool]:
        centres = (torch.arange(64, dtype=torch.float64) - 31.5) * 0.025
        y, x = centres[:, None], centres
        mean = [(image * value).sum() / image.sum() for value in (x, y, x * x, y * y, x * y)]
        covariance = mean[4] - mean[0] * mean[1]
        difference = mean[3] - mean[1] ** 2 - (mean[2] - mean[0] ** 2)
        tilt = math.degrees(math.atan2(2 * covariance, difference)) / 2  # from the vertical
        return abs(tilt) > 3, bool(image[32:].sum() < image[:32].sum()), bool(image[:, 32:].sum() < image[:, :32].sum())

    images = JetImage(normalise=False)(massless(jets), jets.mask)[:, 0]
    assert not any(any(faults(image)) for image in images)
    raw = JetImage(rotate=False, flip=False)(massless(jets), jets.mask)[:, 0]
    assert all(any(column) for column in zip(*(faults(image) for image in raw), strict=True))


@pytest.mark.parametrize(
    ("change", "needs"),
    [
        ("boost along the beam", "centre"),
        ("rotation about the beam", "centre"),
        ("reflection of eta", "flip"),
        ("reflection of phi", "flip"),
    ],
)
def test_symmetries(jets, change, needs):
    """In float64, and not without the step that they rest on."""
    matrix = {
        "boost along the beam": boost_matrix(torch.tensor([0, 0, 0.8], dtype=torch.float64)),
        "rotation about the beam": rotation_matrix(torch.tensor([0, 0, 1.0]).double(), torch.tensor(2.0).double()),
        "reflection of eta": torch.diag(torch.tensor([1.0, 1, 1, -1], dtype=torch.float64)),
        "reflection of phi": torch.diag(torch.tensor([1.0, 1, -1, 1], dtype=torch.float64)),
    }[change]
    before, after = massless(jets), massless(jets) @ matrix.mT
    image = JetImage()
    assert (image(after, jets.mask) - image(before, jets.mask)).abs().max() < 1e-12
    without = JetImage(pixel_size=0.1, **{needs: False})
    assert (without(after, jets.mask) - without(before, jets.mask)).abs().max() > 1e-3


def test_a_boost_across_the_beam_changes_the_image(jets):
    matrix = boost_matrix(torch.tensor([0.5, 0, 0], dtype=torch.float64))
    difference = JetImage()(massless(jets) @ matrix.mT, jets.mask) - JetImage()(massless(jets), jets.mask)
    assert difference.abs().max() > 1e-3


AWKWARD = {
    "two of the same pT": one_jet((1.0, 0.1, 0.3), (1.0, -0.2, 0.1)),
    "two along eta": one_jet((1.0, 0.1, 0.0), (1.0, -0.2, 0.0), phi=1.3),
    "two along phi": one_jet((1.0, 0.0, 0.1), (1.0, 0.0, -0.2), eta=0.3),
    "one against two along eta": one_jet((2.0, 0.15, 0.0), (1.0, -0.1, 0.0), (1.0, -0.2, 0.0), phi=1.3),
    "on a line": one_jet((3.0, 0.1, 0.2), (1.0, -0.2, -0.4), (2.0, 0.2, 0.4), (0.1, 0.05, 0.1)),
    "same direction": one_jet((3.0, 0.1, 0.2), (1.0, 0.1, 0.2), (0.7, 0.1, 0.2), eta=0.9, phi=2.9),
    "square": one_jet((1.0, 0.1, 0.1), (1.0, -0.1, 0.1), (1.0, -0.1, -0.1), (1.0, 0.1, -0.1)),
}


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("pixels", [40, 41])
def test_rounding_decides_nothing(name, pixels):
    """Of jets that lie on edges between pixels, halves of equal pT or a principal axis at the end of its range."""
    momenta, mask = AWKWARD[name]
    image = JetImage(pixels, 0.04)
    expected = image(momenta, mask)
    assert expected.sum() == pytest.approx(1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        order = torch.randperm(momenta.shape[1], generator=generator)
        noise = 1 + 1e-15 * torch.randn(momenta.shape, generator=generator, dtype=torch.float64)
        assert (image((momenta * noise)[:, order], mask) - expected).abs().max() < 1e-9


def test_order_and_padding_do_not_matter(jets):
    momenta = massless(jets)
    order = torch.randperm(momenta.shape[1])
    padded = torch.cat([torch.full((8, 5, 4), math.nan, dtype=torch.float64), momenta[:, order]], dim=1)
    mask = torch.cat([torch.zeros(8, 5, dtype=torch.bool), jets.mask[:, order]], dim=1)
    assert (JetImage()(padded, mask) - JetImage()(momenta, jets.mask)).abs().max() < 1e-12


def test_pt_outside_the_frame_is_lost():
    image = JetImage()(*one_jet((98.0, 0.01, 0.0), (2.0, 0.0, 1.1)))
    assert image.sum().item() == pytest.approx(0.98)


def test_particles_along_the_beam_change_nothing():
    momenta, mask = one_jet((3.0, 0.1, 0.2), (1.0, -0.3, 0.1))
    beam = torch.tensor([[[100.0, 0, 0, 100.0], [100.0, 0, 0, -100.0], [0, 0, 0, 0]]], dtype=torch.float64)
    with_beam = torch.cat([momenta, beam], dim=1).requires_grad_()
    image = JetImage()(with_beam, torch.ones(1, 5, dtype=torch.bool))
    assert torch.equal(image, JetImage()(momenta, mask))
    image.square().sum().backward()
    assert with_beam.grad.isfinite().all()
    only_beam = JetImage()(beam, torch.ones(1, 3, dtype=torch.bool))
    assert torch.equal(only_beam, torch.zeros_like(only_beam))


def test_empty_and_one_particle_jets():
    momenta, _ = one_jet((3.0, 0.1, 0.2), (1.0, -0.3, 0.1), eta=1.9, phi=3.1)
    image = JetImage()
    assert not image(momenta, torch.tensor([[False, False]])).any()
    assert pixels_of(image(momenta, torch.tensor([[False, True]]))) == {(32, 32): 1.0}
    assert image(torch.zeros(0, 0, 4), torch.zeros(0, 0, dtype=torch.bool)).shape == (0, 1, 64, 64)


def test_precision_of_the_surroundings_does_not_matter(jets):
    """float32 momenta are taken at their word, under autocast too."""
    expected = JetImage()(massless(jets), jets.mask)
    assert torch.equal(JetImage()(jets.four_momenta, jets.mask), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(JetImage()(jets.four_momenta, jets.mask), expected)


def test_gradient_of_a_pixel_by_hand():
    """A particle of pT p in a pixel of its own: d(p / sum) / dp = (1 - p / sum) / sum, and -p / sum^2 of the others."""
    momenta, mask = one_jet((6.0, 0.0, 0.21), (3.0, 0.0, -0.42), (1.0, 0.2, 0.0))
    momenta.requires_grad_()
    image = JetImage(9, 0.1)(momenta, mask)
    image[image > 0.59].sum().backward()
    transverse, gradient = momenta[0, :, 1:3].detach(), momenta.grad[0]
    pt = transverse.norm(dim=1, keepdim=True)
    along = (gradient[:, 1:3] * transverse / pt).sum(1)
    torch.testing.assert_close(along, torch.tensor([0.04, -0.06, -0.06], dtype=torch.float64))
    across = gradient[:, 1] * transverse[:, 1] - gradient[:, 2] * transverse[:, 0]
    assert across.abs().max() < 1e-15, "positions have no gradient"
    assert not gradient[:, [0, 3]].any()


@pytest.mark.parametrize("normalise", [True, False])
def test_gradient_by_differences(normalise):
    """Where no particle is near an edge, the gradient is that of the differences, moves of the axis included."""
    first, mask = one_jet((6.0, 0.0, 0.212), (3.0, 0.013, -0.411), (1.0, 0.212, 0.03))
    second, _ = one_jet((2.0, 0.02, 0.11), (3.0, 0.12, -0.12), (1.0, 0.31, 0.03), eta=1.0, phi=3.0)
    momenta = torch.cat([first, second]).requires_grad_()
    image = JetImage(8, 0.1, normalise=normalise)
    assert torch.autograd.gradcheck(lambda momenta: image(momenta, mask.expand(2, -1)), momenta)


@pytest.mark.parametrize(("pixels", "pixel_size"), [(0, 0.1), (8, 0.0), (8, -1.0), (8, math.inf), (8, math.nan)])
def test_frames_of_no_size_are_refused(pixels, pixel_size):
    with pytest.raises(ValueError, match="pixels of some size"):
        JetImage(pixels, pixel_size)

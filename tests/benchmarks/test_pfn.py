"""What energyflow's PFN is given: the same three numbers a particle as the zoo's."""

import numpy as np
import torch

from benchmarks.pfn import inputs_of_energyflow
from zoo.physics import kinematics


def test_inputs_of_energyflow_are_fraction_rapidity_and_azimuth(jets):
    padded = inputs_of_energyflow(jets)
    assert padded.shape == (*jets.mask.shape, 3)
    assert not padded[~jets.mask.numpy()].any()
    np.testing.assert_allclose(padded[..., 0].sum(1), 1, rtol=1e-6)
    particles = jets.four_momenta[3][jets.mask[3]].double()
    jet = particles.sum(0)
    expected = torch.stack(
        [
            kinematics.pt(particles) / kinematics.pt(particles).sum(),
            kinematics.rapidity(particles) - kinematics.rapidity(jet),
            kinematics.delta_phi(kinematics.phi(particles), kinematics.phi(jet)),
        ],
        dim=-1,
    )
    np.testing.assert_allclose(padded[3][jets.mask[3].numpy()], expected, atol=1e-6)

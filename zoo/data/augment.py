"""Rotations and reflections of whole events, which change no physics, drawn anew for every event and epoch."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from zoo.data.batch import PackedJets

#: What can be drawn, in the order in which it is done.
KINDS = ("reflection", "rotation")

#: Particle columns that change their sign in a mirror: angles relative to the jet, and signed impact parameters.
MIRRORED_COLUMNS = ("part_dphi", "part_d0val")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    r"""Transforms each event as a whole, by numbers that its row, the epoch and the seed alone determine.

    .. math:: p_y \leftarrow \pm p_y, \qquad
        \begin{pmatrix} p_x \\ p_y \end{pmatrix} \leftarrow
        \begin{pmatrix} \cos\alpha & -\sin\alpha \\ \sin\alpha & \cos\alpha \end{pmatrix}
        \begin{pmatrix} p_x \\ p_y \end{pmatrix}

    with either sign and any angle :math:`\alpha` equally probable. Azimuths turn along: fields and particle columns
    whose name ends in ``_phi``, such as ``met_phi`` and ``jet_phi``. In a mirror `MIRRORED_COLUMNS` change their sign.

    Args:
        kinds: some of `KINDS`.
        seed: of the draws.

    Raises:
        ValueError: if a kind is unknown or stands twice.
    """

    kinds: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        if not set(self.kinds) <= set(KINDS) or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"augmentation: must hold {' and '.join(KINDS)}, each once at most, not {self.kinds}")

    def transform(self, jets: PackedJets, epoch: int) -> PackedJets:
        """The events as they are seen in an epoch."""
        sign, angle = np.ones(len(jets.counts)), np.zeros(len(jets.counts))
        if "reflection" in self.kinds:
            sign = np.where(uniform((self.seed, epoch, KINDS.index("reflection")), jets.index) < 0.5, -1.0, 1.0)
        if "rotation" in self.kinds:
            angle = 2 * math.pi * uniform((self.seed, epoch, KINDS.index("rotation")), jets.index)
        of_particles = np.repeat(sign, jets.counts), np.repeat(angle, jets.counts)
        return jets._replace(
            four_momenta=_turn_momenta(jets.four_momenta, *of_particles),
            columns=_turn_azimuths(jets.columns, (sign, angle), of_particles),
            fields=_turn_azimuths(jets.fields, (sign, angle), of_particles),
        )


def _turn_momenta(four_momenta: np.ndarray, sign: np.ndarray, angle: np.ndarray) -> np.ndarray:
    energy, px, py, pz = four_momenta.T
    py = sign * py
    turned = np.empty((4, len(energy)), dtype=four_momenta.dtype)
    turned[0], turned[3] = energy, pz
    turned[1] = np.cos(angle) * px - np.sin(angle) * py
    turned[2] = np.sin(angle) * px + np.cos(angle) * py
    return turned.T


def _turn_azimuths(
    columns: Mapping[str, np.ndarray],
    of_jets: tuple[np.ndarray, np.ndarray],
    of_particles: tuple[np.ndarray, np.ndarray],
) -> dict[str, np.ndarray]:
    turned = dict(columns)
    for name, values in columns.items():
        sign, angle = of_particles if name.startswith("part_") else of_jets
        if name in MIRRORED_COLUMNS:
            turned[name] = (sign * values).astype(values.dtype)
        elif name.endswith("_phi"):
            turned[name] = _wrap(sign * values + angle).astype(values.dtype)
    return turned


def _wrap(azimuth: np.ndarray) -> np.ndarray:
    """The same direction from -pi to pi."""
    return np.remainder(azimuth + math.pi, 2 * math.pi) - math.pi


def uniform(key: tuple[int, ...], rows: np.ndarray) -> np.ndarray:
    """A number from 0 to below 1 for each row, float64, a pure function of the key and the row.

    References:
        Fast splittable pseudorandom number generators (2014), doi:10.1145/2660193.2660195: its mixing of bits.
    """
    state = np.zeros(1, dtype=np.uint64)
    for part in (*key, rows):
        state = _mix(state ^ np.asarray(part).astype(np.uint64))
    return (state >> np.uint64(11)) * 2.0**-53


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))

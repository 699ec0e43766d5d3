"""Whether an exported model gives the same answers as the model it was made from."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.export.graph import Answers, open_session, run
from zoo.hub import Pretrained, largest_change
from zoo.model import declared

#: Largest change of an answer, relative to the largest answer or to 1.
TOLERANCE = 1e-5

#: Places for particles of the jets that are compared, in batches of one jet and of several.
LENGTHS, BATCHES = (1, 2, 3, 17, 50, 128), (1, 5)


class ExportError(ValueError):
    """A model cannot be exported, or its export gives other answers; the message says why."""


class Parity(NamedTuple):
    """How well an exported model agrees.

    Args:
        jets: number of compared jets.
        shapes: (batch, particle) of their batches.
        largest_change: of an answer, relative to the largest or to 1.
        left_out: fraction of the jets, those that changed most, that do not count: their answers jump where rounding
            decides, for instance on the neighbours of a particle.
    """

    jets: int
    shapes: list[tuple[int, ...]]
    largest_change: float
    left_out: float


@torch.no_grad()
def compare(content: bytes, answers: Answers, pretrained: Pretrained, golden: Mapping[str, Tensor]) -> Parity:
    """Compare an ONNX file with the model it was made from, on real jets and odd ones.

    Args:
        content: of the file.
        answers: the model it was made from.
        pretrained: the same model as a pretrained one.
        golden: inputs of real jets.

    Raises:
        ExportError: if an answer differs by more than `TOLERANCE`; the message says in which batch.
    """
    jumps = declared(pretrained.network or pretrained.model).jumps
    session, shapes, found, expected = open_session(content), [], [], []
    for name, inputs in batches(golden):
        shapes.append(tuple(inputs["mask"].shape))
        expected.append(answers(*inputs.values()))
        try:
            found.append(run(session, inputs))
        except Exception as error:  # those of ONNX Runtime have no class in common
            raise ExportError(f"{name}: ONNX Runtime fails: {_first_line(error)}") from error
        if found[-1].shape != expected[-1].shape:
            raise ExportError(f"{name}: answers of shape {(*found[-1].shape,)}, in PyTorch of {(*expected[-1].shape,)}")
        change = largest_change(found[-1], expected[-1], jumps=False)
        if not (change < TOLERANCE or (jumps and found[-1].isfinite().all())):
            raise ExportError(f"{name}: {_differ(answers, change)}")
    change = largest_change(torch.cat(found), torch.cat(expected), jumps=jumps)
    if not change < TOLERANCE:
        raise ExportError(f"seven of eight jets: {_differ(answers, change)}")
    return Parity(sum(map(len, found)), shapes, change, 1 / 8 if jumps else 0.0)


def batches(golden: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Batches of inputs by their contents: the golden jets, jets of every length, and odd ones.

    No particle appears in a jet twice: the mass of two equal ones is pure rounding.
    """
    yield "golden jets", dict(golden)
    for length in LENGTHS:
        for batch in BATCHES:
            yield f"{batch} jets of {length} particles", _jets(golden, batch, length)
    yield "odd jets: empty, of one particle, with gaps in the mask and rubbish there", odd_jets(golden)


def odd_jets(golden: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An empty jet, one of one particle, two with gaps in the mask and one without, and garbage in the padding."""
    odd = _jets(golden, 5, 17)
    mask = odd["mask"]
    mask[0], mask[1, 1:], mask[2, ::2], mask[3, :5] = False, False, False, False
    return odd | {name: odd[name].masked_fill(~mask[..., None], 1e3) for name in ("features", "four_momenta")}


def _jets(golden: Mapping[str, Tensor], batch: int, length: int) -> dict[str, Tensor]:
    """Jets of up to ``length`` real particles: those of a golden jet, then those of the next ones."""
    mask = golden["mask"]
    jets = [jet for jet in range(len(mask)) if mask[jet].any()]
    found = {name: golden[name].new_zeros(batch, length, *golden[name].shape[2:]) for name in _OF_PARTICLES}
    for i in range(batch):
        first = i % len(jets)
        order = jets[first:] + jets[:first]
        for name in _OF_PARTICLES:
            particles = torch.cat([golden[name][jet][mask[jet]] for jet in order])[:length]
            found[name][i, : len(particles)] = particles
    if "context" in golden:
        found["context"] = golden["context"][[jets[i % len(jets)] for i in range(batch)]]
    return found


_OF_PARTICLES = ("features", "four_momenta", "mask")


def _differ(answers: Answers, change: float) -> str:
    return (
        f"{answers.output} of ONNX Runtime and PyTorch differ by {change:.1e} of the largest, more than {TOLERANCE:.0e}"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]

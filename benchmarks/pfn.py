"""Time of the PFN beside energyflow's own, on the same real jets in the same run.

    python3 -m venv .venv-energyflow
    .venv-energyflow/bin/pip install energyflow scikit-learn 'tensorflow-cpu<2.20' 'tf_keras<2.20' 'numpy<2'
    python -m benchmarks.pfn --energyflow .venv-energyflow/bin/python

energyflow 1.4 needs TensorFlow, Keras 2 and NumPy 1, and so an environment of its own; a process there and this one
take turns. Both have the layers of arXiv:1810.05165 and see three numbers per particle. energyflow gets them ready,
padded to the longest jet of each batch; the zoo gets four-momenta, and its time includes computing the three numbers.
A training step includes the optimiser in both, as Keras cannot leave it out.
"""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch.nn.functional import cross_entropy

from benchmarks.compare import Times, describe, infer, parse_options, seconds, summarise, tell
from benchmarks.jets import load_batches
from zoo import create_model
from zoo.data.batch import JetBatch
from zoo.deepsets.deepsets import jet_coordinates

RESULTS = Path(__file__).parent / "results" / "pfn.csv"
PEER = Path(__file__).parent / "energyflow_pfn.py"


def inputs_of_energyflow(batch: JetBatch) -> np.ndarray:
    """Momentum fraction, rapidity and azimuth, (batch, particle, 3), zero for padding."""
    return torch.stack(jet_coordinates(batch.four_momenta, batch.mask), dim=-1).float().numpy()


@contextmanager
def energyflow(python: str, batches: list[JetBatch], threads: int) -> Iterator[Callable[[str], float]]:
    """A function that gives the seconds of energyflow for a task on all batches."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "batches.npz"
        arrays = {f"particles{number}": inputs_of_energyflow(batch) for number, batch in enumerate(batches)}
        labels = {f"labels{number}": np.eye(2)[batch.label] for number, batch in enumerate(batches)}
        np.savez(file, **arrays, **labels)
        command = [python, str(PEER), str(file), str(threads)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as peer:

            def answer() -> str:
                line = peer.stdout.readline()
                if not line:
                    raise RuntimeError(f"{' '.join(command)} ended; run it by hand to see why")
                return line

            def time_of(task: str) -> float:
                peer.stdin.write(f"{task}\n")
                return float(answer())

            print(f"energyflow: {int(answer()):,} parameters")
            try:
                yield time_of
            finally:
                peer.terminate()


def main() -> None:
    options = parse_options(__doc__, batch_size=64, energyflow="Python with energyflow and TensorFlow")
    batches = load_batches(options.file, options.batch_size, options.batches)
    model = create_model("pfn_energyflow", input_dim=7, num_classes=2)
    print(f"zoo: {sum(parameter.numel() for parameter in model.parameters()):,} parameters")
    optimizer = torch.optim.Adam(model.parameters())

    def train(batch: JetBatch) -> None:
        optimizer.zero_grad()
        cross_entropy(model.train()(batch.features, batch.four_momenta, batch.mask), batch.label).backward()
        optimizer.step()

    tasks: dict[str, Callable[[JetBatch], None]] = {
        "inference": lambda batch: infer(model, batch),
        "training step": train,
    }
    times: Times = {}
    with energyflow(options.energyflow, batches, options.threads) as time_of:
        for task, work in tasks.items():
            work(batches[0])
            for _ in track(range(options.rounds), description=task):
                ours = sum(seconds(lambda b=batch, w=work: w(b)) for batch in batches)
                for name, total in (("zoo", ours), ("energyflow", time_of(task))):
                    times.setdefault((task, name), []).append(total / (options.batch_size * options.batches))
    tell(summarise(times, "zoo", "energyflow"), RESULTS, describe(batches, options))


if __name__ == "__main__":
    main()

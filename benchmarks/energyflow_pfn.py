"""The PFN of energyflow as a program that `benchmarks.pfn` talks to; it imports nothing of the zoo.

Its argument is an .npz file of padded batches. For each line of its input, the name of a task, it runs that task on
every batch and prints the seconds. The first line that it prints is the number of parameters.
"""

import os
import sys
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # energyflow 1.4 is made for Keras 2
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
from energyflow.archs import PFN

PHI, F = (100, 100, 256), (100, 100, 100)


def main(batches: str, threads: str) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    with np.load(batches) as arrays:
        particles = [arrays[name] for name in arrays if name.startswith("particles")]
        labels = [arrays[name] for name in arrays if name.startswith("labels")]
    model = PFN(input_dim=3, Phi_sizes=PHI, F_sizes=F, output_dim=2, summary=False).model
    forward = tf.function(lambda values: model(values, training=False), reduce_retracing=True)
    inputs = [tf.constant(values) for values in particles]
    tasks = {
        "inference": lambda number: forward(inputs[number]).numpy(),
        "training step": lambda number: model.train_on_batch(inputs[number], labels[number]),
    }
    for task in tasks.values():
        for number in range(len(inputs)):
            task(number)
    print(model.count_params(), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for number in range(len(inputs)):
            tasks[line.strip()](number)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

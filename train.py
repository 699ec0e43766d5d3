"""The training door: ``python train.py fit|validate|test|predict --config configs/<dataset>/<model>.yaml``."""

from zoo.training.command import run_command

if __name__ == "__main__":
    run_command(prog="train.py")

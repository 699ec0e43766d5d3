"""How a task is trained: checkpoints, callbacks, fine-tuning, clusters."""

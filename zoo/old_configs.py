"""Brings configurations of an older zoo into today's form.

The key ``task`` used to name the task, with its settings directly under ``model``; now ``model`` is a class with its
``init_args``. Run folders, reports and pretrained folders keep their old ``config.yaml``, so all code that reads
settings passes them through here. The module is next to ``zoo/limits.py``, since reports and trees, which know no
training, read settings too.
"""

from typing import Any

#: Old names of tasks -> their classes.
TASKS = {
    "tagging": "zoo.tasks.Classification",
    "masked_particles": "zoo.tasks.MaskedParticles",
    "contrastive": "zoo.tasks.Contrastive",
    "substructure": "zoo.tasks.Substructure",
}

#: Import paths that have moved; one that ends with a dot is a module or package with all its contents.
MOVED = {
    "zoo.tagger.JetTagger": "zoo.tasks.Classification",
    "zoo.tasks.classification.JetTagger": "zoo.tasks.Classification",
    "zoo.block_norm.": "zoo.kernels.block_norms.",
    "zoo.callbacks.": "zoo.training.callbacks.",
    "zoo.checkpoints.": "zoo.training.checkpoints.",
    "zoo.fine_tuning.": "zoo.training.fine_tuning.",
    "zoo.loggers.": "zoo.training.loggers.",
    "zoo.pretraining.": "zoo.tasks.pretraining.",
    "zoo.slurm.": "zoo.training.slurm.",
}


def renew_settings(settings: Any) -> Any:
    """Settings in today's form; those already in that form come back unchanged.

    Args:
        settings: plain values of a ``config.yaml``, or of a part of one; nothing is changed in place.

    Raises:
        ValueError: if the key ``task`` names no task.

    Example:
        >>> renew_settings({"task": "contrastive", "model": {"learning_rate": 0.01}})
        {'model': {'class_path': 'zoo.tasks.Contrastive', 'init_args': {'learning_rate': 0.01}}}
    """
    if not isinstance(settings, dict):
        return settings
    renewed = _with_moved_paths({key: value for key, value in settings.items() if key != "task"})
    model = renewed.get("model", {})
    if not isinstance(model, dict) or "class_path" in model:
        return renewed
    arguments = model.get("init_args", model)
    if "task" in settings:
        renewed["model"] = {"class_path": _class_of(settings["task"]), "init_args": arguments}
    elif "model" in model:
        renewed["model"] = {"class_path": TASKS["tagging"], "init_args": arguments}
    return renewed


def is_old(settings: Any) -> bool:
    """Whether `renew_settings` changes anything."""
    return renew_settings(settings) != settings


def renew_path(class_path: str) -> str:
    """The import path under which something is found today.

    Example:
        >>> renew_path("zoo.callbacks.WeightAverage"), renew_path("zoo.lorentznet.lorentznet")
        ('zoo.training.callbacks.WeightAverage', 'zoo.lorentznet.lorentznet')
    """
    for old, new in MOVED.items():
        if class_path == old or (old.endswith(".") and class_path.startswith(old)):
            return new + class_path.removeprefix(old)
    return class_path


def _class_of(task: Any) -> str:
    if not isinstance(task, str) or task not in TASKS:
        raise ValueError(f"task: must be one of {', '.join(TASKS)}, not {task!r}; or give the class: model.class_path")
    return TASKS[task]


def _with_moved_paths(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_moved_paths(item) for item in value]
    if not isinstance(value, dict):
        return value
    renewed = {key: _with_moved_paths(item) for key, item in value.items()}
    if isinstance(renewed.get("class_path"), str):
        renewed["class_path"] = renew_path(renewed["class_path"])
    return renewed

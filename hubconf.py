"""Models for ``torch.hub``: ``torch.hub.load("path/to/checkout", "lorentznet_top_tagging", source="local")``.

Every pretrained model is an entry point by its name with ``_`` for ``.``, every architecture by its own; ``pretrained``
loads any name, folder or ``hf://owner/repo@commit``.
"""

import functools

import zoo
from zoo import load_pretrained as pretrained
from zoo.registry import model_builder

dependencies = ["numpy", "safetensors", "torch"]

for _name in zoo.list_models():
    globals()[_name] = model_builder(_name)
for _name in zoo.list_pretrained():
    globals()[_name.replace(".", "_")] = functools.partial(pretrained, _name)

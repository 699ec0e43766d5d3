"""Print the lowest versions that setup.cfg allows as constraints: ``python .ci/floors.py > floors.txt``."""

import configparser
import re
from pathlib import Path

setup = configparser.RawConfigParser()
setup.read(Path(__file__).parents[1] / "setup.cfg")
lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
for line in sorted({line.strip() for text in lists for line in text.splitlines()}):
    floor = re.match(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", line)
    if floor:
        print(f"{floor[1]}=={floor[2]}")

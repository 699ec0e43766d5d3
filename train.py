"""The door of a checkout: ``python train.py fit ...`` is ``zoo fit ...``, and so for every other command.

python train.py fit     --config configs/quickstart.yaml
python train.py test    --run-folder runs/finetune-quickstart
python train.py predict --run-folder runs/finetune-quickstart --data.predict.files '[my_jets.arrow]'
python train.py fit --help
"""

from zoo.cli import main

if __name__ == "__main__":
    main()

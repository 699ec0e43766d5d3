"""The door of a checkout: ``python train.py fit ...`` is ``zoo fit ...``, and so for every other command.

python train.py fit     --config configs/quickstart/lorentznet.yaml
python train.py test    --config configs/quickstart/lorentznet.yaml
python train.py predict --config configs/quickstart/lorentznet.yaml --data.predict.files '[my_jets.arrow]'
python train.py fit --help
"""

from zoo.cli import main

if __name__ == "__main__":
    main()

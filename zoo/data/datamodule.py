"""The data module: splits of files in, loaders of `JetBatch` out."""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import numpy as np

from zoo.data.augment import Augmentation
from zoo.data.classes import merge_classes
from zoo.data.context import ContextTable
from zoo.data.datasets import DATASETS, describe_dataset, resolve_files
from zoo.data.description import Description, read_description
from zoo.data.features import FeatureTable
from zoo.data.features_yaml import named_context, named_features
from zoo.data.loader import WORKER_TIMEOUT, BatchRows, JetDataset, JetLoader, make_loader
from zoo.data.odd_jets import OddJetsWarning
from zoo.data.oddities import find_oddities_of_files
from zoo.data.source import Sources
from zoo.data.split_tables import SplitTables
from zoo.data.store import JetTable
from zoo.data.targets import require_targets
from zoo.data.turning import ColumnChanges
from zoo.data.weaver.data_config import WeaverYaml
from zoo.data.weaver.formulas import formula_table


@dataclasses.dataclass
class Split:
    """Which jets of which files.

    Args:
        files: paths of files or converted folders, patterns such as ``jets/*.root``, both also behind a name as in
            weaver's ``QCD:jets/QCD_*.root``; or names of packaged samples like ``sample:top_tagging/train``.
        rows: first row and the row after the last, of each file.
        fraction: the same as fractions of each file, such as (0.0, 0.6).

    Raises:
        ValueError: if there is no file, both ``rows`` and ``fraction`` are given, or their order is wrong.
    """

    files: list[str]
    rows: tuple[int, int] | None = None
    fraction: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.files or len(set(self.files)) < len(self.files):
            raise ValueError(f"files: give at least one file and none twice, not {self.files}")
        if self.rows is not None and self.fraction is not None:
            raise ValueError("rows and fraction are two ways to say the same; give one of them")
        if self.rows is not None and not 0 <= self.rows[0] < self.rows[1]:
            raise ValueError(f"rows: must be the first row and the row after the last, not {list(self.rows)}")
        if self.fraction is not None and not 0 <= self.fraction[0] < self.fraction[1] <= 1:
            raise ValueError(f"fraction: must be two rising numbers from 0 to 1, not {list(self.fraction)}")

    def ranges(
        self, sources: Sources, layout: Description | None = None, *, labelled: bool = True
    ) -> dict[Path, tuple[int, int]]:
        """First row and the row after the last of each file, by its resolved path; arguments as of `Sources.get`."""
        paths = resolve_files(self.files)
        return {path: self._range(len(sources.get(path, layout, labelled=labelled))) for path in paths}

    def _range(self, rows: int) -> tuple[int, int]:
        if self.fraction is not None:
            return math.floor(self.fraction[0] * rows), math.floor(self.fraction[1] * rows)
        return (0, rows) if self.rows is None else tuple(self.rows)


def find_features(features: str, description: Description | None) -> FeatureTable:
    """The features of a model: those of weaver's data file, of a YAML file, or of a name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there are none of that name, the file is wrong, or a scale is yet to be fitted.
    """
    if isinstance(description, WeaverYaml):
        return description.feature_table
    return named_features(features)


class Interface(NamedTuple):
    """What a model and its data must agree on.

    The features of weaver's data file are columns that exist only when jets are read with it; ``formulas`` says what
    they are.
    """

    features: FeatureTable
    context: ContextTable
    classes: tuple[str, ...]
    formulas: FeatureTable | None = None


def interface_of(settings: dict[str, Any]) -> Interface:
    """The interface of a training, from the section ``data`` of its ``config.yaml``.

    Raises:
        FileNotFoundError: if a file that it names is not there.
        ValueError: if such a file is wrong.
    """
    names = ("layout", "weaver_yaml", "classes")
    layout = read_description(*map(settings.get, names), labelled=settings.get("labelled") is not False)
    sources = (layout or describe_dataset(settings["dataset"])).classes
    classes = merge_classes(settings.get("merge"), sources).names
    features, context = find_features(settings["features"], layout), named_context(settings.get("context"))
    return Interface(features, context, classes, _formulas(layout))


def _formulas(layout: Description | None) -> FeatureTable | None:
    return formula_table(layout) if isinstance(layout, WeaverYaml) else None


class JetDataModule(pl.LightningDataModule):
    """Jets of a data set in batches: shuffled globally for training, sorted by length for evaluation.

    Args:
        dataset: name of the data set, see `zoo.data.datasets`.
        features: name of the feature table, see `zoo.data.features`, or a YAML file, see `zoo.data.features_yaml`.
        train: jets to train on.
        val: jets to validate on.
        test: jets to test on.
        predict: jets to predict.
        batch_size: largest number of jets in a training batch of one process.
        eval_batch_size: the same for validation, test and prediction.
        num_workers: number of loader processes; 0 loads in the main process.
        train_fraction: use only the first jets of each file of the training split, as a fraction of its rows.
        train_jets: the same as a number of rows of all files, of which each gives the same part.
        class_weights: factors of the weights of the training jets, one per class, or "balanced" for equal sums.
        normalise_weights: whether the weights of the training jets are divided by their mean absolute value, so that
            the learning rate does not depend on their scale. They may be negative, as those of generators beyond
            leading order, as long as those of each class sum to more than 0.
        observers: fields of the jets, by the names in the layout, that test and ``predict`` write beside the logits;
            None: the observers of ``weaver_yaml``.
        seed: together with the epoch it determines the order of the training jets.
        layout: YAML file that says which columns of the files hold what, see `zoo.data.formats.layout_yaml`; it
            replaces ``dataset`` and gives the classes.
        verify: whether converted folders are compared with their checksums before use, which reads them once; None: if
            they hold 1 GB at most. Files are always compared.
        weaver_yaml: data file of weaver, see `zoo.data.weaver.data_config`; it replaces ``dataset`` and ``features``.
        classes: names of the classes if the labels of that file are custom ones.
        context: name of the table of context features, the inputs of an event as a whole, see `zoo.data.context`; or a
            YAML file, see `zoo.data.features_yaml`. None: there are none.
        merge: classes to train on, each with the classes of the files that it combines, such as ``{background: [ttH,
            ttW, ttWW, ttZ], signal: [tttt]}``; see `zoo.data.classes`. None: those of the files.
        max_rejected: largest fraction of the jets of the training, validation or test split that may be left out as
            bad; more is an error, as the remaining jets are a different sample.
        augmentation: random changes, drawn for each training jet in every epoch: a ``rotation`` about the beam, a
            ``reflection`` that leaves the beam, or both; see `zoo.data.augment`. None: nothing.
        labelled: whether each jet of the training, validation and test splits must have a class. False: a jet has the
            label -1 where its file does not give the class, and neither labels nor weights are checked. None: as the
            task of the training requires, and True without a task.
        targets: names of what is learnt beside the class: fields of the files, or quantities computed from the momenta
            of a jet, such as ``jet_mass``, see `zoo.data.targets`. None: those that the task of the training learns.
            The jets to predict need none.
        augmentation_columns: how columns change under the augmentation if their names do not say it, see
            `zoo.data.turning`.
        worker_timeout: seconds after which loader processes that deliver no batch are killed, with an error.

    Raises:
        ValueError: if an argument is out of range or contradicts another.
    """

    def __init__(
        self,
        dataset: str = "top_tagging",
        features: str = "kin",
        train: Split | None = None,
        val: Split | None = None,
        test: Split | None = None,
        predict: Split | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        train_fraction: float | None = None,
        train_jets: int | None = None,
        class_weights: list[float] | Literal["balanced"] | None = None,
        seed: int = 1,
        layout: str | None = None,
        verify: bool | None = None,
        weaver_yaml: str | None = None,
        classes: list[str] | None = None,
        context: str | None = None,
        merge: dict[str, list[str]] | None = None,
        augmentation: list[Literal["rotation", "reflection"]] | None = None,
        augmentation_columns: ColumnChanges | None = None,
        normalise_weights: bool = True,
        observers: list[str] | None = None,
        max_rejected: float = 0.1,
        worker_timeout: float = WORKER_TIMEOUT,
        labelled: bool | None = None,
        targets: list[str] | None = None,
    ) -> None:
        super().__init__()
        if augmentation and weaver_yaml is not None:
            raise ValueError("augmentation: the features of a 'weaver_yaml' are made before it; leave one of them out")
        self.labelled = labelled = labelled is not False
        self.layout = read_description(layout, weaver_yaml, classes, labelled=labelled)
        self._layouts = {name: _for_split(self.layout, name) for name in ("train", "val", "test", "predict")}
        self.description = self.layout or describe_dataset(dataset)
        self.feature_table = find_features(features, self.layout)
        self.context_table = named_context(context)
        self.merged_classes = merge_classes(merge, self.description.classes)
        self.splits = {"train": train, "val": val, "test": test, "predict": predict}
        self.batch_size = _at_least(1, "batch_size", batch_size)
        self.eval_batch_size = _at_least(1, "eval_batch_size", eval_batch_size)
        self.num_workers = _at_least(0, "num_workers", num_workers)
        self.seed = _at_least(0, "seed", seed)
        if not 0 < worker_timeout < math.inf:
            raise ValueError(f"worker_timeout: must be a number of seconds above 0, not {worker_timeout}")
        self.worker_timeout = worker_timeout
        self.verify = verify
        changes = augmentation_columns or ColumnChanges()
        self.augmentation = Augmentation(tuple(augmentation), seed, changes) if augmentation else None
        if train_fraction is not None and train_jets is not None:
            raise ValueError("train_fraction and train_jets are two ways to say the same; give one of them")
        if train_fraction is not None and not 0 < train_fraction <= 1:
            raise ValueError(f"train_fraction: must be above 0 and at most 1, not {train_fraction}")
        if not 0 <= max_rejected <= 1:
            raise ValueError(f"max_rejected: must be from 0 to 1, not {max_rejected}")
        self.max_rejected = max_rejected
        self.train_fraction = train_fraction
        self.train_jets = None if train_jets is None else _at_least(1, "train_jets", train_jets)
        self.class_weights = _check_class_weights(class_weights, self.classes)
        self.normalise_weights = normalise_weights
        self.observers = self._named_observers(observers)
        self.targets = None if targets is None else tuple(targets)
        self._must_observe = observers is not None
        self._datasets: dict[str, JetDataset] = {}
        self._is_odd = False
        self._order_of_checkpoint: dict[str, int] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self.merged_classes.names

    @property
    def interface(self) -> Interface:
        """What a model must agree on with these data."""
        return Interface(self.feature_table, self.context_table, self.classes, _formulas(self.layout))

    @property
    def input_dim(self) -> int:
        """Number of features per particle."""
        return self.feature_table.input_dim

    @property
    def context_dim(self) -> int:
        """Number of context features per jet or event."""
        return self.context_table.context_dim

    def setup(self, stage: str | None = None) -> None:
        """Read the splits of a stage (``fit``, ``validate``, ``test``, ``predict``; None: all that are given).

        Raises:
            ValueError: if the stage's split is not given, jets of one split are in another, or a file is bad.
        """
        given = [name for name, split in self.splits.items() if split is not None]
        needed = {"fit": ["train"], "validate": ["val"], "test": ["test"], "predict": ["predict"], None: []}[stage]
        for name in needed:
            if name not in given:
                raise ValueError(f"{name}: no split is given; add 'data.{name}.files' to the configuration")
        wanted = {"fit": ["train", "val"], None: given}.get(stage, needed)
        with Sources(self.verify) as sources:
            self._check_overlaps(sources)
            for name in wanted:
                if name in given and name not in self._datasets:
                    self._datasets[name] = self._read(name, sources)

    def _check_overlaps(self, sources: Sources) -> None:
        """Refuse a test on jets seen in training; warn of other overlaps, which may be intended."""
        ranges = {}
        for name in ("train", "val", "test"):
            if self.splits[name] is not None:
                try:
                    ranges[name] = self.splits[name].ranges(sources, self._layouts[name], labelled=self.labelled)
                except FileNotFoundError:
                    continue  # the files of a stage may come later than those of another; reading them decides
        for (one, ranges_one), (two, ranges_two) in itertools.combinations(ranges.items(), 2):
            for path in ranges_one.keys() & ranges_two.keys():
                start = max(ranges_one[path][0], ranges_two[path][0])
                stop = min(ranges_one[path][1], ranges_two[path][1])
                if start < stop:
                    message = f"{one} and {two} share rows {start} to {stop} of {path}; give them different rows"
                    if (one, two) == ("train", "test"):
                        raise ValueError(message)
                    warnings.warn(message, stacklevel=3)

    def _read(self, name: str, sources: Sources) -> JetDataset:
        layout, labelled = self._layouts[name], self._needs_labels(name)
        ranges = self.splits[name].ranges(sources, layout, labelled=labelled)
        found = SplitTables(name)
        rows_of_files = [len(sources.get(path, layout, labelled=labelled)) for path in ranges]
        first_index = np.cumsum([0, *rows_of_files])[:-1].tolist()
        first_of_file = dict(zip(ranges, first_index, strict=True))
        if name == "train":
            ranges = self._limit(ranges)
        tables = [
            (self._check_table(path, table, name), first_of_file[path])
            for path, rows in ranges.items()
            for table in found.open(sources.get(path, layout, labelled=labelled), rows)
        ]
        found.require(1.0 if name == "predict" else self.max_rejected)
        self._warn_of_oddities(name, found.tables)
        if name in ("test", "predict") and self._must_observe:
            self._require_observers(ranges, [table for table, _ in tables])
        class_of_source = np.array(self.merged_classes.of_source)
        targets = () if name == "predict" else self._target_names
        for path, table in found.tables:
            require_targets(targets, table, path)
        dataset = JetDataset(
            *zip(*tables, strict=True), self.feature_table, self.context_table, class_of_source, targets=targets
        )
        if name == "train" and self.augmentation is not None:
            dataset.augment(self.augmentation)
        if not labelled:
            return dataset
        sums, sizes = dataset.weight_sums(len(self.classes))
        if not any(table.weight.any() for table in dataset.tables):
            raise ValueError(f"{name}: all weights are 0; correct them, or leave the weight out of the layout")
        self._check_weights(name, sums, sizes)
        if name == "train":
            self._warn_of_absent(dataset.class_counts(len(self.description.classes)))
            dataset.class_weights = self._weigh_classes(sums, sizes, len(dataset))
        return dataset

    @property
    def _target_names(self) -> tuple[str, ...]:
        if self.targets is not None or self.trainer is None:
            return self.targets or ()
        return getattr(self.trainer.lightning_module, "target_fields", ())  # a module that is no task has none

    def _require_observers(self, paths: Iterable[Path], tables: list[JetTable]) -> None:
        for table, observer in itertools.product(tables, self.observers):
            try:
                table.field(observer)
            except ValueError as error:
                raise ValueError(f"data.observers: {error} ({', '.join(map(str, paths))})") from None

    def _warn_of_oddities(self, name: str, tables: list[tuple[Path, JetTable]]) -> None:
        """Warn once of what `zoo data info` would find odd in the columns that the model sees."""
        if self._is_odd or (self.trainer is not None and not self.trainer.is_global_zero):
            return
        oddities = list(find_oddities_of_files(tables, {*self.feature_table.columns, *self.context_table.fields}))
        if oddities:
            self._is_odd = True
            warnings.warn(OddJetsWarning(f"{name}: odd: {'; '.join(oddities)}"), stacklevel=5)

    def _check_weights(self, name: str, sums: np.ndarray, sizes: np.ndarray) -> None:
        """Refuse weights that give no valid loss or efficiency, before the first step of a training."""
        for number, (total, size) in enumerate(zip(sums, sizes, strict=True)):
            if total <= 0 < size:
                raise ValueError(
                    f"{name}: the weights of class {self.classes[number]!r} sum to {total:.6g} (their absolute values "
                    f"to {size:.6g}); no efficiency is defined where the sum is not above 0: take more jets, or "
                    "leave the weight out of the layout"
                )

    @property
    def _is_limited(self) -> bool:
        return self.train_jets is not None or self.train_fraction is not None

    def _limit(self, ranges: dict[Path, tuple[int, int]]) -> dict[Path, tuple[int, int]]:
        """The first rows of each file of the training split, as many as ``train_fraction`` or ``train_jets`` say.

        Every file gives the same fraction of its rows, so that the mixture of files of one class each does not change.
        """
        rows = sum(stop - start for start, stop in ranges.values())
        wanted = self.train_jets if self.train_fraction is None else max(1, round(self.train_fraction * rows))
        if wanted is None:
            return ranges
        if wanted > rows:
            raise ValueError(f"train_jets: {wanted} is more than the {rows} rows of the training split; lower it")
        limited, before = {}, 0
        for path, (start, stop) in ranges.items():
            # rounded at the ends of the files, so that the parts add up to the wanted number
            ends = [round(wanted * position / rows) for position in (before, before + stop - start)]
            before += stop - start
            if ends[1] > ends[0]:
                limited[path] = (start, start + ends[1] - ends[0])
        return limited

    def _needs_labels(self, name: str) -> bool:
        return self.labelled and name != "predict"

    def _check_table(self, path: Path, table: JetTable, name: str) -> JetTable:
        classes = list(self.description.classes)
        if not self._needs_labels(name) and not table.metadata.get("classes"):
            table = dataclasses.replace(table, metadata={**table.metadata, "classes": classes})  # all are unknown
        for key, expected in (("classes", classes), ("units", self.description.metadata["units"])):
            if table.metadata.get(key) != expected:
                found, known = table.metadata.get(key), table.metadata.get("dataset")
                is_other = known in DATASETS and known != self.description.name
                remedy = f"convert it, or set data.dataset to {known!r}" if is_other else "convert it"
                raise ValueError(f"{path}: {key} are {found}, not {expected} as in {self.description.name}; {remedy}")
        least = 0 if self._needs_labels(name) else -1
        if table.label.min() < least or table.label.max() >= len(classes):
            raise ValueError(f"{path}: column 'label' must be {least} to {len(classes) - 1}; correct the labels")
        try:
            self.feature_table.check_columns(table.particles)
            self.context_table.check_fields(table.fields)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return table

    def _warn_of_absent(self, of_sources: np.ndarray) -> None:
        """Warn of classes without a jet, from the number of jets of each class of the files."""
        absent = [repr(name) for name, count in zip(self.description.classes, of_sources, strict=True) if not count]
        if absent:
            warnings.warn(f"train: no jet is of class {', '.join(absent)}; choose other files or rows", stacklevel=4)

    def _weigh_classes(self, sums: np.ndarray, sizes: np.ndarray, jets: int) -> np.ndarray | None:
        """Factors (class,) of the weights of the training jets; None: the weights stay as they are.

        Args:
            sums: of the weights, float64 (class,).
            sizes: sums of their absolute values, float64 (class,).
            jets: number of training jets.
        """
        factors = np.ones(len(sums))
        if self.class_weights == "balanced":
            if not sums.all():
                raise ValueError("class_weights: 'balanced' needs jets of every class in the training split")
            factors = sums.sum() / (len(sums) * sums)
        elif self.class_weights is not None:
            factors = np.array(self.class_weights, dtype=np.float64)
        if self.normalise_weights and sizes.any():
            factors /= factors @ sizes / jets
        return None if (factors == 1).all() else factors

    def _named_observers(self, observers: list[str] | None) -> tuple[str, ...]:
        if observers is None:
            return self.layout.kept_fields if isinstance(self.layout, WeaverYaml) else ()
        if len(set(observers)) < len(observers):
            raise ValueError(f"observers: a name is given twice in {observers}")
        return tuple(observers)

    def observed(self, split: str, index: np.ndarray) -> dict[str, np.ndarray]:
        """The observers of some jets of a split that is set up, (jet,) each, by their ``index`` in the batches."""
        dataset = self._datasets[split]
        names = [name for name in self.observers if all(name in table.fields for table in dataset.tables)]
        return dataset.fields_of(names, index) if names else {}

    def train_dataloader(self) -> JetLoader:
        """Batches of the training split in the order of the epoch, from the trainer's position in it."""
        order = self._datasets["train"].shuffled(self.seed)
        return self._loader("train", order, self.batch_size, completed=self._completed_batches)

    def val_dataloader(self) -> JetLoader | list:
        """Batches of the validation split; none if there is no such split."""
        return self._evaluation_loader("val") if "val" in self._datasets else []

    def test_dataloader(self) -> JetLoader:
        """Batches of the test split."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> JetLoader:
        """Batches of the split to predict."""
        return self._evaluation_loader("predict")

    def _evaluation_loader(self, name: str) -> JetLoader:
        return self._loader(name, self._datasets[name].by_length(), self.eval_batch_size)

    def _loader(self, name: str, order: Any, batch_size: int, **options: Any) -> JetLoader:
        dataset = self._datasets[name]
        replicas, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        rows = BatchRows(order, len(dataset), batch_size, num_replicas=replicas, rank=rank, **options)
        return make_loader(dataset, rows, self.num_workers, self.worker_timeout)

    def state_dict(self) -> dict[str, int]:
        """Everything that determines the order of the training jets, for the checkpoint."""
        if "train" not in self._datasets:
            return {}
        return {
            "seed": self.seed,
            "train_jets": len(self._datasets["train"]),
            "batch_size": self.batch_size,
            "devices": self.trainer.world_size,
            # of several files, older versions took the first rows of the first ones
            **({"part_of_each_file": 1} if self._is_limited and len(self.splits["train"].files) > 1 else {}),
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Remember the order of the checkpoint; a fit resumed inside an epoch must have the same."""
        self._order_of_checkpoint = state_dict

    def _completed_batches(self) -> int:
        if self.trainer is None or not self.trainer.training:
            return 0
        completed = self.trainer.fit_loop.batch_idx + 1
        if completed and self._order_of_checkpoint not in (None, self.state_dict()):
            raise ValueError(
                f"the checkpoint was made inside an epoch with {self._order_of_checkpoint}, this run has "
                f"{self.state_dict()}: jets would be missed or repeated; set the same values or start at a whole epoch"
            )
        return completed


def _for_split(layout: Description | None, name: str) -> Description | None:
    """The description of a split's files; weaver's data files select different jets for training and for testing."""
    if isinstance(layout, WeaverYaml):
        return layout.for_split("test" if name == "predict" else name)
    return layout


def _at_least(smallest: int, name: str, value: int) -> int:
    if value < smallest:
        raise ValueError(f"{name}: must be at least {smallest}, not {value}")
    return value


def _check_class_weights(weights: list[float] | str | None, classes: tuple[str, ...]) -> list[float] | str | None:
    if weights is None or weights == "balanced":
        return weights
    if isinstance(weights, str) or len(weights) != len(classes) or not all(0 < w < math.inf for w in weights):
        raise ValueError(f"class_weights: must be 'balanced' or a positive number for each of {classes}, not {weights}")
    return weights

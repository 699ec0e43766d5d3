"""Masked particles: some particles of a jet are hidden and predicted from the others.

The input must not reveal what is hidden. Therefore:

- The encoder sees only the visible particles, and only their pairs, neighbours and Minkowski products.
- Features and targets relative to the jet are relative to the jet of the visible particles: the full jet would reveal
  the sum of the hidden ones.
- The queries of the decoder carry no position in the list of all particles. That list is sorted by transverse
  momentum, so a position would bracket a hidden particle between its visible neighbours. Query k of M asks for the
  k-th hardest of M hidden particles, whatever they are.

So the predictions for a jet depend only on its visible particles and on the number of hidden ones.

References:
    Masked particle modeling on sets (2024), arXiv:2401.13537.
    Is tokenization needed for masked particle modelling? (2024), arXiv:2409.12589.
"""

from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.data.batch import JetBatch
from zoo.data.features import RELATIVE_TO_JET, Feature, FeatureTable, jet_columns
from zoo.kernels.packing import leading_mask
from zoo.model import JetModel, declared
from zoo.physics import kinematics
from zoo.physics.quantities import QUANTITIES
from zoo.report import Drawings
from zoo.tasks.pretraining.objective import Pretraining
from zoo.tasks.pretraining.report import draw_codes, draw_momenta, draw_scatter
from zoo.tasks.task import require

#: What is predicted of the momentum of a hidden particle: relative to the visible jet, or to the detector if no feature
#: is relative to the jet, as for events, which have no axis.
RELATIVE = ("log_pt_fraction", "deta", "dphi")
ABSOLUTE = ("log_pt", "eta", "phi")

#: Quantities that give the type of a particle, alone or with its charge.
TYPES = frozenset(name for name, quantity in QUANTITIES.items() if quantity.is_type)

#: Number of hidden particles to which the codes are fitted.
FIT_PARTICLES = 20_000


class HiddenParticles(NamedTuple):
    """Jets with some particles hidden, and the truth about the hidden ones.

    Shapes:
        features: float32 (batch, particle, feature) of the visible particles, zero elsewhere.
        four_momenta: (batch, particle, 4) in GeV of the visible particles, zero elsewhere.
        visible: bool (batch, particle).
        counts: int64 (batch,), number of hidden particles.
        targets: (hidden, target), jet after jet and within a jet from the hardest to the softest: the momentum, see
            `momentum_of`, then the features that need columns and give no type.
        types: int64 (hidden,), position among the features that give types, or their number if none is set.
    """

    features: Tensor
    four_momenta: Tensor
    visible: Tensor
    counts: Tensor
    targets: Tensor
    types: Tensor


def draw_hidden(mask: Tensor, fraction: float, generator: torch.Generator | None = None) -> Tensor:
    """Choose the particles to hide: a random set in each jet, bool (batch, particle).

    Of two or more particles, at least one is hidden and at least one is visible; a lone particle stays visible.

    Args:
        mask: bool (batch, particle), True for a real particle.
        fraction: fraction that is hidden, rounded to whole particles.
        generator: on the CPU; None for torch's own.
    """
    counts = mask.sum(1)
    hidden = torch.minimum((fraction * counts).round().long().clamp(min=1), (counts - 1).clamp(min=0))
    score = torch.rand(mask.shape, generator=generator).to(mask.device).masked_fill(~mask, 2.0)
    return score.argsort(1).argsort(1) < hidden[:, None]


def hide(batch: JetBatch, hidden: Tensor, table: FeatureTable) -> HiddenParticles:
    """Take particles out of their jets.

    Args:
        batch: jets; label and weight are not read.
        hidden: bool (batch, particle), True for a particle to hide.
        table: table of the features in the batch.
    """
    visible = batch.mask & ~hidden
    jets = visible_jets(batch.four_momenta, visible)
    features = _features_relative_to(jets, batch, table)
    order, counts = _hardest_first(batch.four_momenta, hidden)
    formulas = FeatureTable(tuple(Feature(name, name) for name in momentum_of(table)))
    momentum = formulas.padded(batch.four_momenta, batch.mask, jets)
    targets = torch.cat([momentum, batch.features[..., _further_targets(table)]], dim=-1)
    return HiddenParticles(
        features.masked_fill(~visible[..., None], 0),
        batch.four_momenta.masked_fill(~visible[..., None], 0),
        visible,
        counts,
        _in_order(targets, order, counts),
        _in_order(_types(batch.features, table)[..., None], order, counts)[:, 0],
    )


def momentum_of(table: FeatureTable) -> tuple[str, ...]:
    """Formulas that are predicted for a hidden momentum: `RELATIVE` or `ABSOLUTE`."""
    return RELATIVE if table.is_relative_to_jet else ABSOLUTE


def visible_jets(four_momenta: Tensor, visible: Tensor) -> dict[str, Tensor]:
    """Momenta of the jets that the visible particles form, by the names of `JET_COLUMNS`, float64 (batch,) each."""
    jets = four_momenta.double().masked_fill(~visible[..., None], 0).sum(1)
    return jet_columns(jets)


def _features_relative_to(jets: dict[str, Tensor], batch: JetBatch, table: FeatureTable) -> Tensor:
    """The features; those that need momenta alone are recomputed."""
    of_momenta = [i for i, feature in enumerate(table.features) if not feature.columns]
    features = batch.features.clone()
    if of_momenta:
        chosen = FeatureTable(tuple(table.features[i] for i in of_momenta))
        features[..., of_momenta] = chosen.padded(batch.four_momenta, batch.mask, jets)
    return features


def _hardest_first(four_momenta: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the hidden particles, hardest first, then those of the others; and the number of hidden ones."""
    pt = kinematics.pt(four_momenta).masked_fill(~hidden, -1)
    return pt.argsort(dim=1, descending=True, stable=True), hidden.sum(1)


def _in_order(values: Tensor, order: Tensor, counts: Tensor) -> Tensor:
    """The first ``counts`` of each jet, after values (batch, particle, column) are put in order, (hidden, column)."""
    leading = leading_mask(counts)
    order = order[:, : leading.shape[1], None].expand(-1, -1, values.shape[2])
    return values.gather(1, order)[leading]


def _type_columns(table: FeatureTable) -> list[int]:
    """Positions of the features that give the type of a particle."""
    return [i for i, feature in enumerate(table.features) if TYPES.intersection(feature.quantities)]


def _further_targets(table: FeatureTable) -> list[int]:
    """Positions of the features that need columns and give no type: charge and impact parameters."""
    types = _type_columns(table)
    return [i for i, feature in enumerate(table.features) if feature.columns and i not in types]


def _types(features: Tensor, table: FeatureTable) -> Tensor:
    """Position among the types of the table (batch, particle), or their number where none is set."""
    columns = features[..., _type_columns(table)]
    none = features.new_full((*features.shape[:2], 1), 0.5)
    return torch.cat([columns, none], dim=-1).argmax(-1)


def _refuse_mixed(table: FeatureTable) -> None:
    """Refuse features that cannot be recomputed for the visible jet because their columns are not at hand."""
    for feature in table.features:
        if feature.columns and RELATIVE_TO_JET.intersection(feature.quantities):
            raise ValueError(
                f"data.features: {feature.name!r} is made of a particle column and of a quantity relative to the jet "
                f"of all particles ({feature.formula}), which would reveal the hidden ones; leave it out"
            )


class HiddenDecoder(nn.Module):
    """A small transformer with one query per hidden particle; the queries attend to the visible particles.

    Args:
        input_dim: width of the representation of a visible particle.
        dim: width of its own layers.
        num_layers: number of layers; each has attention among the queries and to the visible particles.
        num_heads: number of attention heads.
    """

    def __init__(self, input_dim: int, dim: int, num_layers: int, num_heads: int = 4) -> None:
        super().__init__()
        self.memory = nn.Sequential(nn.LayerNorm(input_dim), nn.Linear(input_dim, dim))
        self.query = nn.Sequential(nn.Linear(3, dim), nn.GELU(), nn.Linear(dim, dim))
        layer = nn.TransformerDecoderLayer(
            dim, num_heads, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, num_layers, norm=nn.LayerNorm(dim))

    def forward(self, representation: Tensor, visible: Tensor, counts: Tensor) -> Tensor:
        """Representation of each hidden particle, (hidden, dim), jet after jet, hardest first.

        Args:
            representation: (node, input_dim) of the visible particles, jet after jet.
            visible: int64 (batch,), number of visible particles of each jet; at least one if any is hidden.
            counts: int64 (batch,), number of hidden particles of each jet.
        """
        memory, is_memory = _padded(self.memory(representation), visible)
        is_query = leading_mask(counts)
        rank = torch.arange(is_query.shape[1], device=counts.device).expand(is_query.shape)
        number = counts[:, None].expand(is_query.shape)
        place = torch.stack([rank.log1p(), number.log1p(), (rank + 0.5) / number.clamp(min=1)], dim=-1)
        query = self.query(place.to(memory.dtype))
        some = counts > 0  # a jet without queries may have no visible particle, so attention would have no key
        if not some.any():
            return memory.new_zeros(0, memory.shape[2])
        answer = self.layers(
            query[some],
            memory[some],
            tgt_key_padding_mask=~is_query[some],
            memory_key_padding_mask=~is_memory[some],
        )
        return answer[is_query[some]]


def _padded(rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Packed rows (node, column) as (batch, particle, column), and their mask."""
    mask = leading_mask(counts)
    padded = rows.new_zeros(*mask.shape, rows.shape[1])
    padded[mask] = rows
    return padded, mask


def fit_codes(targets: Tensor, num_codes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of particles: the centres that k-means finds in standardised targets, deterministically.

    Args:
        targets: (particle, target).
        num_codes: number of centres.

    Returns:
        Mean and spread of each target, (target,), and the centres (code, target) in units of the spread.

    Raises:
        ValueError: if there are not enough particles.
    """
    from scipy.cluster.vq import kmeans2

    if len(targets) < 2 * num_codes:
        raise ValueError(
            f"model.num_codes: {num_codes} codes cannot be fitted to the {len(targets)} particles that the training "
            "jets give; lower it or take more jets"
        )
    mean, scale = targets.mean(0), targets.std(0).clamp(min=1e-6)
    standardised = ((targets - mean) / scale).double().numpy()
    centres, _ = kmeans2(standardised, num_codes, iter=25, minit="++", seed=0)
    return mean, scale, torch.from_numpy(centres).to(targets.dtype)


class MaskedParticles(Pretraining):
    r"""Predicts hidden particles of a jet from the visible ones.

    The loss is a sum over ``targets``, averaged over the hidden particles of a batch: the cross entropy of k-means
    codes of the particle's momentum (and of its charge and impact parameters where the features have them), the Huber
    loss of the same numbers, and the cross entropy of the particle's type. The momentum is relative to the visible jet
    if any feature is relative to the jet, and to the detector otherwise.

    References:
        Masked particle modeling on sets (2024), arXiv:2401.13537.
        Is tokenization needed for masked particle modelling? (2024), arXiv:2409.12589.

    Args:
        model: gives representations by ``model.encode(features, four_momenta, mask)``; a YAML file names its builder.
        feature_table: that of the data, set by the command line.
        targets: which of ``codes``, ``regression`` and ``types`` to predict; the last needs features with types.
        mask_fraction: fraction of the particles that is hidden.
        num_codes: number of codes; they are fitted to training particles and stored with the weights.
        decoder_dim: width of the decoder.
        decoder_layers: number of its layers.
        probe_fraction: fraction of the validation jets whose labels the linear probe reads, see `Pretraining`.
        learning_rate: the highest of the schedule, see `Task`.
        weight_decay: of AdamW, for parameters with two or more axes.
        warmup: fraction of all steps over which the learning rate rises.
        final_learning_rate: at the last step, as a fraction of ``learning_rate``.

    Raises:
        ValueError: if a setting lies outside its range, or the features do not fit.
    """

    purpose = "masked particles"

    target_mean: Tensor
    target_scale: Tensor
    codes: Tensor

    def __init__(
        self,
        model: nn.Module,
        feature_table: Any,  # a FeatureTable, which a parser would take for keys of the configuration
        targets: tuple[Literal["codes", "regression", "types"], ...] = ("codes",),
        mask_fraction: float = 0.35,
        num_codes: int = 128,
        decoder_dim: int = 128,
        decoder_layers: int = 2,
        probe_fraction: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        final_learning_rate: float = 0.01,
    ) -> None:
        super().__init__(model, learning_rate, weight_decay, warmup, final_learning_rate, probe_fraction)
        require("mask_fraction", mask_fraction, 0 < mask_fraction < 1, "in (0, 1)")
        require("num_codes", num_codes, num_codes >= 2, "2 or more")
        _refuse_mixed(feature_table)
        num_types = len(_type_columns(feature_table))
        if not targets:
            raise ValueError("targets: give at least one of codes, regression, types")
        if "types" in targets and not num_types:
            raise ValueError("targets: 'types' needs features with types, such as kinpid, full or events")
        self.feature_table = feature_table
        self.targets = tuple(dict.fromkeys(targets))
        self.mask_fraction = mask_fraction
        num_targets = len(momentum_of(feature_table)) + len(_further_targets(feature_table))
        self.decoder = HiddenDecoder(declared(model).embed_dim, decoder_dim, decoder_layers)
        widths = {"codes": num_codes, "regression": num_targets, "types": num_types + 1}
        self.heads = nn.ModuleDict({name: nn.Linear(decoder_dim, widths[name]) for name in self.targets})
        self.register_buffer("target_mean", torch.zeros(num_targets))
        self.register_buffer("target_scale", torch.ones(num_targets))
        self.register_buffer("codes", torch.zeros(num_codes, num_targets))

    def setup(self, stage: str) -> None:
        """Fit mean, spread and codes of the targets to training particles; a checkpoint brings its own."""
        if stage != "fit":
            return
        generator, found, number = torch.Generator().manual_seed(0), [], 0
        for batch in self.training_batches():
            hidden = draw_hidden(batch.mask, self.mask_fraction, generator)
            found.append(hide(batch, hidden, self.feature_table).targets)
            number += len(found[-1])
            if number >= FIT_PARTICLES:
                break
        fitted = fit_codes(torch.cat(found)[:FIT_PARTICLES], len(self.codes))
        for buffer, values in zip((self.target_mean, self.target_scale, self.codes), fitted, strict=True):
            buffer.copy_(self.trainer.strategy.broadcast(values))

    def predict(self, jets: HiddenParticles) -> dict[str, Tensor]:
        """Predictions (hidden, ...) by target, in the order of ``jets.targets``; only the visible particles are read.

        Args:
            jets: as `hide` gives them; ``targets`` and ``types`` are not read.
        """
        representation = cast(JetModel, self.model).encode(jets.features, jets.four_momenta, jets.visible)
        known = self.decoder(representation, jets.visible.sum(1), jets.counts)
        return {name: head(known).float() for name, head in self.heads.items()}

    @property
    def further_figures(self) -> tuple[str, ...]:
        """The loss of each target if there are several, and how often codes and types are right."""
        losses = [f"{name}_loss" for name in self.heads] if len(self.heads) > 1 else []
        return (*losses, *(f"{name}_accuracy" for name in ("codes", "types") if name in self.heads))

    def objective(
        self, batch: JetBatch, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Loss of each hidden particle, how often codes and types are right, and true and predicted momenta."""
        jets = hide(batch, draw_hidden(batch.mask, self.mask_fraction, generator), self.feature_table)
        answer = self.predict(jets)
        truth = (jets.targets - self.target_mean) / self.target_scale
        codes = torch.cdist(truth, self.codes).argmin(1)
        losses = {
            "codes": lambda logits: F.cross_entropy(logits, codes, reduction="none"),
            "regression": lambda values: F.huber_loss(values, truth, reduction="none").mean(1),
            "types": lambda logits: F.cross_entropy(logits, jets.types, reduction="none"),
        }
        parts = {name: losses[name](values) for name, values in answer.items()}
        figures = {f"{name}_loss": part for name, part in parts.items()} if len(parts) > 1 else {}
        for name, correct in (("codes", codes), ("types", jets.types)):
            if name in answer:
                figures[f"{name}_accuracy"] = (answer[name].argmax(1) == correct).float()
        shown = {"jet": batch.index.repeat_interleave(jets.counts)}
        if not self.training:
            shown |= {"true": jets.targets, "code": codes}
            shown |= self._shown(answer, generator)
        first, *others = parts.values()
        return sum(others, first), figures, shown

    def shown_drawings(self, shown: dict[str, np.ndarray]) -> Drawings:
        """Distributions of hidden momenta, true and drawn; expected against true; and how often each code occurs."""
        labels = tuple(QUANTITIES[name].label for name in momentum_of(self.feature_table))
        width = len(labels)
        true = shown["true"][:, :width]
        drawings: Drawings = {}
        if "drawn" in shown:
            caption = "Momenta of hidden particles: true, and centres of codes drawn by their chances."
            drawings["reconstruction"] = caption, draw_momenta(labels, true, shown["drawn"][:, :width])
            caption = "How often each code is there, and how often it is drawn by its predicted chances."
            drawings["codes"] = caption, draw_codes(shown["code"], shown["drawn_code"], len(self.codes))
        if "expected" in shown:
            caption = "Predicted mean against truth, number of hidden particles in colour (logarithmic)."
            drawings["expected"] = caption, draw_scatter(labels, true, shown["expected"][:, :width])
        return drawings

    def _shown(self, answer: dict[str, Tensor], generator: torch.Generator | None) -> dict[str, Tensor]:
        """Expected momenta in the units of the targets; for codes also one drawn at random, and its momentum."""
        if "codes" not in answer:
            values = answer.get("regression")
            return {} if values is None else {"expected": self._in_units(values)}
        chances = answer["codes"].softmax(1)
        drawn = chances.new_zeros(0, dtype=torch.long)
        if len(chances):
            drawn = torch.multinomial(chances.cpu(), 1, generator=generator)[:, 0].to(chances.device)
        expected, momentum = self._in_units(chances @ self.codes), self._in_units(self.codes[drawn])
        return {"expected": expected, "drawn": momentum, "drawn_code": drawn}

    def _in_units(self, standardised: Tensor) -> Tensor:
        return standardised * self.target_scale + self.target_mean

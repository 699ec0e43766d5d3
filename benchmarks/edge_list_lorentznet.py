"""LorentzNet as one would first write it: an explicit list of pairs, concatenation, ``index_add_``.

It is the peer in the benchmark and the witness in the parity tests. It shares no code with `zoo.lorentznet`; only the
names of the parameters agree, so that weights can be copied. Formulas from arXiv:2201.08187; geometry in the
precision of the input, as usual.
"""

import torch
from torch import nn


def signed_log(value):
    return torch.sign(value) * torch.log(torch.abs(value) + 1)


def square(vector):
    return vector[:, 0] ** 2 - vector[:, 1] ** 2 - vector[:, 2] ** 2 - vector[:, 3] ** 2


class EdgeListBlock(nn.Module):
    def __init__(self, width, num_scalars, coordinate_scale, last):
        super().__init__()
        self.coordinate_scale, self.last = coordinate_scale, last
        self.phi_e = nn.Sequential(
            nn.Linear(2 * width + 2, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        self.phi_h = nn.Sequential(
            nn.Linear(2 * width + num_scalars, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
        )
        self.phi_m = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid())
        if not last:
            self.phi_x = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1, bias=False))

    def forward(self, h, x, scalars, i, j):
        difference = x[i] - x[j]
        dot = x[i][:, 0] * x[j][:, 0] - (x[i][:, 1:] * x[j][:, 1:]).sum(1)
        edge = torch.cat([h[i], h[j], signed_log(square(difference))[:, None], signed_log(dot)[:, None]], dim=1)
        message = self.phi_e(edge.to(h.dtype))
        message = message * self.phi_m(message)
        total = torch.zeros_like(h).index_add_(0, i, message)
        if not self.last:
            shift = self.phi_x(message).clamp(-10, 10) * difference
            partners = torch.zeros(len(h), dtype=h.dtype).index_add_(0, i, torch.ones(len(i), dtype=h.dtype))
            mean = torch.zeros_like(x).index_add_(0, i, shift.to(x.dtype)) / partners.clamp(min=1)[:, None]
            x = x + self.coordinate_scale * mean
        return h + self.phi_h(torch.cat([h, total, scalars], dim=1)), x


class EdgeListLorentzNet(nn.Module):
    def __init__(self, num_classes, width=72, num_layers=6, dropout=0.2, coordinate_scale=5e-3):
        super().__init__()
        self.embedding = nn.Linear(2, width)
        self.blocks = nn.ModuleList(
            EdgeListBlock(width, 2, coordinate_scale, layer == num_layers - 1) for layer in range(num_layers)
        )
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, num_classes)
        )

    def forward(self, features, four_momenta, mask):
        x, kind, jet = [], [], []
        beams = self.beams(four_momenta.dtype)
        for b in range(len(mask)):
            real = four_momenta[b, mask[b]]
            x += [real, beams]
            kind += [torch.zeros(len(real), dtype=torch.long), torch.ones(2, dtype=torch.long)]
            jet.append(torch.full((len(real) + 2,), b))
        x, kind, jet = torch.cat(x), torch.cat(kind), torch.cat(jet)
        i, j = self.edges(jet)
        mass = signed_log(square(x).abs().sqrt())
        scalars = (nn.functional.one_hot(kind, 2) * mass[:, None]).to(self.embedding.weight.dtype)
        h = self.embedding(scalars)
        for block in self.blocks:
            h, x = block(h, x, scalars, i, j)
        total = torch.zeros(len(mask), h.shape[1], dtype=h.dtype).index_add_(0, jet, h)
        return self.head(total / torch.bincount(jet)[:, None])

    def beams(self, dtype):
        return torch.tensor([[2**0.5, 0, 0, 1], [2**0.5, 0, 0, -1]], dtype=dtype)

    @staticmethod
    def edges(jet):
        rows, cols, begin = [], [], 0
        for count in torch.bincount(jet).tolist():
            grid = ~torch.eye(count, dtype=torch.bool)
            pair = grid.nonzero() + begin
            rows.append(pair[:, 0])
            cols.append(pair[:, 1])
            begin += count
        return torch.cat(rows), torch.cat(cols)

"""A tape that decodes while a trace records it: a codec on it becomes TorchScript, written no second time.

A trace keeps what tensors do and forgets what Python decides, so whatever depends on the stream happens inside the functions of
scripted.py, which a trace calls. What it bakes in are sizes, the order of coding, tables and exact networks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from . import seal
from .frozen import Frozen
from .layout import SHAPES
from .scripted import close_segment, compiled, open_segment, read_chunk, tensors_of
from .tables import Tables
from .tapes import FIXED, DecodeTape, Prior, Rung


class ScriptTape(DecodeTape):
    """segments: tensors of bytes, of one sample; sealed: the seal of its head.

    Frozen has to have decoded an image of that size: nothing may be made under a trace.
    """

    def __init__(self, frozen: Frozen, segments: list[Tensor], sealed: Tensor, rung: Rung = FIXED) -> None:
        super().__init__(frozen, [[]], [0], rung)
        self.segments = segments
        self.sealed = sealed
        self.readers: dict[str, list[Tensor]] = {}
        self.lists: dict[int, tuple[Tables, list[Tensor]]] = {}  # by id of the tables, which have to live as long

    def code(self, name: str, y: Tensor, prior: Prior) -> Tensor:
        y, prior = self.rung.scaled(name, y.double(), prior)
        return self.keep(name, self._read(name, y, prior), prior)

    def send(self, name: str, y: Tensor, prior: Any) -> Tensor:
        raise UserError(f"latent {name} is coded by questions that depend on the answers, as mixtures are: its decoder cannot be exported")

    def _read(self, name: str, y: Tensor, prior: Any) -> Tensor:
        index = prior.index(y.shape).flatten()
        tables = self.frozen.tables(prior.family)
        if name not in self.readers:
            own = self.segments[len(self.readers)]
            if self.readers:  # a segment is read to its end before the next one starts
                own = torch.cat([own, self.carried()])
            self.readers[name] = compiled(open_segment)(own, torch.tensor(SHAPES))
        if id(tables) not in self.lists:
            self.lists[id(tables)] = tables, tensors_of(tables)
        symbols, *self.readers[name] = compiled(read_chunk)(index, self.lists[id(tables)][1], self.readers[name])
        self.sealed = (self.sealed + seal.of_symbols(symbols.view(1, -1), self.place)) & seal.MASK
        self.place += int(symbols.numel())
        return symbols.view(y.shape)

    def carried(self) -> Tensor:
        """What the latest segment did, once it is read to its end."""
        return compiled(close_segment)(next(reversed(self.readers.values())), self.sealed)

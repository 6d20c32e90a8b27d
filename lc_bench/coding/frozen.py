"""What coding needs of a trained model, made once: probability tables, exact networks, identity.

Networks that feed probabilities run in exact arithmetic (exact.py). One that has no exact form runs as a float64 copy, and its
streams decode where they were written: the header says so.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .container import Identity
from .exact import NoExactForm, exact_form
from .tables import Tables

STEPS_KEPT = 2  # of a latent of variable step, whose tables take tens of MiB for each: a stream's header says which

_steps = threading.Lock()  # of no model, so that models can be copied


def weights_digest(model: nn.Module) -> bytes:
    """SHA-256 over names, types and values of the state."""
    sha = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha.digest()


def fingerprint(model: nn.Module) -> tuple[object, ...]:
    """Changes whenever a parameter or buffer is replaced or written to, behind autograd's back too; cheap enough to ask every time."""
    tensors = [t.detach() for t in (*model.parameters(), *model.buffers())]
    versions = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
    return versions, torch.stack([t.sum(dtype=torch.float32) for t in tensors]).cpu().numpy().tobytes()


def place(device: torch.device) -> bytes:
    """2 bytes that tell where a float64 network gives the same bits: kind of device, its name or instructions, version of torch."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return hashlib.sha256(f"{device.type} {kind} {torch.__version__}".encode()).digest()[:2]


def repeatable() -> AbstractContextManager[None]:
    """Inside, convolutions on a GPU choose algorithms that add in a fixed order, so that the receiver repeats the sender."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


@runtime_checkable
class HasTables(Protocol):
    """A prior with tables of its own."""

    def make_tables(self) -> Tables: ...


@runtime_checkable
class HasNearest(Protocol):
    """A prior with a lookup of its own from a scale to its table."""

    nearest: Tensor


class Frozen:
    """Tables, exact networks and shapes of one model, made when first asked for."""

    def __init__(self, model: nn.Module, architecture: bytes) -> None:
        self.fingerprint = fingerprint(model)
        self.device = next(model.parameters()).device
        self._tables: dict[HasTables, Tables] = {}
        self._of_steps: dict[HasTables, Tables] = {}  # the latest last
        self._exact: dict[nn.Module, nn.Module] = {}
        self._meta: dict[nn.Module, nn.Module] = {}
        self._shapes: dict[tuple[nn.Module, tuple[int, ...]], torch.Size] = {}
        self.inexact: list[str] = []  # why networks have no exact form
        sha = hashlib.sha256(weights_digest(model))
        for module in model.modules():
            if isinstance(module, HasTables):
                self._tables[module] = module.make_tables().to(self.device)
                sha.update(self._tables[module].digest())
            if isinstance(module, HasNearest):
                sha.update(module.nearest.cpu().numpy().astype("<i4").tobytes())
        self.identity = Identity(hashlib.sha256(architecture).digest()[:1], sha.digest()[:3])

    def tables(self, family: HasTables) -> Tables:
        """Probability tables of a prior's family, on the model's device."""
        if family in self._tables:
            return self._tables[family]
        with _steps:  # of a step that a level asks for
            found = self._of_steps.pop(family, None) or family.make_tables().to(self.device)
            self._of_steps[family] = found
            while len(self._of_steps) > STEPS_KEPT:
                self._of_steps.pop(next(iter(self._of_steps)))
            return found

    def exact(self, net: nn.Module) -> nn.Module:
        """The network in exact arithmetic, or, where it has none, a float64 copy; `inexact` then says why."""
        if net not in self._exact:
            try:
                self._exact[net] = exact_form(net)
            except NoExactForm as reason:
                self.inexact.append(str(reason))
                self._exact[net] = copy.deepcopy(net).double().eval().requires_grad_(False)
        return self._exact[net]

    @property
    def place(self) -> bytes:
        return place(self.device)

    @property
    def bound(self) -> bytes:
        """The place, if a network that was used has no exact form; else nothing."""
        return self.place if self.inexact else b""

    def output_shape(self, net: nn.Module, shape: torch.Size) -> torch.Size:
        """Shape of net(x) for x of that shape, without computing it."""
        key = net, tuple(map(int, shape))
        if key not in self._shapes:
            if net not in self._meta:
                self._meta[net] = copy.deepcopy(net).to("meta")
            self._shapes[key] = self._meta[net](torch.empty(shape, device="meta")).shape
        return self._shapes[key]

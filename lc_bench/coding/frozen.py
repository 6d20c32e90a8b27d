"""What coding needs of a trained model, made once: probability tables, exact networks, identity.

Networks that feed probabilities run in exact arithmetic (exact.py). One that has no exact form runs as a float64 copy, and its
streams decode where they were written: the header says so.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from ..ops.first_weights import usual_settings
from .container import Identity
from .exact import NoExactForm, exact_form
from .tables import Tables

STEPS_KEPT = 2  # of a latent of variable step, whose tables take tens of MiB for each: a stream's header says which

_steps = threading.Lock()  # of no model, so that models can be copied


def weights_digest(model: nn.Module) -> bytes:
    """SHA-256 over names, types and values of the state. The same values have the same digest, whatever floating type holds them."""
    sha = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        value = _in_float32(value.detach().cpu())
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(_bytes_of(value))
    return sha.digest()


def _in_float32(value: Tensor) -> Tensor:
    """The same values in float32. Float64 values that it does not hold, and whole numbers, stay as they are."""
    if not value.is_floating_point() or value.dtype == torch.float32:
        return value
    single = value.float()
    return value if value.dtype == torch.float64 and not torch.equal(single.double(), value) else single


def _bytes_of(value: Tensor) -> memoryview:
    """The bytes of the values, on the CPU."""
    return value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def fingerprint(model: nn.Module) -> bytes:
    """Changes whenever a parameter, a buffer or a layer is replaced, or one of their bytes; fast enough to ask for every call."""
    hashed = xxhash.xxh3_128()
    for name, module in model.named_modules():
        hashed.update(f"{name} {type(module).__qualname__} ".encode())
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        hashed.update(f"{name} {value.dtype} {tuple(value.shape)} {value.device} ".encode())
        hashed.update(_bytes_of(value))
    return hashed.digest()


def place(device: torch.device) -> bytes:
    """2 bytes that tell where a float64 network gives the same bits: kind of device, its name or instructions, version of torch."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return hashlib.sha256(f"{device.type} {kind} {torch.__version__}".encode()).digest()[:2]


def table_maker(family: Any) -> Callable[[], Tables] | None:
    """Of a prior that has tables of its own. What a module offers is asked of it by name: runtime protocols see other
    attributes in each version of Python."""
    maker: Callable[[], Tables] | None = getattr(family, "make_tables", None)
    return maker if callable(maker) else None


def lookup_of(module: nn.Module) -> Tensor | None:
    """Of a prior with a lookup of its own from a scale to its table."""
    nearest = getattr(module, "nearest", None)
    return nearest if isinstance(nearest, Tensor) else None


class Frozen:
    """Tables, exact networks and shapes of one model, made when first asked for."""

    def __init__(self, model: nn.Module, architecture: bytes, mark: bytes | None = None) -> None:
        """mark: the model's fingerprint, if it is known."""
        self.fingerprint = mark or fingerprint(model)
        self.device = next(model.parameters()).device
        self._tables: dict[Any, Tables] = {}
        self._of_steps: dict[Any, Tables] = {}  # the latest last
        self._exact: dict[nn.Module, nn.Module] = {}
        self._meta: dict[nn.Module, nn.Module] = {}
        self._shapes: dict[tuple[nn.Module, tuple[int, ...]], torch.Size] = {}
        self.inexact: list[str] = []  # why networks have no exact form
        sha = hashlib.sha256(weights_digest(model))
        for module in model.modules():
            make_tables = table_maker(module)
            if make_tables is not None:
                self._tables[module] = make_tables().to(self.device)
                sha.update(self._tables[module].digest())
            nearest = lookup_of(module)
            if nearest is not None:
                sha.update(nearest.cpu().numpy().astype("<i4").tobytes())
        self.identity = Identity(hashlib.sha256(architecture).digest()[:1], sha.digest()[:3])

    def tables(self, family: Any) -> Tables:
        """Probability tables of a prior's family, on the model's device."""
        if family in self._tables:
            return self._tables[family]
        with _steps:  # of a step that a level asks for
            found = self._of_steps.pop(family, None) or self._made(family)
            self._of_steps[family] = found
            while len(self._of_steps) > STEPS_KEPT:
                self._of_steps.pop(next(iter(self._of_steps)))
            return found

    def _made(self, family: Any) -> Tables:
        with usual_settings(), torch.no_grad():
            return family.make_tables().to(self.device)

    def exact(self, net: nn.Module) -> nn.Module:
        """The network in exact arithmetic, or, where it has none, a float64 copy; `inexact` then says why."""
        if net not in self._exact:
            with usual_settings(), torch.no_grad():
                self._make_exact(net)
        return self._exact[net]

    def _make_exact(self, net: nn.Module) -> None:
        if net in self._exact:  # by another thread, meanwhile
            return
        try:
            self._exact[net] = exact_form(net)
        except NoExactForm as reason:
            self.inexact.append(str(reason))
            self._exact[net] = copy.deepcopy(net).double().eval().requires_grad_(False)

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
                self._meta[net] = copy.deepcopy(net).to("meta", torch.float32)
            self._shapes[key] = self._meta[net](torch.empty(shape, device="meta", dtype=torch.float32)).shape
        return self._shapes[key]

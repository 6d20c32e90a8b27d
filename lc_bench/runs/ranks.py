"""One run in several processes: started here on one machine, or found as torchrun or SLURM started them.

trainer.devices says how many there are. Each is a process of its own with a device of its own (a rank); Lightning connects them. A rank
that fails ends the others, and its cause is what the command tells; Ctrl-C reaches each rank once.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf

from ..config import explain
from ..errors import UserError
from ..ops import stopping
from ..ops.device import pick_device
from ..ops.notices import hide_known, hide_lightnings

T = TypeVar("T")
START = "spawn"  # a fork of a process that has used CUDA cannot use it
GRACE = 0.3  # seconds in which other ranks may say what they failed of


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of so many samples are this rank's: each is exactly one rank's."""
        return range(self.rank, count, self.world)

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order, on every rank; all have to call it."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(gathered, value)
        return gathered


def launch(body: Callable[[DictConfig], T], cfg: DictConfig) -> T:
    """body(cfg) in as many processes as the configuration asks for; what the first of them returns. body: of a module, not local."""
    leave_slurm_without_srun()
    if started_elsewhere():
        check_number(cfg.trainer)
        return body(cfg)
    if is_one(cfg.trainer):
        return body(cfg)
    if cfg.trainer.get("num_nodes", 1) > 1:
        raise UserError(
            f"trainer.num_nodes={cfg.trainer.num_nodes}: start the command on every node with torchrun or srun; see docs/cluster.md"
        )
    return _spawn(body, cfg, device_count(cfg.trainer))


def join(cfg: DictConfig) -> Ranks:
    """Meet the other ranks of this run, and agree on the output folder: torchrun lets every rank find one for itself."""
    if is_one(cfg.trainer) and not started_elsewhere():
        return Ranks(single_device(cfg.trainer))
    from lightning.fabric import Fabric

    hide_lightnings()
    asked = {key: cfg.trainer[key] for key in ("accelerator", "devices", "num_nodes", "strategy") if key in cfg.trainer}
    fabric = Fabric(**asked)
    fabric.launch()
    if fabric.global_rank:
        logging.getLogger().setLevel(logging.WARNING)  # one of them tells what all do
    own = str(cfg.output)
    cfg.output = fabric.broadcast(own)
    return Ranks(fabric.device, fabric.global_rank, fabric.world_size)


def single_device(trainer: DictConfig) -> torch.device:
    """Of a run in one process. trainer.devices=[1] is the second GPU."""
    accelerator = str(trainer.get("accelerator", "auto"))
    device = pick_device({"gpu": "cuda"}.get(accelerator, accelerator))
    listed = trainer.get("devices", 1)
    chosen = device.type == "cuda" and OmegaConf.is_list(listed)
    return torch.device("cuda", listed[0]) if chosen else device


def started_elsewhere() -> bool:
    """Whether this process is one of several already: by torchrun, SLURM, or `launch`."""
    if not {"TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "LOCAL_RANK"} & os.environ.keys():
        return False
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    return TorchElasticEnvironment.detect() or SLURMEnvironment.detect() or LightningEnvironment().creates_processes_externally


def leave_slurm_without_srun() -> None:
    """In a batch script, or a process that a task of srun started, this is no task: Lightning is not to take it for one of several."""
    if "SLURM_STEP_ID" not in os.environ:
        os.environ.pop("SLURM_NTASKS", None)


def check_number(trainer: DictConfig) -> None:
    """UserError where torchrun or srun started another number of processes than the configuration says; they would train apart."""
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    found = int(os.environ.get("WORLD_SIZE" if by_torchrun else "SLURM_NTASKS", "0"))
    nodes = int(trainer.get("num_nodes", 1))
    devices = device_count(trainer)
    if found and found != devices * nodes:
        starter = "torchrun" if by_torchrun else "srun"
        raise UserError(
            f"trainer.devices={trainer.get('devices', 1)} on {nodes} node(s) is {devices * nodes} process(es), "
            f"but {starter} started {found}: "
            f"give trainer=ddp (or ddp_cpu), trainer.devices and trainer.num_nodes that make {found}, or start another number"
        )
    if found and not by_torchrun:
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(devices))  # where srun was told --ntasks, Lightning misses it


def is_one(trainer: DictConfig) -> bool:
    """Whether the configuration asks for one process in all."""
    return device_count(trainer) * int(trainer.get("num_nodes", 1)) == 1


def device_count(trainer: DictConfig) -> int:
    """How many processes on this machine; UserError where there are fewer devices."""
    devices, accelerator = trainer.get("devices", 1), str(trainer.get("accelerator", "auto"))
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    present = torch.cuda.device_count() if on_gpu else None
    if devices in ("auto", -1, "-1"):
        return present or 1
    if isinstance(devices, int) and not isinstance(devices, bool) and devices >= 1:
        if present is not None and devices > present:
            raise UserError(f"trainer.devices={devices}: this machine has {present} CUDA devices; trainer=ddp_cpu takes any number")
        return devices
    if present is not None and not isinstance(devices, str | bool | int) and len(devices):
        return len(devices)
    raise UserError(f"trainer.devices={devices}: give a number from 1 on, or auto; on GPUs also a list such as [0,2]")


def _spawn(body: Callable[[DictConfig], T], cfg: DictConfig, count: int) -> T:
    from hydra.core.hydra_config import HydraConfig
    from torch.multiprocessing.spawn import start_processes

    cfg = cfg.copy()
    cfg.output = str(Path(cfg.output).resolve())
    # As plain values: Hydra may have loaded the classes of its configuration anew since, which then do not pickle.
    hydra = OmegaConf.to_container(HydraConfig.get(), resolve=False) if HydraConfig.initialized() else None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="lc_bench-ranks-") as folder, stopping.handing_on(_hand_on):
        # torch's, because its processes end when this one is killed.
        started = start_processes(_rank, (body, cfg, hydra, port, count, folder), nprocs=count, join=False, start_method=START)
        assert started is not None
        processes = [process for process in started.processes if process is not None]
        try:
            left = processes
            while left:
                wait([process.sentinel for process in left], timeout=1.0)
                ended = {process: process.exitcode for process in processes}
                failed = [status for status in ended.values() if status]
                if failed:
                    raise _cause(Path(folder), min(failed))  # signals are below 0
                left = [process for process, status in ended.items() if status is None]
        finally:
            for process in processes:  # they may wait for one that is no more
                process.kill()
        result, ended = pickle.loads((Path(folder) / "result").read_bytes())
        if ended:
            stopping.note_end(ended)
        return result


def _rank(local: int, body: Callable[[DictConfig], Any], cfg: DictConfig, hydra: Any, port: int, world: int, folder: str) -> None:
    """A process of its own: what `launch` runs `world` times."""
    from hydra.core.hydra_config import HydraConfig

    os.setsid()  # Ctrl-C then comes from the process that started this one
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": local, "NODE_RANK": 0, "WORLD_SIZE": world, "RANK": local}
    os.environ.update({key: str(value) for key, value in where.items()})
    torch.set_num_threads(cfg.threads or max(1, (os.cpu_count() or 1) // world))
    logging.basicConfig(level=logging.WARNING if local else logging.INFO, format="%(message)s", stream=sys.stdout)
    hide_known()
    if hydra is not None:
        HydraConfig.instance().cfg = OmegaConf.create({"hydra": hydra})  # type: ignore[assignment]
    try:
        with stopping.listening():
            result = body(cfg)
    except BaseException as error:
        told_as = explain(error)
        user = isinstance(told_as, UserError)
        told = str(told_as) if user else traceback.format_exc()
        (Path(folder) / f"error-{local}").write_bytes(pickle.dumps((not user, time.time(), local, told)))
        stopped = isinstance(error, KeyboardInterrupt)
        # no waiting for the others, who may wait for this one
        os._exit(stopping.exit_code(stopping.asked() or signal.SIGINT) if stopped else 1)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # its threads may else abort the process at its end
    if local == 0:
        (Path(folder) / "result").write_bytes(pickle.dumps((result, stopping.ended())))


def _cause(folder: Path, status: int) -> BaseException:
    """What ended the run: a user's mistake on any rank, else what came first; the others fail for want of that one."""
    time.sleep(GRACE)
    if stopping.asked() or stopping.is_interruption(status):
        stopping.note_end(stopping.asked() or stopping.signal_of(status))
        return stopping.Interrupted()
    told = sorted(pickle.loads(path.read_bytes()) for path in folder.glob("error-*"))
    # One that was killed says nothing, and those that wait for it may have said so. What aborts, mostly waited.
    killed = status < 0 and -status != signal.SIGABRT
    if not told or (killed and told[0][0]):
        by_signal = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return UserError(
            f"a rank was {by_signal}, without a word; the other ranks were ended. If the system was out of memory, lower run.batch"
        )
    crashed, _, rank, text = told[0]
    return RuntimeError(f"rank {rank} failed:\n{text}") if crashed else UserError(text)


def _hand_on(number: int) -> None:
    """To the ranks, which end in their own way."""
    for child in multiprocessing.active_children():
        if child.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

"""Notices of libraries that say nothing to a user of the command, in whichever process they come up."""

from __future__ import annotations

import logging
import warnings

KNOWN = (
    "sync_dist=True|does not have many workers|TreeSpec|torch.jit|val_dataloader|"
    "exists and is not empty|isinstance.treespec|decompression bomb"
)


def hide_known() -> None:
    warnings.filterwarnings("ignore", message=f".*({KNOWN}).*")
    # Of damaged metadata; what is wrong with pixels raises.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def hide_lightnings() -> None:
    """What Lightning says of its devices and seeds. To be called after it was imported: it sets its own level then."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)

"""lc_bench: train learned compression models, write real bitstreams with them, rank them on rate-distortion leaderboards."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "benchmark", "build", "compress", "decompress", "load", "load_reference_state"]


def __getattr__(name: str) -> Any:
    """torch is imported only when something that needs it is asked for."""
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module 'lc_bench' has no attribute {name!r}")

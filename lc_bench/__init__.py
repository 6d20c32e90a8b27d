"""lc_bench: train learned compression models, write real bitstreams with them, rank them on rate-distortion leaderboards."""

from typing import Any

__version__ = "0.1.0"
_API = ("benchmark", "build", "compress", "decompress", "export_coder", "export_decoder", "inspect", "load", "load_reference_state")
__all__ = ["__version__", *_API]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """torch is imported only when something that needs it is asked for."""
    if name in _API:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module 'lc_bench' has no attribute {name!r}")

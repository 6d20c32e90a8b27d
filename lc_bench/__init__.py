"""lc_bench: train learned compression models, write real bitstreams with them, rank them on rate-distortion leaderboards."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "benchmark",
    "build",
    "compress",
    "decompress",
    "export_coder",
    "export_decoder",
    "inspect",
    "list_models",
    "load",
    "load_reference_state",
]

if TYPE_CHECKING:
    from .api import (
        benchmark,
        build,
        compress,
        decompress,
        export_coder,
        export_decoder,
        inspect,
        list_models,
        load,
        load_reference_state,
    )
else:  # a type checker that sees a __getattr__ takes every name for one that exists

    def __getattr__(name: str) -> object:
        """torch is imported only when something that needs it is asked for."""
        if name in __all__:
            from . import api

            return getattr(api, name)
        from .errors import closest

        meant = closest(name, __all__)
        advice = f". Did you mean lc_bench.{meant}?" if meant else ""
        raise AttributeError(f"module 'lc_bench' has no attribute {name!r}{advice}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

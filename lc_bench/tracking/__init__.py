"""What runs tell Weights & Biases, TensorBoard and CSV files: curves, pictures, tables, the configuration and where the code stood.

training.py, which needs Lightning, is imported by runs that train alone.
"""

from .benchmark import log_benchmark
from .loggers import make_loggers
from .origin import git_state, told_of

__all__ = ["git_state", "log_benchmark", "make_loggers", "told_of"]

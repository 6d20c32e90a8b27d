"""Data: images by name or folder, as the benchmark reads them and as training crops them."""

from .sets import ImageSet, folder, kodak, local, samples

__all__ = ["ImageSet", "folder", "kodak", "local", "samples"]

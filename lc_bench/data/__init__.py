"""Data: images and point clouds by name or folder, as the benchmark reads them and as training draws from them."""

from .cloud_sets import CloudSet, clouds, kitti, modelnet
from .sets import ImageSet, folder, kodak, local, samples
from .shapes import shapes

__all__ = ["CloudSet", "ImageSet", "clouds", "folder", "kitti", "kodak", "local", "modelnet", "samples", "shapes"]

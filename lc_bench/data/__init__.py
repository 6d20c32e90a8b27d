"""Data: images and point clouds by name or folder, as the benchmark reads them and as training draws from them."""

from .cloud_layouts import modelnet_h5, s3dis, semantickitti, shapenet_part
from .cloud_sets import CloudSet, clouds, kitti, modelnet
from .sets import ImageSet, folder, kodak, local, samples
from .shapes import shapes

__all__ = [
    "CloudSet",
    "ImageSet",
    "clouds",
    "folder",
    "kitti",
    "kodak",
    "local",
    "modelnet",
    "modelnet_h5",
    "s3dis",
    "samples",
    "semantickitti",
    "shapenet_part",
    "shapes",
]

"""Data: images and point clouds by name or folder, as the benchmark reads them and as training draws from them."""

from .cloud_layouts import modelnet_h5, s3dis, semantickitti, shapenet_part
from .cloud_sets import CloudSet, clouds, kitti, modelnet
from .openimages import openimages
from .sets import ImageSet, archived, folder, listed, local, samples
from .shapes import shapes

__all__ = [
    "CloudSet",
    "ImageSet",
    "archived",
    "clouds",
    "folder",
    "kitti",
    "listed",
    "local",
    "modelnet",
    "modelnet_h5",
    "openimages",
    "s3dis",
    "samples",
    "semantickitti",
    "shapenet_part",
    "shapes",
]

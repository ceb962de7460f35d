"""Kernels, QEMUs and initial RAM disks, cached below the user's cache folder."""

from harness.images.cache import ImageCache
from harness.images.model import ImageInfo, KernelImage, Offer, QemuImage

__all__ = ["ImageCache", "ImageInfo", "KernelImage", "Offer", "QemuImage"]

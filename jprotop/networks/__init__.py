"""Backbones by name: those of each file here, and what others register."""

from jprotop.networks import densenet, efficientnet_lite, families, resnet, vgg

for _family in (resnet.FAMILY, vgg.FAMILY, densenet.FAMILY, efficientnet_lite.FAMILY):
  families.register(_family)

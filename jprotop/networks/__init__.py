"""Backbones by name: those of each file here, and what others register."""

from jprotop.networks import densenet, families, resnet, vgg

for _family in (resnet.FAMILY, vgg.FAMILY, densenet.FAMILY):
  families.register(_family)

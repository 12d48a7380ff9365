"""The network of ProtoPNet in PyTorch: the obvious twin of ours, for comparisons.

State dicts have the reference's names, and so have the classes. It needs the `torch` extra, and
only the benchmark and the tests in tests/with_torch use it.
"""

import functools
import importlib.util
import itertools
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

# --- ResNet


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Module | None:
  """The shortcut of a block, where it is not the identity."""
  if stride == 1 and inputs == outputs:
    return None
  return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
  expansion = 1

  def __init__(self, inputs: int, width: int, stride: int = 1):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.relu = nn.ReLU()
    self.downsample = _downsample(inputs, width, stride)

  def forward(self, x):
    y = self.relu(self.bn1(self.conv1(x)))
    shortcut = x if self.downsample is None else self.downsample(x)
    return self.relu(self.bn2(self.conv2(y)) + shortcut)


class Bottleneck(nn.Module):
  expansion = 4

  def __init__(self, inputs: int, width: int, stride: int = 1):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(width * self.expansion)
    self.relu = nn.ReLU()
    self.downsample = _downsample(inputs, width * self.expansion, stride)

  def forward(self, x):
    y = self.relu(self.bn1(self.conv1(x)))
    y = self.relu(self.bn2(self.conv2(y)))
    shortcut = x if self.downsample is None else self.downsample(x)
    return self.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet_features(nn.Module):
  def __init__(self, block: type, layers: tuple[int, ...]):
    super().__init__()
    self.block = block  # a class as an attribute, as in the reference's files
    self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
    self.bn1 = nn.BatchNorm2d(64)
    self.relu = nn.ReLU()
    self.maxpool = nn.MaxPool2d(3, 2, padding=1)
    channels, stages = 64, []
    for stage, size in enumerate(layers):
      width, blocks = 64 * 2**stage, []
      for i in range(size):
        blocks.append(block(channels, width, 2 if stage and i == 0 else 1))
        channels = width * block.expansion
      stages.append(nn.Sequential(*blocks))
    self.layer1, self.layer2, self.layer3, self.layer4 = stages
    self.channels = channels

  def forward(self, x):
    x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
    return self.layer4(self.layer3(self.layer2(self.layer1(x))))


# --- VGG


class VGG_features(nn.Module):
  def __init__(self, stage_sizes: tuple[int, ...], batch_norm: bool):
    super().__init__()
    layers, channels = [], 3
    for size, width in zip(stage_sizes, (64, 128, 256, 512, 512)):
      for _ in range(size):
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        layers += [nn.BatchNorm2d(width)] if batch_norm else []
        layers.append(nn.ReLU())
        channels = width
      layers.append(nn.MaxPool2d(2, 2))
    self.features = nn.Sequential(*layers)
    self.channels = channels

  def forward(self, x):
    return self.features(x)


# --- DenseNet


class _DenseLayer(nn.Sequential):
  def __init__(self, inputs: int, growth: int):
    super().__init__()
    self.norm1 = nn.BatchNorm2d(inputs)
    self.relu1 = nn.ReLU()
    self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
    self.norm2 = nn.BatchNorm2d(4 * growth)
    self.relu2 = nn.ReLU()
    self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

  def forward(self, x):
    return torch.cat([x, super().forward(x)], dim=1)


class _DenseBlock(nn.Sequential):
  def __init__(self, inputs: int, size: int, growth: int):
    layers = ((f"denselayer{i + 1}", _DenseLayer(inputs + i * growth, growth)) for i in range(size))
    super().__init__(OrderedDict(layers))


class _Transition(nn.Sequential):
  def __init__(self, inputs: int):
    super().__init__()
    self.norm = nn.BatchNorm2d(inputs)
    self.relu = nn.ReLU()
    self.conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)
    self.pool = nn.AvgPool2d(2, 2)


class DenseNet_features(nn.Module):
  def __init__(self, growth: int, block_sizes: tuple[int, ...], stem: int):
    super().__init__()
    layers = OrderedDict(
      conv0=nn.Conv2d(3, stem, 7, 2, padding=3, bias=False),
      norm0=nn.BatchNorm2d(stem),
      relu0=nn.ReLU(),
      pool0=nn.MaxPool2d(3, 2, padding=1),
    )
    channels = stem
    for i, size in enumerate(block_sizes, start=1):
      layers[f"denseblock{i}"] = _DenseBlock(channels, size, growth)
      channels += size * growth
      if i < len(block_sizes):
        layers[f"transition{i}"] = _Transition(channels)
        channels //= 2
    layers["norm5"] = nn.BatchNorm2d(channels)
    layers["final_relu"] = nn.ReLU()
    self.features = nn.Sequential(layers)
    self.channels = channels

  def forward(self, x):
    return self.features(x)


# --- EfficientNet-Lite


def efficientnet_lite_features(number: int) -> nn.Module:
  """No twin but the package that our weights are of, without drop connect and classifier."""
  from efficientnet_lite_pytorch import EfficientNet  # Of the `torch` extra, too.

  class EfficientNetLite_features(EfficientNet):
    forward, channels = EfficientNet.extract_features, 1280

  # Without a size of images it pads by what comes, and else as that size needs it.
  fields = {"image_size": None, "drop_connect_rate": 0.0}
  network = EfficientNetLite_features.from_name(f"efficientnet-lite{number}", **fields)
  del network._fc
  return network


# --- ProtoPNet

BACKBONES = {
  "resnet18": lambda: ResNet_features(BasicBlock, (2, 2, 2, 2)),
  "resnet34": lambda: ResNet_features(BasicBlock, (3, 4, 6, 3)),
  "resnet50": lambda: ResNet_features(Bottleneck, (3, 4, 6, 3)),
  "resnet50_inat": lambda: ResNet_features(Bottleneck, (3, 4, 6, 4)),
  "resnet101": lambda: ResNet_features(Bottleneck, (3, 4, 23, 3)),
  "resnet152": lambda: ResNet_features(Bottleneck, (3, 8, 36, 3)),
  "vgg11": lambda: VGG_features((1, 1, 2, 2, 2), False),
  "vgg11_bn": lambda: VGG_features((1, 1, 2, 2, 2), True),
  "vgg13": lambda: VGG_features((2, 2, 2, 2, 2), False),
  "vgg13_bn": lambda: VGG_features((2, 2, 2, 2, 2), True),
  "vgg16": lambda: VGG_features((2, 2, 3, 3, 3), False),
  "vgg16_bn": lambda: VGG_features((2, 2, 3, 3, 3), True),
  "vgg19": lambda: VGG_features((2, 2, 4, 4, 4), False),
  "vgg19_bn": lambda: VGG_features((2, 2, 4, 4, 4), True),
  "densenet121": lambda: DenseNet_features(32, (6, 12, 24, 16), 64),
  "densenet161": lambda: DenseNet_features(48, (6, 12, 36, 24), 96),
  "densenet169": lambda: DenseNet_features(32, (6, 12, 32, 32), 64),
  "densenet201": lambda: DenseNet_features(32, (6, 12, 48, 32), 64),
}
if importlib.util.find_spec("efficientnet_lite_pytorch"):
  for _number in range(3):
    _make = functools.partial(efficientnet_lite_features, _number)
    BACKBONES[f"efficientnet_lite{_number}"] = _make


def add_on(channels: int, depth: int, kind: str) -> nn.Sequential:
  """1x1 convolutions: two ("regular"), or pairs that halve the channels ("bottleneck")."""
  widths = [channels, depth, depth]
  if kind == "bottleneck":
    widths = [channels]
    while widths[-1] > depth or len(widths) == 1:
      widths += [max(depth, widths[-1] // 2)] * 2
  layers = []
  for inputs, outputs in itertools.pairwise(widths):
    layers += [nn.Conv2d(inputs, outputs, 1), nn.ReLU()]
  return nn.Sequential(*layers[:-1], nn.Sigmoid())


class PPNet(nn.Module):
  """ProtoPNet over normalised images [N, 3, H, W]; prototypes are sorted by class.

  `prototype_activation_function`, a plain attribute like all but tensors, is "log" or "linear".
  """

  def __init__(
    self,
    architecture: str,
    num_classes: int,
    prototypes_per_class: int,
    depth: int = 128,
    addon: str = "regular",
    *,
    similarity: str = "log",
    img_size: int = 224,
  ):
    super().__init__()
    self.img_size = img_size
    self.num_classes = num_classes
    self.num_prototypes = num_classes * prototypes_per_class
    self.prototype_shape = (self.num_prototypes, depth, 1, 1)
    self.epsilon = 1e-4
    self.prototype_activation_function = similarity
    self.prototype_class_identity = torch.eye(num_classes).repeat_interleave(
      prototypes_per_class, dim=0
    )
    self.features = BACKBONES[architecture]()
    self.add_on_layers = add_on(self.features.channels, depth, addon)
    self.prototype_vectors = nn.Parameter(torch.rand(self.prototype_shape))
    self.ones = nn.Parameter(torch.ones(self.prototype_shape), requires_grad=False)
    self.last_layer = nn.Linear(self.num_prototypes, num_classes, bias=False)
    with torch.no_grad():
      self.last_layer.weight.copy_(1.5 * self.prototype_class_identity.T - 0.5)

  def latent(self, x):
    """Latent patches [N, D, h, w]."""
    return self.add_on_layers(self.features(x))

  def sq_dist(self, latent):
    """Squared distances [N, P, h, w] of latent patches to the prototypes."""
    patch_norm = functional.conv2d(latent**2, self.ones)
    product = functional.conv2d(latent, self.prototype_vectors)
    prototype_norm = (self.prototype_vectors**2).sum(dim=1)
    return functional.relu(patch_norm - 2 * product + prototype_norm)

  def similarity(self, sq_dist):
    if self.prototype_activation_function == "linear":
      return -sq_dist
    return torch.log((sq_dist + 1) / (sq_dist + self.epsilon))

  def forward(self, x):
    """Logits [N, C], and the least squared distance of each prototype [N, P]."""
    least = self.sq_dist(self.latent(x)).amin(dim=(2, 3))
    return self.last_layer(self.similarity(least)), least

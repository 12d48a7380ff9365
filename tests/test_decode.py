import contextlib
import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jprotop.data.decode import crop, crop_points, decode, pixel_box, resize
from jprotop.errors import InputError


def encode(image, file_format="PNG", **options):
  file = io.BytesIO()
  image.save(file, file_format, **options)
  return file.getvalue()


def gradient(width=12, height=8):
  """RGB, no two pixels alike."""
  y, x = np.mgrid[:height, :width]
  return Image.fromarray(np.stack([x * 20, y * 30, x + y], axis=-1).astype(np.uint8))


# --- decode


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_common_modes_are_converted_as_pillow_does(mode):
  image = gradient().convert(mode)
  decoded = decode(encode(image, "TIFF" if mode == "CMYK" else "PNG"), "x")
  assert type(decoded) is Image.Image and decoded.mode == "RGB"
  assert decoded.tobytes() == image.convert("RGB").tobytes()


def test_cmyk_jpeg_and_grey_jpeg():
  red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
  assert np.abs(np.asarray(decode(encode(red, "JPEG"), "x"), int) - (255, 0, 0)).max() < 8
  grey = np.asarray(decode(encode(gradient().convert("L"), "JPEG"), "x"))
  assert (grey == grey[..., :1]).all()


def test_transparency_is_dropped_not_composited():
  image = gradient()
  image.putalpha(0)
  assert decode(encode(image), "x").tobytes() == gradient().tobytes()


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 128])])
def test_palette_with_transparency(transparency):
  image = Image.new("P", (3, 1))
  image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
  image.putdata([0, 1, 2])
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    decoded = decode(encode(image, transparency=transparency), "x")
  assert np.asarray(decoded).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]


@settings(deadline=None, max_examples=30)
@given(values=st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_sixteen_bits_are_scaled_not_clipped(values):
  expected = [[round(value * 255 / 65535)] * 3 for value in values]
  sixteen = Image.fromarray(np.array([values], np.uint16))
  assert np.asarray(decode(encode(sixteen), "x"))[0].tolist() == expected
  thirty_two = Image.fromarray(np.array([values], np.int32))
  assert np.asarray(decode(encode(thirty_two, "TIFF"), "x"))[0].tolist() == expected


@pytest.mark.parametrize("values", [[0.0, 0.5, 1.0], [0.0, 127.6, 255.0]])
def test_float_grey(values):
  image = Image.fromarray(np.array([values], np.float32))
  assert np.asarray(decode(encode(image, "TIFF"), "x"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("values", [[-1.0, 1.0], [0.0, 300.0], [0.0, np.nan], [0.0, np.inf]])
def test_float_grey_out_of_range(values):
  image = Image.fromarray(np.array([values], np.float32))
  with pytest.raises(InputError, match=r"grey\.tif.*allowed \[0, 1\] or \[0, 255\]"):
    decode(encode(image, "TIFF"), "grey.tif")


def test_integer_grey_out_of_range():
  image = Image.fromarray(np.array([[0, 70000]], np.int32))
  with pytest.raises(InputError, match=r"allowed 0\.\.65535"):
    decode(encode(image, "TIFF"), "x")


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation(orientation):
  image = gradient()
  exif = Image.Exif()
  exif[0x0112] = orientation
  pixels = np.asarray(image)
  # By the tag's definition: where row 0 and column 0 of the file lie in the upright picture.
  upright = {
    2: pixels[:, ::-1],
    3: pixels[::-1, ::-1],
    4: pixels[::-1],
    5: pixels.swapaxes(0, 1),
    6: np.rot90(pixels, -1),
    7: pixels[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(pixels),
  }.get(orientation, pixels)
  assert np.array_equal(np.asarray(decode(encode(image, exif=exif), "x")), upright)


def test_path(tmp_path):
  path = tmp_path / "bird.png"
  path.write_bytes(encode(gradient()))
  assert decode(path, "x").tobytes() == decode(str(path), "x").tobytes() == gradient().tobytes()
  with pytest.raises(InputError, match=r"no bird: .*No such file.*replace or remove"):
    decode(tmp_path / "absent.png", "no bird")


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_no_picture(data):
  with pytest.raises(InputError, match=r"bird 7: not a picture.*replace or remove"):
    decode(data, "bird 7")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated(file_format):
  image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
  data = encode(image, file_format)
  with pytest.raises(InputError, match="bird 7"):
    decode(data[: len(data) // 2], "bird 7")


@settings(deadline=None, max_examples=100)
@given(data=st.data(), file_format=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF"]))
def test_damage_never_raises_anything_else(data, file_format):
  damaged = bytearray(encode(gradient(), file_format))
  for _ in range(3):
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] = data.draw(st.integers(0, 255))
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    with contextlib.suppress(InputError):
      assert decode(bytes(damaged), "x").mode == "RGB"


@pytest.mark.parametrize("limit", [95, 60, 40])  # 96 pixels: Pillow lets pass, warns, raises.
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_decompression_bomb(monkeypatch, limit, action):
  data = encode(gradient())
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
  with warnings.catch_warnings():
    warnings.simplefilter(action)
    with pytest.raises(InputError, match=r"bird 7: .*bomb.*MAX_IMAGE_PIXELS"):
      decode(data, "bird 7")


def test_decompression_limit_can_be_lifted(monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
  assert decode(encode(gradient()), "x").size == (12, 8)


# --- crop


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_crop_equals_slicing(data):
  width, height = data.draw(st.integers(2, 30)), data.draw(st.integers(2, 30))
  x = data.draw(st.floats(0, width - 1))
  y = data.draw(st.floats(0, height - 1))
  w = data.draw(st.floats(1, width - x + 1))
  h = data.draw(st.floats(1, height - y + 1))
  values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  expected = values[int(y) : int(y + h), int(x) : int(x + w)]  # Slicing truncates the excess.
  assert np.array_equal(np.asarray(crop(Image.fromarray(values), (x, y, w, h))), expected)
  box = pixel_box((x, y, w, h), (width, height))
  assert pixel_box(box, (width, height)) == box


@pytest.mark.parametrize(
  "box",
  [
    (0, 0, 0, 4),
    (0, 0, 4, -1),
    (3.1, 2, 0.5, 4),
    (-1.5, 0, 5, 5),
    (0, 0, 13.5, 5),
    (0, 4, 5, 5.5),
    (12, 0, 1, 5),
    (0, float("nan"), 5, 5),
    (0, 0, float("inf"), 5),
  ],
)
def test_bad_boxes(box):
  with pytest.raises(InputError, match=r"box \(x=.*12 x 8 image"):
    crop(gradient(), box)


def test_box_at_the_border():
  assert crop(gradient(), (0, 0, 12, 8)).size == (12, 8)
  assert crop(gradient(), (2, 3, 11, 6)).size == (10, 5)
  assert crop(gradient(), (-0.5, -1, 5, 5)).size == (4, 4)


# --- crop_points


def test_crop_points_by_hand():
  points = [[10, 20, 1], [30, 40, 1], [29.9, 39.9, 1], [20, 30, 0], [9.9, 20, 1], [20, 30, 1]]
  moved = crop_points(np.array(points), (10.7, 20.2, 20, 20), 40)
  assert moved.dtype == np.float32
  expected = [[0, 0, 1], [0, 0, 0], [39.8, 39.8, 1], [0, 0, 0], [0, 0, 0], [20, 20, 1]]
  np.testing.assert_allclose(moved, expected, atol=1e-4)


def test_crop_points_stay_inside_in_float32():
  moved = crop_points(np.array([[np.nextafter(7.0, 0), 0, 1]]), (0, 0, 7, 7), 224)
  assert moved[0, 2] == 1 and moved[0, 0] < 224


@settings(deadline=None, max_examples=40)
@given(
  x=st.integers(0, 19), y=st.integers(0, 14), box=st.sampled_from([(3, 2, 10, 10), (0, 5, 20, 5)])
)
def test_crop_points_follow_the_pixels(x, y, box):
  values = np.zeros((15, 20, 3), np.uint8)
  values[y, x] = 255
  size = 4 * 20
  shown = resize(crop(Image.fromarray(values), box), size)[..., 0]
  moved = crop_points(np.array([[x + 0.5, y + 0.5, 1]]), box, size)[0]
  assert moved[2] == (shown.max() > 0)
  if moved[2]:
    assert shown[int(moved[1]), int(moved[0])] > 0.7 * shown.max()


def test_crop_points_misuse():
  assert crop_points(np.zeros((0, 3)), (0, 0, 5, 5), 10).shape == (0, 3)
  with pytest.raises(InputError, match=r"\[K, 3\]"):
    crop_points(np.zeros((4, 2)), (0, 0, 5, 5), 10)
  with pytest.raises(InputError, match="size=0"):
    crop_points(np.zeros((4, 3)), (0, 0, 5, 5), 0)
  with pytest.raises(InputError, match="no pixel"):
    crop_points(np.zeros((4, 3)), (0, 0, 0, 5), 10)


# --- resize


def triangle_weights(old, new):
  """[new, old]: the antialiased bilinear filter, a triangle as wide as the coarser pixel."""
  scale = max(old / new, 1)
  centres = (np.arange(new) + 0.5) * old / new
  distance = np.abs(np.arange(old) + 0.5 - centres[:, None]) / scale
  weights = np.maximum(1 - distance, 0)
  return weights / weights.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=20)
@given(width=st.integers(1, 50), height=st.integers(1, 50), size=st.integers(1, 32))
def test_resize_is_antialiased_bilinear(width, height, size):
  values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  rows, columns = triangle_weights(height, size), triangle_weights(width, size)
  expected = np.einsum("yh,xw,hwc->yxc", rows, columns, values.astype(np.float64))
  resized = resize(Image.fromarray(values), size)
  assert resized.shape == (size, size, 3) and resized.dtype == np.uint8
  assert np.abs(resized - expected).max() <= 1.5  # Pillow rounds after each of its two passes.


def test_resize_gives_an_array_of_its_own():
  resize(gradient(), 4)[:] = 0
  with pytest.raises(InputError, match="size=0"):
    resize(gradient(), 0)
  with pytest.raises(InputError, match="mode L"):
    resize(gradient().convert("L"), 4)

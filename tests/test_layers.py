"""Fast forms against the plain ones, and batch norm against PyTorch's bookkeeping."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jprotop.networks.layers import BatchNorm, LayerOptions, conv, kernel_gradient_of_planes
from jprotop.networks.pooling import max_pool

PLAIN, FAST = LayerOptions(forms="plain"), LayerOptions(forms="fast")
DEFAULT = LayerOptions()


def drawn(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def slow_conv(x, kernel, stride, pad):
  """Convolution as loops over outputs, with PyTorch's symmetric padding."""
  x = np.pad(np.asarray(x, np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  taps = kernel.shape[0]
  rows, columns = ((n - taps) // stride + 1 for n in x.shape[1:3])
  out = np.zeros((len(x), rows, columns, kernel.shape[3]))
  for i, j in np.ndindex(rows, columns):
    window = x[:, i * stride : i * stride + taps, j * stride : j * stride + taps]
    out[:, i, j] = np.tensordot(window, np.asarray(kernel, np.float64), 3)
  return out


# --- convolution


@pytest.mark.parametrize(
  ("taps", "stride"),
  [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)],  # every convolution of the backbones
)
def test_convolutions_pad_as_pytorch_and_fast_equals_plain(taps, stride):
  kernel = drawn(taps, taps, 3, 4, seed=1)
  images = [drawn(2, *size, 3) for size in ((12, 12), (9, 11), (8, 13), (20, 21))]
  wanted = [slow_conv(x, kernel, stride, taps // 2) for x in images]
  cotangents = [drawn(*out.shape, seed=2) for out in wanted]
  gradients = []
  for options in (PLAIN, FAST):
    layer = conv(4, taps, stride, options=options, name="conv")
    outs, gradient = all_gradients(layer, [{"kernel": kernel}] * 4, images, cotangents)
    for found, expected in zip(outs, wanted, strict=True):
      np.testing.assert_allclose(found, expected, atol=2e-4)
    gradients.append(gradient)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), *gradients)


def all_gradients(layer, params, images, cotangents):
  """A layer's values of each image, and the gradients to the parameters and to the pixels."""

  @jax.jit  # All sizes in one program, as each one to itself takes long to compile.
  def found(params, images, cotangents):
    def apply(params, images):
      return [layer.apply({"params": p}, x) for p, x in zip(params, images, strict=True)]

    outs, vjp = jax.vjp(apply, params, images)
    return outs, vjp(cotangents)

  return jax.device_get(found(params, images, cotangents))


_PADS = st.tuples(st.integers(0, 4), st.integers(0, 4))


@settings(max_examples=12, deadline=None)
@given(
  extents=st.tuples(st.integers(4, 9), st.integers(4, 9)),
  taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
  padding=st.tuples(_PADS, _PADS),
)
def test_the_gradient_by_planes_is_that_of_the_kernel(extents, taps, padding):
  """Any taps and padding, also more of it than the taps reach, and more on one side."""
  x = drawn(2, *extents, 3)
  padded = np.pad(x, ((0, 0), *padding, (0, 0)))
  rows, columns = (n - tap + 1 for n, tap in zip(padded.shape[1:3], taps))
  assume(rows > 0 and columns > 0)
  cotangent = drawn(2, rows, columns, 2, seed=1)
  wanted = np.zeros((*taps, 3, 2))
  for i, j in np.ndindex(*taps):
    window = padded[:, i : i + rows, j : j + columns]
    wanted[i, j] = np.einsum("nhwc,nhwf->cf", window, cotangent)
  found = jax.jit(lambda x, c: kernel_gradient_of_planes(x, taps, padding, c))(x, cotangent)
  np.testing.assert_allclose(found, wanted, atol=2e-4)


@pytest.mark.parametrize(
  "fields",
  [
    {"kernel_dilation": (2, 2)},
    {"kernel_dilation": (2, 1), "strides": (2, 2)},
    {"input_dilation": (2, 2)},
    {"feature_group_count": 2},
    {"feature_group_count": 4, "features": 8},  # depthwise, but two outputs a channel
    {"feature_group_count": 4, "kernel_dilation": (2, 2)},
    {"feature_group_count": 2, "kernel_size": (7, 7), "strides": (2, 2)},
    {"padding": "SAME", "kernel_dilation": (2, 2)},
    {"precision": "highest"},
  ],
  ids=str,
)
def test_convolutions_without_a_fast_form_equal_laxs(fields):
  x = drawn(2, 12, 11, 4)
  results = []
  for options in (PLAIN, FAST):
    layer = conv(4, 3, options=options, name=None).clone(**fields)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    kernel = drawn(*shapes["kernel"].shape, seed=1)
    out = jax.eval_shape(layer.apply, {"params": {"kernel": kernel}}, x)
    results.append(all_gradients(layer, [{"kernel": kernel}], [x], [drawn(*out.shape, seed=2)]))
  jax.tree.map(np.testing.assert_array_equal, *results)


DEPTHWISE = {"feature_group_count": 4}


@pytest.mark.parametrize(
  "fields",
  [
    # What EfficientNet-Lite has: the stem, then each kernel and stride, at even and odd sizes.
    {"strides": (2, 2), "padding": "SAME"},
    *(
      {**DEPTHWISE, "kernel_size": (size, size), "strides": (stride, stride), "padding": "SAME"}
      for size in (3, 5)
      for stride in (1, 2)
    ),
    # And what any other might have.
    {**DEPTHWISE, "padding": ((1, 1), (1, 1)), "strides": (2, 2)},
    {**DEPTHWISE, "padding": "VALID", "kernel_size": (3, 2)},
    {**DEPTHWISE, "padding": "VALID", "kernel_size": (1, 1), "strides": (2, 2)},
    {**DEPTHWISE, "padding": ((0, 3), (2, 0)), "kernel_size": (2, 5), "strides": (3, 2)},
  ],
  ids=str,
)
def test_the_fast_forms_of_other_paddings_and_of_depthwise_convolutions_equal_laxs(fields):
  """At sizes that a stride divides, or not, and at smaller ones than most kernels."""
  sizes = [(12, 12), (9, 11), (3, 2)]
  dtypes = ("float32", "bfloat16") if fields.get("kernel_size") == (5, 5) else ("float32",)
  for dtype in dtypes:
    plain, fast = (values_and_gradients(form, fields, sizes, dtype) for form in (PLAIN, FAST))
    for wanted, found in zip(plain, fast, strict=True):
      assert wanted.dtype == found.dtype and wanted.shape == found.shape
      wanted, found = (np.asarray(array, np.float32) for array in (wanted, found))
      rounding = 1e-5 if dtype == "float32" else 2e-2
      np.testing.assert_allclose(found, wanted, atol=rounding * np.abs(wanted).max(initial=1))


def values_and_gradients(options, fields, sizes, dtype):
  """Of a layer on images of several sizes: value, gradient to the pixels, and to the kernel."""
  layer = conv(4, 3, options=options, name=None).clone(**fields, dtype=dtype)

  def results(x):
    kernel = drawn(*layer.init(jax.random.key(0), x)["params"]["kernel"].shape, seed=1)
    out, vjp = jax.vjp(lambda x, k: layer.apply({"params": {"kernel": k}}, x), x, kernel)
    return out, *vjp(drawn(*out.shape, seed=2).astype(dtype))

  images = [drawn(2, *size, 4).astype(dtype) for size in sizes]
  return jax.tree.leaves(jax.jit(lambda images: [results(x) for x in images])(images))


@pytest.mark.parametrize(
  ("taps", "stride", "operation"),
  [(1, 1, "dot_general"), (1, 2, "dot_general"), (3, 1, "custom_vjp"), (7, 2, "custom_vjp")],
)
def test_every_convolution_of_the_backbones_takes_its_fast_form(taps, stride, operation):
  x, kernel = drawn(1, 8, 8, 3), drawn(taps, taps, 3, 4)
  layer = conv(4, taps, stride, options=FAST, name=None)
  assert operation in str(jax.make_jaxpr(layer.apply)({"params": {"kernel": kernel}}, x))


# --- max-pooling


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def pooled(x, size, stride, padding, options):
  """Value, and the gradient of the sum weighted by position."""
  out, vjp = jax.vjp(lambda x: max_pool(x, size, stride, padding, options), x)
  weights = jnp.arange(1.0, out.size + 1).reshape(out.shape).astype(out.dtype)
  return out, vjp(weights)[0]


@pytest.mark.parametrize(
  ("size", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1), (2, 3, 0)]
)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (6, 5)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_max_pool_fast_equals_plain(size, stride, padding, height, width, dtype):
  drawn_once = drawn(2, height, width, 3).astype(dtype)
  # With few values many are equal: the first in row-major order gets the gradient.
  for x in (drawn_once, jnp.round(drawn_once)):
    plain, fast = (
      jax.device_get(pooled(x, size, stride, padding, options)) for options in (PLAIN, FAST)
    )
    assert (plain[0] == fast[0]).all()
    # A pixel's gradients from several windows are summed in another order.
    np.testing.assert_allclose(*(g.astype(np.float32) for _, g in (plain, fast)), rtol=2e-2)
    if dtype == "float32":
      assert (plain[1] == fast[1]).all()
    assert plain[1].dtype == fast[1].dtype == plain[0].dtype == fast[0].dtype == dtype


def test_fast_max_pool_differentiates_through_compiled_functions_and_loops():
  x = drawn(1, 6, 6, 2)

  def pool(x):
    return max_pool(x, 3, 2, 1, FAST)

  wanted = np.zeros(x.shape)
  for i, j, k in np.ndindex(3, 3, 2):
    rows, columns = (slice(max(2 * n - 1, 0), 2 * n + 2) for n in (i, j))
    window = np.asarray(x)[0, rows, columns, k]
    wanted[0, rows, columns, k] += window == window.max()
  compiled = jax.grad(lambda x: jax.jit(pool)(x).sum())
  scanned = jax.grad(lambda x: jax.lax.scan(lambda c, _: (c, pool(c)), x, length=1)[1].sum())
  for gradient in (compiled, jax.jit(compiled), scanned):
    np.testing.assert_array_equal(gradient(x), wanted)


def test_max_pool_gives_a_tie_to_the_first_and_passes_nan_on():
  x = jnp.array([[2.0, 2.0, 0.0, 1.0], [2.0, 2.0, 1.0, 1.0]]).reshape(1, 2, 4, 1)
  for options in (PLAIN, FAST):
    out, gradient = jax.device_get(pooled(x, 2, 2, 0, options))
    assert out.ravel().tolist() == [2, 1]
    assert gradient[0, ..., 0].tolist() == [[1, 0, 0, 2], [0, 0, 0, 0]]
    for place in np.ndindex(2, 2):
      bad = x.at[0, place[0], place[1], 0].set(jnp.nan)
      out, _ = pooled(bad, 2, 2, 0, options)
      assert np.isnan(out[0, 0, 0, 0]) and out[0, 0, 1, 0] == 1


# --- batch norm


def normed(x, mask=None, *, train=True, options=DEFAULT, seed=5):
  """Output and updated statistics of a layer whose parameters are drawn."""
  rng = np.random.default_rng(seed)

  def draw():
    return jnp.asarray(rng.uniform(0.5, 2, x.shape[-1]), jnp.float32)

  variables = {
    "params": {"scale": draw(), "bias": draw()},
    "batch_stats": {"mean": draw(), "var": draw()},
  }
  out, updates = _norm(variables, x, mask, train, options)
  return variables, out, updates.get("batch_stats")


@functools.partial(jax.jit, static_argnums=(3, 4))
def _norm(variables, x, mask, train, options):
  return BatchNorm(options).apply(variables, x, train, mask, mutable=["batch_stats"])


def test_batch_norm_keeps_the_unbiased_variance_of_few_values():
  x = drawn(3, 1, 1, 4)  # three values a channel: n / (n - 1) is 1.5
  variables, out, stats = jax.device_get(normed(x))
  params, before = variables["params"], variables["batch_stats"]
  values = np.asarray(x, np.float64).reshape(3, 4)
  mean, biased = values.mean(0), values.var(0)
  wanted = (values - mean) / np.sqrt(biased + 1e-5) * params["scale"] + params["bias"]
  np.testing.assert_allclose(np.reshape(out, (3, 4)), wanted, atol=1e-5)
  np.testing.assert_allclose(stats["mean"], 0.9 * before["mean"] + 0.1 * mean, rtol=1e-5)
  unbiased = values.var(0, ddof=1)
  np.testing.assert_allclose(stats["var"], 0.9 * before["var"] + 0.1 * unbiased, rtol=1e-5)


def test_batch_norm_in_eval_mode_uses_and_keeps_the_running_statistics():
  x = drawn(2, 3, 3, 4)
  variables, out, stats = jax.device_get(normed(x, train=False))
  params, before = variables["params"], variables["batch_stats"]
  wanted = (np.asarray(x) - before["mean"]) / np.sqrt(before["var"] + 1e-5)
  np.testing.assert_allclose(out, wanted * params["scale"] + params["bias"], atol=1e-5)
  assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), stats, before))


def test_statistics_of_bfloat16_are_found_in_float32_without_products_of_lower_precision():
  x = (drawn(4, 3, 3, 2) + 10).astype(jnp.bfloat16)
  _, out, stats = normed(x)
  _, _, wanted = normed(x.astype(jnp.float32))
  assert out.dtype == jnp.bfloat16
  for name in ("mean", "var"):
    assert stats[name].dtype == jnp.float32
    np.testing.assert_array_equal(stats[name], wanted[name])
  # A matrix product of float32 is one of bfloat16 on a TPU, and of TF32 on a GPU.
  assert "dot_general" not in str(jax.make_jaxpr(jax.grad(lambda x: normed(x)[1].sum()))(x))


def test_masked_rows_do_not_count():
  x = drawn(5, 2, 3, 4)
  padded = jnp.concatenate([x, jnp.full((3, 2, 3, 4), 1e3)])
  mask = jnp.array([1.0] * 5 + [0.0] * 3)
  _, out, stats = normed(x)
  _, padded_out, padded_stats = normed(padded, mask)
  np.testing.assert_allclose(padded_out[:5], out, atol=1e-5)
  for name in ("mean", "var"):
    np.testing.assert_allclose(padded_stats[name], stats[name], rtol=1e-5)


def test_rows_of_nothing_but_padding_are_passed_on_unscaled():
  """A device with no image of its own, unsynchronised: dividing by 0 blows up within few layers."""
  _, out, _ = normed(jnp.zeros((2, 2, 3, 4)), jnp.zeros(2))
  x = drawn(2, 2, 3, 4)
  _, scaled, _ = normed(x, jnp.zeros(2))
  assert np.isfinite(out).all()
  assert np.abs(scaled).max() <= 10 * np.abs(x).max()


def test_two_devices_share_their_statistics_over_uneven_shares():
  x = drawn(6, 2, 3, 4)
  mask = jnp.array([1.0, 1, 1, 1, 0, 0])  # three rows on the first device, one on the second
  options = LayerOptions(axis_name="devices")
  cotangent = drawn(6, 2, 3, 4, seed=3) * mask[:, None, None, None]

  def value_stats_gradient(x, mask, cotangent, options):
    def total(x):
      _, out, stats = normed(x, mask, options=options)
      return jnp.sum(out * cotangent), (out, stats)

    gradient, (out, stats) = jax.grad(total, has_aux=True)(x)
    return out, stats, gradient

  split = [a.reshape(2, 3, *a.shape[1:]) for a in (x, mask, cotangent)]
  both = jax.pmap(
    lambda *a: value_stats_gradient(*a, options), axis_name="devices", devices=jax.devices()[:2]
  )(*split)
  alone = jax.jit(value_stats_gradient, static_argnums=3)
  out, stats, gradient = alone(x[:4], mask[:4], cotangent[:4], LayerOptions())
  np.testing.assert_allclose(both[0].reshape(x.shape)[:4], out, atol=1e-5)
  np.testing.assert_allclose(both[2].reshape(x.shape)[:4], gradient, atol=1e-5)
  for name in ("mean", "var"):
    assert (both[1][name][0] == both[1][name][1]).all()
    np.testing.assert_allclose(both[1][name][0], stats[name], rtol=1e-5)

"""PyTorch's three forms of file, put together without it: from opcodes, and bytes of storages."""

import io
import pickle
import struct
import tarfile
import zipfile

MAGIC = 0x1950A86A20F9469CFC6C

# --- opcodes of pickles, each a piece that leaves one value


def plain(value):
  return pickle.dumps(value, 2)[2:-1]


def named(path):
  module, _, name = path.rpartition(".")
  return f"c{module}\n{name}\n".encode()


def items(*pieces):
  """A tuple."""
  return b"(" + b"".join(pieces) + b"t"


def call(path, *arguments):
  return named(path) + items(*arguments) + b"R"


def dictionary(**values):
  return b"}(" + b"".join(plain(key) + piece for key, piece in values.items()) + b"u"


def storage(numel, key="0", kind="torch.FloatStorage", view=None):
  """A persistent id of the zip form; with a view, of the row."""
  pieces = [plain("storage"), named(kind), plain(key), plain("cpu"), plain(numel)]
  return items(*pieces, *([] if view is None else [view])) + b"Q"


def tensor(numel=4, offset=0, size=(2, 2), stride=(2, 1), **options):
  head = [storage(numel, **options), plain(offset), plain(size), plain(stride)]
  return call("torch._utils._rebuild_tensor_v2", *head, plain(False), b"}")


def layer(path="torch.nn.modules.linear.Linear", parameters=b"}", modules=b"}", **others):
  state = dictionary(_parameters=parameters, _buffers=b"}", _modules=modules, **others)
  return named(path) + b")\x81" + state + b"b"


def finished(*pieces):
  return b"\x80\x02" + b"".join(pieces) + b"."


# --- forms


def zip_file(content, storages=None, order="little", extra=None):
  """The zip form of a pickle, with {key: bytes}, and more entries as {name: bytes}."""
  out = io.BytesIO()
  entries = {"archive/data.pkl": content, "archive/byteorder": order.encode()}
  entries |= {f"archive/data/{key}": data for key, data in (storages or {}).items()}
  with zipfile.ZipFile(out, "w") as archive:
    for name, data in {**entries, "archive/version": b"3\n", **(extra or {})}.items():
      archive.writestr(name, data)
  return out.getvalue()


def row_file(content, storages=None):
  """The form of before torch 1.6, with {key: (how many numbers, their bytes)}."""
  storages = storages or {}
  info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"long": 8}}
  heads = [pickle.dumps(head, 2) for head in (MAGIC, 1001, info)]
  keys = pickle.dumps(list(storages), 2)
  data = [struct.pack("<q", numel) + data for numel, data in storages.values()]
  return b"".join([*heads, content, keys, *data])


def tar_file(content, tensors=b"\x80\x02K\x00.", storages=b"\x80\x02K\x00.\x80\x02]."):
  """The tar form, of members that are there already."""
  out = io.BytesIO()
  parts = {"sys_info": pickle.dumps({"protocol_version": 1000}, 2), "pickle": content}
  with tarfile.open(fileobj=out, mode="w:", format=tarfile.PAX_FORMAT) as tar:
    for name, data in {**parts, "tensors": tensors, "storages": storages}.items():
      info = tarfile.TarInfo(name)
      info.size, info.mtime = len(data), 1485208845.5  # a float: before each comes a pax header
      tar.addfile(info, io.BytesIO(data))
  return out.getvalue()

"""Reading a pickle as data: a stack machine of our own, which calls nothing that a file names.

Python's unpickler imports and calls whatever a file asks for. Here the opcodes, as `pickletools`
splits them, only build numbers, strings, containers, and what a caller's table of names allows:
values from functions of ours, or inert stand-ins for objects. Any other name is refused as soon as
it is read, before the file's arrays are looked at.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

# Nothing in a checkpoint's pickle is longer, not even the source text that old files carry.
_MAX_STRING = 2**24


class Refused(ValueError):
  """A pickle that asks for what is not allowed, or is damaged; the message says which."""


@dataclasses.dataclass(frozen=True)
class Name:
  """A class or function that a pickle names, as "module.name"; `build` makes what a call gives."""

  name: str
  build: Callable[..., Any]


@dataclasses.dataclass(eq=False)
class StandIn:
  """An object of a class that is not loaded: its class's name, and the attributes it was given."""

  name: str
  state: dict = dataclasses.field(default_factory=dict)


class _Bounded:
  """A stream whose strings have a sane length: a claimed size allocates nothing."""

  def __init__(self, stream: BinaryIO):
    self._stream, self.tell = stream, stream.tell

  def read(self, size: int) -> bytes:
    if size > _MAX_STRING:
      raise Refused(f"it claims a string of {size} bytes")
    return self._stream.read(size)

  def readline(self) -> bytes:
    return self._stream.readline()


def load(
  stream: BinaryIO,
  *,
  find: Callable[[str], Name | None],
  persistent: Callable[[Any], Any] | None = None,
) -> Any:
  """The value of the next pickle in a stream, which is left just behind it.

  Args:
    find: what "module.name" stands for; None: it is not allowed.
    persistent: what a persistent id stands for; None: there may be none.

  Raises:
    Refused: something that is not allowed, or a damaged or truncated pickle.
  """
  machine = _Machine(find, persistent)
  try:
    for opcode, argument, _ in pickletools.genops(_Bounded(stream)):
      if opcode.name == "STOP":
        return machine.pop()
      machine.step(opcode.name, argument)
  except Refused:
    raise
  except (ValueError, LookupError, TypeError, OverflowError, AttributeError) as error:
    raise Refused(
      f"its pickle is damaged or cut off near byte {stream.tell()} ({error})"
    ) from error
  raise Refused(f"its pickle is cut off near byte {stream.tell()}")


_MARK = object()
_IGNORED = {"PROTO", "FRAME"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
  *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
  *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
  *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_FROM_MARK = {"TUPLE": tuple, "LIST": list, "FROZENSET": frozenset}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_GET = {"GET", "BINGET", "LONG_BINGET"}


class _Machine:
  """The stack and the memo of one pickle."""

  def __init__(self, find, persistent):
    self._find, self._persistent = find, persistent
    self._stack: list = []
    self._memo: dict[int, Any] = {}

  def step(self, name: str, argument: Any) -> None:
    """One opcode; containers and constants here, the others in a method of its name."""
    stack = self._stack
    if name in _LITERALS:
      stack.append(argument)
    elif name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
      stack.append(_EMPTY[name]())
    elif name in _FROM_MARK:
      stack.append(_FROM_MARK[name](_hashable(self.pop_to_mark(), name == "FROZENSET")))
    elif name in _SHORT_TUPLES:
      count = _SHORT_TUPLES[name]
      stack.append(tuple([self.pop() for _ in range(count)][::-1]))
    elif name in _PUT:
      self._memo[argument] = self.top()
    elif name in _GET:
      stack.append(self._memo[argument])
    elif name not in _IGNORED:
      method = getattr(self, f"_{name.lower()}", None)
      if method is None:
        raise Refused(f"it uses the pickle opcode {name}, which no checkpoint needs")
      method(argument)

  def pop(self) -> Any:
    value = self._stack.pop()
    if value is _MARK:
      raise ValueError("a mark where a value is needed")
    return value

  def top(self) -> Any:
    value = self.pop()
    self._stack.append(value)
    return value

  def pop_to_mark(self) -> list:
    items = []
    while (value := self._stack.pop()) is not _MARK:
      items.append(value)
    return items[::-1]

  def _mark(self, _) -> None:
    self._stack.append(_MARK)

  def _pop(self, _) -> None:
    self._stack.pop()

  def _pop_mark(self, _) -> None:
    self.pop_to_mark()

  def _dup(self, _) -> None:
    self._stack.append(self.top())

  def _memoize(self, _) -> None:
    self._memo[len(self._memo)] = self.top()

  # --- filling containers

  def _append(self, _) -> None:
    self._fill(list, [self.pop()])

  def _appends(self, _) -> None:
    self._fill(list, self.pop_to_mark())

  def _fill(self, kind: type, items: list) -> None:
    container = self.top()
    if not isinstance(container, kind):
      raise ValueError(f"{kind.__name__} items for a {type(container).__name__}")
    (container.extend if kind is list else container.update)(items)

  def _additems(self, _) -> None:
    self._fill(set, _hashable(self.pop_to_mark()))

  def _dict(self, _) -> None:
    items = self.pop_to_mark()
    self._stack.append({})
    self._set(items)

  def _setitem(self, _) -> None:
    value, key = self.pop(), self.pop()
    self._set([key, value])

  def _setitems(self, _) -> None:
    self._set(self.pop_to_mark())

  def _set(self, items: list) -> None:
    self._fill(dict, zip(_hashable(items[::2]), items[1::2], strict=True))

  # --- names and what is made of them

  def _global(self, argument: str) -> None:
    self._stack.append(self._named(argument.replace(" ", ".")))

  def _stack_global(self, _) -> None:
    name, module = self.pop(), self.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
      raise ValueError("a name that is no text")
    self._stack.append(self._named(f"{module}.{name}"))

  def _named(self, name: str) -> Name:
    found = self._find(name)
    if found is None:
      raise Refused(f"it asks for {name}, which is not part of any network's weights")
    return found

  def _reduce(self, _) -> None:
    arguments = self.pop()
    self._call(self.pop(), arguments)

  def _newobj(self, _) -> None:
    self._reduce(None)

  def _newobj_ex(self, _) -> None:
    self.pop()  # Keyword arguments, which no stand-in looks at.
    self._reduce(None)

  def _obj(self, _) -> None:
    kind, *arguments = self.pop_to_mark()
    self._call(kind, tuple(arguments))

  def _inst(self, argument: str) -> None:
    self._call(self._named(argument.replace(" ", ".")), tuple(self.pop_to_mark()))

  def _call(self, kind: Any, arguments: Any) -> None:
    if not (isinstance(kind, Name) and isinstance(arguments, tuple)):
      raise ValueError("a call of what is no name")
    self._stack.append(kind.build(*arguments))

  def _build(self, _) -> None:
    """State for an object; what a container or an array carries besides its items is left out."""
    state, value = self.pop(), self.top()
    if isinstance(value, StandIn):
      slots = state if isinstance(state, tuple) else (state,)
      for part in slots:
        value.state.update(part or {})

  def _binpersid(self, _) -> None:
    identity = self.pop()
    if self._persistent is None:
      raise Refused("it refers to data outside of itself")
    self._stack.append(self._persistent(identity))


def _hashable(items: list, checked: bool = True) -> list:
  """The items, as keys: plain ones only, for the hash of a deeply nested tuple overflows."""
  if checked and not all(isinstance(item, str | bytes | int | float | None) for item in items):
    raise Refused("it has keys that are neither texts nor numbers")
  return items

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

# A whole pickled DenseNet-201 takes 120,000 steps and, with the source text of old files, 0.4 MB.
MAX_BYTES, _MAX_STEPS = 2**24, 2**19
_MAX_BITS = 80  # as many as torch.save's magic number has


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

  def set_state(self, state: Any) -> None:
    """Attributes, as a dict or a pair of them; other states mean something to the class only."""
    for part in state if isinstance(state, tuple) else (state,):
      if isinstance(part, dict):
        self.state.update(part)


class _Bounded:
  """A stream that ends after MAX_BYTES: the size that a string claims to have allocates no more."""

  def __init__(self, stream: BinaryIO):
    self._stream, self.tell, self._left = stream, stream.tell, MAX_BYTES

  def read(self, size: int) -> bytes:
    return self._taken(self._stream.read(min(size, self._left)))

  def readline(self) -> bytes:
    return self._taken(self._stream.readline(self._left))

  def _taken(self, content: bytes) -> bytes:
    self._left -= len(content)
    return content


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
    Refused: something that is not allowed, or a damaged, truncated or boundless pickle.
  """
  machine = _Machine(find, persistent)
  try:
    # Of a stream it only takes what _Bounded has; its annotation asks for all of IO.
    # pyrefly: ignore[bad-argument-type]
    for opcode, argument, _ in pickletools.genops(_Bounded(stream)):
      if opcode.name == "STOP":
        return machine.pop()
      machine.step(opcode.name, argument)
  except Refused:
    raise
  # Python warns of odd escapes in a damaged text, which is an error where warnings are errors.
  except (ValueError, LookupError, TypeError, OverflowError, AttributeError, Warning) as error:
    raise Refused(
      f"its pickle is damaged or cut off near byte {stream.tell()} ({error})"
    ) from error
  raise Refused(f"its pickle is cut off near byte {stream.tell()}")


def is_key(value: Any) -> bool:
  """Whether a dict may have it as a key, or be asked for it.

  To hash another may overflow the stack, which ends the process, or be very slow: a tuple hashes
  what is nested in it, and many large numbers can be made to have the same hash.
  """
  if isinstance(value, int):
    return abs(value) < 2**63
  return isinstance(value, str | bytes | float | None)


_MARK = object()
# What Python 2 and 3 write in the binary protocols, of which torch.save takes the second.
_IGNORED = {"PROTO", "FRAME"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
  *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "BINFLOAT"),
  *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
  *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = {"BINPUT", "LONG_BINPUT"}
_GET = {"BINGET", "LONG_BINGET"}


class _Machine:
  """The stack and the memo of one pickle."""

  def __init__(self, find, persistent):
    self._find, self._persistent = find, persistent
    self._stack: list = []
    self._memo: dict[int, Any] = {}
    self._steps = 0

  def step(self, name: str, argument: Any) -> None:
    """One opcode; containers and constants here, the others in a method of its name."""
    self._spend(1)
    stack = self._stack
    if name in _LITERALS:
      if isinstance(argument, int) and argument.bit_length() > _MAX_BITS:
        raise Refused(f"it has a number of {argument.bit_length()} bits")
      stack.append(argument)
    elif name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
      stack.append(_EMPTY[name]())
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

  def _spend(self, steps: int) -> None:
    """Opcodes, and items that they copy, which a file may have copied again and again."""
    self._steps += steps
    if self._steps > _MAX_STEPS:
      raise Refused(f"its pickle takes more than {_MAX_STEPS} steps, as no network's does")

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

  def _tuple(self, _) -> None:
    self._stack.append(tuple(self.pop_to_mark()))

  def _memoize(self, _) -> None:
    self._memo[len(self._memo)] = self.top()

  # --- filling containers

  def _append(self, _) -> None:
    self._fill(list, [self.pop()])

  def _appends(self, _) -> None:
    self._fill(list, self.pop_to_mark())

  def _additems(self, _) -> None:
    self._fill(set, _keys(self.pop_to_mark()))

  def _setitem(self, _) -> None:
    value, key = self.pop(), self.pop()
    self._set([key, value])

  def _setitems(self, _) -> None:
    self._set(self.pop_to_mark())

  def _set(self, items: list) -> None:
    self._fill(dict, zip(_keys(items[::2]), items[1::2], strict=True))

  def _fill(self, kind: type, items: Any) -> None:
    container = self.top()
    if not isinstance(container, kind):
      raise ValueError(f"{kind.__name__} items for a {type(container).__name__}")
    (container.extend if kind is list else container.update)(items)

  # --- names and what is made of them

  def _global(self, argument: str) -> None:
    module, _, name = argument.partition(" ")
    self._stack.append(self._named(module, name))

  def _stack_global(self, _) -> None:
    name, module = self.pop(), self.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
      raise ValueError("a name that is no text")
    self._stack.append(self._named(module, name))

  def _named(self, module: str, name: str) -> Name:
    # A name with a dot means an attribute of what a module holds, of another module for example.
    found = None if "." in name else self._find(f"{module}.{name}")
    if found is None:
      raise Refused(
        f"it asks for {module}.{name}, which is not part of any network's weights; save only the "
        "network's state_dict() with torch.save, and try again"
      )
    return found

  def _reduce(self, _) -> None:
    arguments = self.pop()
    self._call(self.pop(), arguments)

  def _newobj(self, _) -> None:
    self._reduce(None)

  def _inst(self, argument: str) -> None:
    self._global(argument)
    kind = self.pop()
    self._call(kind, tuple(self.pop_to_mark()))

  def _call(self, kind: Any, arguments: Any) -> None:
    if not (isinstance(kind, Name) and isinstance(arguments, tuple)):
      raise ValueError("a call of what is no name")
    self._spend(_copied(arguments))
    self._stack.append(kind.build(*arguments))

  def _build(self, _) -> None:
    """State for an object; what a container or an array carries besides its items is left out."""
    state, value = self.pop(), self.top()
    if isinstance(value, StandIn):
      self._spend(_copied(state if isinstance(state, tuple) else (state,)))
      value.set_state(state)

  def _binpersid(self, _) -> None:
    identity = self.pop()
    if self._persistent is None:
      raise Refused("it refers to data outside of itself")
    self._stack.append(self._persistent(identity))


def key_of(value: Any) -> Any:
  """The value, if a dict may be asked for it; else it is refused."""
  if not is_key(value):
    raise Refused("it has keys that are neither texts nor numbers")
  return value


def _keys(items: list) -> list:
  return [key_of(item) for item in items]


def _copied(values: tuple) -> int:
  """How many items a function may copy that is given these values."""
  return len(values) + sum(
    len(value) for value in values if isinstance(value, tuple | list | dict | set)
  )

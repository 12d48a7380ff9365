"""The one exception that speaks to the user."""


class InputError(ValueError):
  """Something given from outside is wrong: data, a config value, a checkpoint, a path.

  The message names the thing, the reason and the remedy. The command line prints it without a
  traceback and exits with status 1; library callers catch it as the ValueError it is.
  """


def excerpt(text: object, most: int = 200) -> str:
  """What a message may quote of something foreign, such as a file or a library's error.

  One line of letters that can be shown, and not without end. Of what is not plain, the type alone:
  making a text of it may take for ever, or more stack than there is.
  """
  if not isinstance(text, str | int | float | BaseException):
    return f"a value of type {type(text).__name__}"
  try:
    whole = str(text)
  except (ValueError, RecursionError):  # As of a number of more than 4300 digits.
    return f"a value of type {type(text).__name__} that is too long to be shown"
  short = whole if len(whole) <= most else f"{whole[:most]} ..."
  return "".join(letter if letter.isprintable() else "?" for letter in short)

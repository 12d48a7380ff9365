"""The one exception that speaks to the user."""


class InputError(ValueError):
  """Something given from outside is wrong: data, a config value, a checkpoint, a path.

  The message names the thing, the reason and the remedy. The command line prints it without a
  traceback and exits with status 1; library callers catch it as the ValueError it is.
  """

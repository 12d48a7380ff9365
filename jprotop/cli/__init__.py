"""The command line."""

import logging

# Before it is imported: where the home folder cannot be written, Matplotlib tells so at length, and
# only starts more slowly.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

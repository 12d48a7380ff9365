import sys

from jprotop.cli.main import start

if __name__ == "__main__":
  start("head_on_stomach", *sys.argv[1:])

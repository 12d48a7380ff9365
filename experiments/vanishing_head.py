import sys

from jprotop.cli.main import start

if __name__ == "__main__":
  start("vanishing_head", *sys.argv[1:])

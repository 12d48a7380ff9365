import sys

from jprotop.cli.main import start

if __name__ == "__main__":
  start("map_quality", *sys.argv[1:])

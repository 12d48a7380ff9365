import sys

from jprotop.cli.main import start

if __name__ == "__main__":
  start("download_cub", *sys.argv[1:])

import sys

from jprotop.cli.main import start

if __name__ == "__main__":
  start("twins", *sys.argv[1:])

import sys

from jprotop.cli.main import start

if __name__ == "__main__":
  start("success_rate", *sys.argv[1:])

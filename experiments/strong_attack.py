import sys

from jprotop.cli.main import start

if __name__ == "__main__":
  start("strong_attack", *sys.argv[1:])

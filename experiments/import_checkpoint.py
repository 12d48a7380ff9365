import sys

from jprotop.cli.main import start

if __name__ == "__main__":
  start("import_checkpoint", *sys.argv[1:])

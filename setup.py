"""The packages of the wheel; setup.cfg says all else."""

from setuptools import find_packages, setup

# Here, because setup.cfg can either find packages or name them: configs/ becomes jprotop._configs.
setup(packages=[*find_packages(include=["jprotop", "jprotop.*"]), "jprotop._configs"])

"""Builds the native loop, and says what runs loops over time here: `python -m longlag.kernels`."""

from longlag.kernels.native import describe

if __name__ == "__main__":
    print(f"loops over time run by: {describe()}")

"""The command `longlag`."""

"""Compiled arithmetic for the CPU. Each kernel has a plain form elsewhere that tests compare it with."""

"""Damaged files for every reader: refused in the documented words or read right, in bounded memory and time.

A short round is in ``tests/test_hostile_files.py``; ``make fuzz SECONDS=600`` goes on for as long as wanted.
"""

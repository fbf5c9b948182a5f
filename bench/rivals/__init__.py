"""What people run PIPNet with, one file each: ``build(task, ...)`` makes a subject ready, in a worker's process.

A file imports its engine inside ``build``, so that only the process that measures it has its threads.
"""

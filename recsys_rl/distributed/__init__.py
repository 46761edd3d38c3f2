"""Data-parallel training: several processes run the same loop and average their gradients.

``place.py`` finds the rank of this process, ``group.py`` connects it to the other processes, and
``launch.py`` starts all of them on this machine. Only the command imports this package.
"""

"""Data-parallel training: the same loop in several processes, whose gradients are averaged.

``place.py`` says which process of the run this one is, ``group.py`` joins it with the others,
``launch.py`` starts all of them on this machine. Only the command imports this room.
"""

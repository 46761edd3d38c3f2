"""Data-parallel training: several processes run the same loop and average their gradients.

``launch.py`` starts them on this machine through torch.distributed's launcher (torchrun), and ``group.py``
connects a process to the others. Only the command imports this package.
"""

"""Several processes: one training that averages its gradients, or tasks side by side.

``launch.py`` starts the ranks of a training on this machine through torch.distributed's launcher (torchrun),
and ``group.py`` connects a rank to the others. ``in_processes.py`` and ``on_ray.py`` map a function over
items, in processes of this machine or on a Ray cluster; ``sent.py`` is what they exchange.
"""

"""Several processes: one training that averages its gradients, or tasks side by side.

``group.py`` connects the ranks of a training, which torchrun starts. ``in_processes.py`` and ``on_ray.py``
map a function over items, in processes of this machine or on a Ray cluster; ``sent.py`` is what they
exchange.
"""

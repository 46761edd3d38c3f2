"""Off-policy evaluation: from a log and a policy to the return that the policy would have earned.

Letters beside those of types.py: ``E`` rows of a log (one decision each) or sessions, ``w`` the weight
``pi(a|x) / pi_b(a|x)`` of the judged policy ``pi`` over the logging policy ``pi_b``, ``q(x, a)`` the reward
model. An estimator is a function from tensors to its terms ``(E,)``, float64: their mean is the estimate, and
their spread gives its error. A self-normalised estimator returns linearised terms
(``value + w (r - value) / mean w``), which have the same two properties.
"""

"""How hard a prompt is for a policy: the chance that one rollout of it is correct, or one of k at least.

Of n rollouts c are correct. That one of k drawn from them without putting back is correct has the chance
1 − C(n−c, k)/C(n, k): the unbiased estimator of pass@k (Chen et al. 2021), where 1 − (1 − c/n)^k says too
little. Loads no torch, so that pages may ask it."""

from math import expm1, log1p


def pass_at(k: int, n: int, c: int) -> float | None:
    """None where fewer than k were written: nothing unbiased can be said then.

    As a product over the correct ones or over the k, whichever are fewer, in logarithms: no binomial
    coefficient of thousands is ever written down, and what is next to nothing stays exact."""
    if not 0 <= c <= n or k < 1:
        raise ValueError(f"of {n} rollouts {c} cannot be correct, or none of {k} be looked at")
    if k > n:
        return None
    if n - c < k:
        return 1.0
    fewer, more = sorted((c, k))
    # C(n−c, k)/C(n, k) is symmetric in c and k: the product of (n − more − i)/(n − i) over i < fewer
    return -expm1(sum(log1p(-more / (n - place)) for place in range(fewer)))

"""Independent programs: SGD of three linear layers, sample by sample, with numpy's own generator.

`learning_times` trains whole networks; it shares with the package the definition of the loss and nothing else: no
second moments, no torch, no counter-based noise, no linearisation. `growth_rates` follows the unused directions of a
state of one feature by equations derived by hand for three layers, with the used unit as (u_1, s_2, u_3).
"""

# In compiled code np.random is numba's own generator, and the only one that can be seeded there.
# ruff: noqa: NPY002

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["growth_rates", "learning_times"]

Array = NDArray[np.floating]

# Everything but the promise that no NaN occurs: weights may diverge.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _run(first, second, third, teacher, lr, size, decay, label, added, n_steps, threshold, seed):  # type: ignore[no-untyped-def]
    """Steps until the second feature passes the threshold: −1 if it does not, −2 if the weights diverge."""
    np.random.seed(seed)
    h, d = first.shape
    o = third.shape[0]
    x, e = np.zeros((size, d)), np.zeros((size, o))
    a1, a2, b1, b2 = np.zeros((size, h)), np.zeros((size, h)), np.zeros((size, h)), np.zeros((size, h))
    kept, rate = 1.0 - lr * decay, lr / size
    for step in range(n_steps):
        for b in range(size):
            for i in range(d):
                x[b, i] = np.random.normal()
            for j in range(h):
                total = 0.0
                for i in range(d):
                    total += first[j, i] * x[b, i]
                a1[b, j] = total
            for k in range(h):
                total = 0.0
                for j in range(h):
                    total += second[k, j] * a1[b, j]
                a2[b, k] = total
                b2[b, k] = 0.0
            for i in range(o):
                total = label * np.random.normal()
                if i < len(teacher):
                    total += teacher[i] * x[b, i]
                for k in range(h):
                    total -= third[i, k] * a2[b, k]
                e[b, i] = total
                for k in range(h):
                    b2[b, k] += third[i, k] * total
            for j in range(h):
                total = 0.0
                for k in range(h):
                    total += second[k, j] * b2[b, k]
                b1[b, j] = total
        for j in range(h):
            for i in range(d):
                total = 0.0
                for b in range(size):
                    total += b1[b, j] * x[b, i]
                first[j, i] = kept * first[j, i] + rate * total
        for k in range(h):
            for j in range(h):
                total = 0.0
                for b in range(size):
                    total += b2[b, k] * a1[b, j]
                second[k, j] = kept * second[k, j] + rate * total
        for i in range(o):
            for k in range(h):
                total = 0.0
                for b in range(size):
                    total += e[b, i] * a2[b, k]
                third[i, k] = kept * third[i, k] + rate * total
        if added > 0.0:
            for weights in (first, second, third):
                for i in range(weights.shape[0]):
                    for j in range(weights.shape[1]):
                        weights[i, j] += added * np.random.normal()
        m = 0.0
        for k in range(h):
            for j in range(h):
                m += third[1, k] * second[k, j] * first[j, 1]
        if m > threshold:
            return step + 1
        if not abs(m) < 1e6:
            return -2
    return -1


def learning_times(
    layers: tuple[Array, Array, Array], *, teacher: Array, lr: float, batch_size: int, weight_decay: float,
    label_noise: float, added: float = 0.0, n_steps: int, threshold: float = 0.5, seed: int,
) -> NDArray[np.int64]:  # fmt: skip
    """Return for each replica the step at which the second feature is half learned.

    Parameters
    ----------
    layers : three arrays, shapes (replica, h, d), (replica, h, h), (replica, o, h)
        Where they begin; kept in their own precision.
    teacher : array
        Diagonal of the teacher's map.
    added : float
        Standard deviation of Gaussian noise added to every weight at every step.

    Returns
    -------
    array of int, shape (replica,)
        −1 if not within `n_steps`, −2 if the weights left the finite numbers.
    """
    seeds = np.random.SeedSequence(seed).generate_state(len(layers[0]))
    return np.array([
        _run(*(np.ascontiguousarray(w[n]).copy() for w in layers), np.asarray(teacher), lr, batch_size, weight_decay,
             label_noise, added, n_steps, threshold, seeds[n])
        for n in range(len(seeds))
    ])  # fmt: skip


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _grow(d, o, amplitude, teacher, lr, size, decay, label, settle, n_steps, n_blocks, seed, logs, norms):  # type: ignore[no-untyped-def]
    """Fill the logarithm of the growth of both directions in each block, and sums of the norms; False if diverged."""
    np.random.seed(seed)
    kept, rate = 1.0 - lr * decay, lr / size
    first, third, second = np.zeros(d), np.zeros(o), amplitude
    first[0] = third[0] = amplitude
    a, e = np.random.normal(0.0, 1.0, d), np.random.normal(0.0, 1.0, o)  # row of W_1 and column of W_3
    b, c = np.random.normal(), np.random.normal()  # W_2 from the one and to the other
    x, r = np.zeros((size, d)), np.zeros((size, o))
    hidden, back = np.zeros(size), np.zeros(size)
    total = settle + n_steps
    for step in range(total):
        for n in range(size):
            hidden[n] = 0.0
            for i in range(d):
                x[n, i] = np.random.normal()
                hidden[n] += first[i] * x[n, i]
            back[n] = 0.0
            for i in range(o):
                y = label * np.random.normal()
                if i < len(teacher):
                    y += teacher[i] * x[n, i]
                r[n, i] = y - third[i] * second * hidden[n]
                back[n] += third[i] * r[n, i]
        # K = u_3ᵀR couples a and b, L = R u_1 couples e and c; R = Σ r xᵀ / B.
        new_b, new_c, new_second = kept * b, kept * c, kept * second
        for n in range(size):
            k_a, l_e = 0.0, 0.0
            for i in range(d):
                k_a += x[n, i] * a[i]
            for i in range(o):
                l_e += r[n, i] * e[i]
            new_b += rate * back[n] * k_a
            new_c += rate * hidden[n] * l_e
            new_second += rate * back[n] * hidden[n]
        for i in range(d):
            k = 0.0
            for n in range(size):
                k += back[n] * x[n, i]
            a[i] = kept * a[i] + rate * b * k
            first[i] = kept * first[i] + rate * second * k
        for i in range(o):
            k = 0.0
            for n in range(size):
                k += hidden[n] * r[n, i]
            e[i] = kept * e[i] + rate * c * k
            third[i] = kept * third[i] + rate * second * k
        b, c, second = new_b, new_c, new_second
        if (step + 1) % 8 == 0:
            s1, s3, s2 = (first * first).sum(), (third * third).sum(), second * second
            if not s1 + s2 + s3 < 1e12:
                return False
            # (u_1, s_2) and (s_2, u_3) solve the same equations: what lies along them is no growth.
            along = ((a * first).sum() + b * second) / (s1 + s2)
            a -= along * first
            b -= along * second
            along = ((e * third).sum() + c * second) / (s3 + s2)
            e -= along * third
            c -= along * second
            one, two = np.sqrt((a * a).sum() + b * b), np.sqrt((e * e).sum() + c * c)
            a /= one
            b /= one
            e /= two
            c /= two
            if step >= settle:
                block = (step - settle) * n_blocks // n_steps
                logs[0, block] += np.log(one)
                logs[1, block] += np.log(two)
                norms[0] += np.sqrt(s1)
                norms[1] += abs(second)
                norms[2] += np.sqrt(s3)
                norms[3] += s2 * s3
                norms[4] += 1.0
    return True


def growth_rates(
    d: int, o: int, *, amplitude: float, teacher: Array, lr: float, batch_size: int, weight_decay: float,
    label_noise: float, settle: int, n_steps: int, n_replicas: int, n_blocks: int = 8, seed: int,
) -> tuple[Array, Array, NDArray[np.bool_]]:  # fmt: skip
    """Return growth rates of both directions, means of three norms and the gain, and who stayed finite.

    Returns
    -------
    rates : array, shape (replica, 2, block)
    means : array, shape (replica, 4)
        Norms of the three layers, and (s_2 s_3)².
    finite : array of bool, shape (replica,)
    """
    seeds = np.random.SeedSequence(seed).generate_state(n_replicas)
    each = -(-n_steps // (8 * n_blocks)) * 8
    settle = -(-settle // 8) * 8
    logs, norms = np.zeros((n_replicas, 2, n_blocks)), np.zeros((n_replicas, 5))
    finite = np.array([
        _grow(d, o, amplitude, np.asarray(teacher), lr, batch_size, weight_decay, label_noise, settle,
              each * n_blocks, n_blocks, seeds[n], logs[n], norms[n])
        for n in range(n_replicas)
    ])  # fmt: skip
    return logs / (each * lr), norms[:, :4] / np.maximum(norms[:, 4:], 1.0), finite

"""With what the demo's runs are launched: what suits a model of 700,000 weights on a processor.

The defaults of `rlhf.config` are for models of a billion. Knows neither torch nor the web, so that
measurements can launch the same runs without either.
"""

from typing import Any

RUN_DEFAULTS: dict[str, dict[str, Any]] = {
    "rollouts": {"max_new_tokens": 40},
    "sft": {"learning_rate": 1e-3, "batch": 32, "micro_batch": 32, "max_new_tokens": 40},
    "reward": {
        "learning_rate": 1e-3,
        "epochs": 4,
        "batch": 16,
        "micro_batch": 16,
        "weight_decay": 0.05,
        "simulated": True,
    },
    # β and the limits of the crop are those of docs/log.md: with β 0.2 all seeds held, with 0 all fell.
    "policy": {
        "steps": 90,
        "learning_rate": 1e-3,
        "max_new_tokens": 40,
        "micro_batch": 64,
        "beta": 0.2,
        "checkpoint_every": 3,
        "crop_kl": 12.0,
        "crop_distinct": 0.5,
        "crop_entropy": 0.1,
    },
}

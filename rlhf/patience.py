"""When a run has learnt enough: the best measurement on what was held out, and how long nothing was better.

How often is measured, and on what, is the trainers' own.
"""

from typing import Any


def better(best: dict[str, Any], step: int, metrics: dict[str, Any]) -> dict[str, Any]:
    """The best measurement so far, and how many after it were no better."""
    loss = metrics["held_out_loss"]
    if not best or loss < best["metrics"]["held_out_loss"]:
        return {"step": step, "waited": 0, "metrics": dict(metrics)}
    return best | {"waited": best["waited"] + 1}


def why(best: dict[str, Any], step: int) -> str:
    """Why the best one is proposed, after the last step."""
    found = (
        f"Step {best['step']} has the least loss on what was held out, {best['metrics']['held_out_loss']:.4f}"
    )
    if step == best["step"]:
        return f"{found}; it is the last."
    return f"{found}; the {best['waited']} measurements up to step {step} were no better."

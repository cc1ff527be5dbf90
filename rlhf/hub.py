"""A start from the Hugging Face Hub: one commit of one model, downloaded into the run directory.

Only what a checkpoint consists of is fetched, and no pickled weights; opening it is the matter of
`rlhf.checkpoint`. What was downloaded once is not asked for again, so a resumed run needs no network.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import httpx2  # what huggingface_hub speaks through; its errors are not wrapped
import huggingface_hub
from huggingface_hub import errors

from rlhf import checkpoint


def download(name: str, revision: str, into: Path) -> None:
    """Fetch a model of the Hugging Face Hub: one commit; weights, configs and tokenizer, nothing else."""
    if into.is_dir():
        return
    remedy = "Check the name and the network, or give the folder of a downloaded model."
    part = into.with_name(f".{into.name}.part")
    try:
        info = huggingface_hub.HfApi().model_info(name, revision=revision)
        for file in _wanted(name, into, [each.rfilename for each in info.siblings or []]):
            huggingface_hub.hf_hub_download(name, file, revision=info.sha, local_dir=part)
    except errors.GatedRepoError:
        raise checkpoint.Unloadable(
            into, f"{name} asks its users to accept a licence first.", "Accept it, or take another."
        ) from None
    except errors.RepositoryNotFoundError:
        raise checkpoint.Unloadable(into, f"The Hub has no model {name}.", remedy) from None
    except errors.RevisionNotFoundError:
        raise checkpoint.Unloadable(
            into, f"{name} has no revision {revision}.", "Name a commit, a tag or a branch."
        ) from None
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise checkpoint.Unloadable(into, f"{name} could not be downloaded: {error}", remedy) from error
    shutil.rmtree(part / ".cache", ignore_errors=True)
    checkpoint.write_json(part / checkpoint.LINEAGE, {"kind": "policy", "hub": name, "revision": info.sha})
    os.rename(part, into)


def _wanted(name: str, into: Path, files: Iterable[str]) -> list[str]:
    kept = (".safetensors", ".json", ".jinja", ".model", ".txt")
    wanted = [file for file in files if "/" not in file and file.endswith(kept)]
    if not any(file.endswith(".safetensors") for file in wanted):
        raise checkpoint.Unloadable(
            into, f"{name} has no safetensors weights.", "Choose a model that has; pickled ones are refused."
        )
    return wanted

"""Stage `denoiser`: train one method's denoiser on cached latents."""

from pathlib import Path

import torch

from harness import artifacts, latents
from harness.config import Study, UserError, denoiser_hook, load_method, method_file
from harness.models.denoiser import LightningDiT
from harness.models.flow import at_time, logit_normal_time, v_loss
from harness.runtime import seed_initialisation
from harness.train.loop import batch_indices, fit

CLASSES = 10


def build(study: Study, method_name: str) -> torch.nn.Module:
    """The method's denoiser with fresh weights from the global generator."""
    config, registers = study.denoiser, load_method(method_name).registers(study)
    model = LightningDiT(
        input_size=study.grid,
        in_channels=study.encoder.width,
        hidden_size=config.width,
        depth=config.depth,
        num_heads=config.heads,
        num_classes=CLASSES,
        mlp_ratio=config.mlp_ratio,
        registers=registers.count if registers else 0,
        register_start=registers.start if registers else 0,
    )
    hook = denoiser_hook(method_name)
    if hook is None:
        return model
    try:
        changed = hook(model)
    except Exception as error:
        raise UserError(f"baselines/{method_name}.py: modify_denoiser failed: {type(error).__name__}: {error}") from None
    if not isinstance(changed, torch.nn.Module):
        raise UserError(f"baselines/{method_name}.py: modify_denoiser must return the model, got {type(changed).__name__}")
    return changed


def train(study: Study, *, method_name: str, seed: int, latents_file: Path, state: Path, out: Path) -> dict:
    """Write the EMA weights; the record beside them holds the share of tokens that a loss mask filtered."""
    config, method = study.denoiser, load_method(method_name)
    facts = {"method": method_name, "seed": seed, "method_file": artifacts.sha256(method_file(method_name))}
    source = latents.load(latents_file, "train")
    weights = source.loss_weights(method.loss_mask, study.outlier_statistics.factor) if method.loss_mask else None
    facts["filtered_share"] = 1 - weights.mean().item() if weights is not None else 0.0
    if facts["filtered_share"] == 1:
        raise UserError(
            f"method '{method_name}': the loss mask filters every token; look at the norm it thresholds ({method.loss_mask.norm})"
        )
    with artifacts.trained_artifact(out, state=state, stage="denoiser", module=__name__, config=config, inputs=[latents_file], **facts) as (
        path,
        checkpoints,
    ):
        seed_initialisation(seed)
        model = build(study, method_name)

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            rows = batch_indices(seed, step, len(source.latents), config.training.batch)
            clean = source.latents[rows]
            t = logit_normal_time(len(rows), config.time_shift, generator)
            noise = torch.randn(clean.shape, generator=generator)
            drop = torch.rand(len(rows), generator=generator) < config.class_dropout
            labels = source.labels[rows].masked_fill(drop, CLASSES)
            prediction = model(at_time(clean, noise, t), t, labels)
            per_element = v_loss(clean, noise, t, prediction, config.t_min)
            if weights is None:
                return per_element.mean()
            kept = weights[rows]
            return (per_element * kept).mean() / kept.mean().clamp(min=1e-12)  # mean over kept tokens

        name = f"denoiser {method_name}/seed{seed}"
        artifacts.save_tensors(path, fit(model, loss, config.training, name=name, seed=seed, state=checkpoints, ema=config.ema))
    return {"filtered_share": facts["filtered_share"]}


def load(study: Study, method_name: str, path: Path) -> torch.nn.Module:
    tensors, _ = artifacts.load_tensors(path)
    return artifacts.load_weights(build(study, method_name), tensors, path).eval().requires_grad_(False)

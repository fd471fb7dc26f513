"""One step of learning: the forward pass over packed rows, the loss on what the assistant says, two optimisers."""

import math
from pathlib import Path

import torch
from torch.nn import Parameter
from torch.nn.functional import cross_entropy

from demo.checkpoint import read_checkpoint
from demo.routing import imbalance
from demo.rows import IGNORED, Batch, Pieces
from demo.tiers import BALANCE_WEIGHT, Model, Plan, new_model
from demo.upcycling import inherit

GRADIENT_NORM_MAX = 1.0
WARM_UP_STEPS = 40
FIGURES_DECAY = 0.95  # how much of a running mean one step keeps


class Learner:
    """A model over the pieces in use, and its optimisers: Muon for matrices inside the layers, AdamW for the rest."""

    def __init__(self, plan: Plan, pieces: Pieces, device: torch.device) -> None:
        self.plan, self.pieces, self.device = plan, pieces, device
        self.step = 0
        self.model: Model = new_model(plan.shape, len(pieces)).to(device)
        if plan.shape.experts:
            self.model.set_experts_implementation("grouped_mm")
        self._loss = self._balance = 0.0
        # Piece number 0 stands for many, whose probabilities the softmax over all 32 000 would add up.
        self._many = torch.zeros(len(pieces), device=device)
        self._many[0] = math.log(pieces.others)
        self._matrices, others = self._split()
        self._optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(self._matrices, lr=plan.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0),
        )

    def learn(self, batch: Batch, share: float = 1.0) -> float:
        """One step at `share` of the rate; returns the loss."""
        loss, balance = self.losses(batch)
        (loss + BALANCE_WEIGHT * balance).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM_MAX)
        rate = self.plan.rate * share * min(1.0, (self.step + 1) / WARM_UP_STEPS)
        for optimizer in self._optimizers:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        self.step += 1
        self._note(float(loss.detach()), float(balance.detach()))
        return float(loss.detach())

    def losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross entropy of what is learnt, and how unevenly the experts are used: 2 is even with 2 of 8."""
        ids = self.pieces.numbers(batch.ids).to(self.device)
        positions, targets = batch.positions.to(self.device), batch.targets.to(self.device)
        learnt = targets != IGNORED
        sparse = bool(self.plan.shape.experts)
        routing = {"output_router_logits": True} if sparse else {}
        # At these widths bfloat16 is no quicker on a CPU than float32.
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            out = self.model.model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=_mask(positions),
                use_cache=False,
                **routing,
            )
            logits = out.last_hidden_state[learnt] @ self.model.lm_head.weight.T
        wanted = self.pieces.numbers(targets[learnt].cpu()).to(self.device)
        loss = cross_entropy(logits.float() + self._many, wanted)
        if not sparse:
            return loss, torch.zeros((), device=self.device)
        return loss, imbalance(out.router_logits)

    def describe(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return f"{count / 1e6:.2f} million parameters over {len(self.pieces)} pieces in use, on {self.device}"

    def figures(self) -> str:
        balance = f"  balance {self._balance:.3f}" if self.plan.shape.experts else ""
        return f"loss {self._loss:.4f}{balance}"

    def state(self) -> dict[str, object]:
        return {
            "step": self.step,
            "pieces": self.pieces.ids,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def restore(self, model: dict[str, torch.Tensor], optimizers: list[dict[str, object]], step: int) -> None:
        self.model.load_state_dict(model)
        for optimizer, state in zip(self._optimizers, optimizers, strict=True):
            optimizer.load_state_dict(state)
        self.step = step

    def _split(self) -> tuple[list[Parameter], list[Parameter]]:
        """Matrices and the rest. Experts are stacked; each of their matrices is one, in the same memory."""
        matrices: list[Parameter] = []
        others: list[Parameter] = []
        for name, parameter in self.model.named_parameters():
            if "layers" not in name or parameter.ndim < 2 or ".gate." in name:
                others.append(parameter)
                continue
            if parameter.ndim == 2:
                matrices.append(parameter)
                continue
            parameter.grad = torch.zeros_like(parameter)
            for one, gradient in zip(parameter.data, parameter.grad, strict=True):
                matrices.append(Parameter(one))
                matrices[-1].grad = gradient
        return matrices, others

    def _note(self, loss: float, balance: float) -> None:
        kept = FIGURES_DECAY if self.step > 1 else 0.0
        self._loss = kept * self._loss + (1 - kept) * loss
        self._balance = kept * self._balance + (1 - kept) * balance


def save_state(learner: Learner, path: Path) -> None:
    """All or nothing."""
    staging = path.with_suffix(".partial")
    torch.save(learner.state(), staging)
    staging.replace(path)


def load_state(path: Path, plan: Plan, device: torch.device) -> Learner:
    """Where a run stopped."""
    state = torch.load(path, map_location=device, weights_only=True)
    learner = Learner(plan, Pieces(state["pieces"].tolist()), device)
    learner.restore(state["model"], state["optimizers"], state["step"])
    return learner


def start_from(path: Path, plan: Plan, pieces: Pieces, device: torch.device) -> Learner:
    """The first step of a tier that goes on from another's state, or from a checkpoint's folder."""
    if path.is_dir():
        weights, known = read_checkpoint(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        weights, known = state["model"], Pieces(state["pieces"].tolist())
    learner = Learner(plan, pieces, device)
    learner.model.load_state_dict(inherit(weights, known, pieces, plan.shape))
    return learner


def _mask(positions: torch.Tensor) -> torch.Tensor:
    """[rows, 1, row_tokens, row_tokens]: each place sees its own example up to itself."""
    example = (positions == 0).cumsum(1)
    same = example[:, :, None] == example[:, None, :]
    return same.tril()[:, None]

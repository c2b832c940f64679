"""A consolidator without a model: extractive and deterministic; what it cannot put safely, it quotes."""

from __future__ import annotations

from consolidator_providers.rules.proposer import RuleProposer, open_rules

__all__ = ["RuleProposer", "open_rules"]

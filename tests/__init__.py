"""The tests."""

import pytest

# the contract suites are shipped, so pytest has to be told that their assertions want explaining
pytest.register_assert_rewrite(
    *(f"consolidator.testing.{name}" for name in ("store_contract", "store_refusals", "store_cases", "embedder_contract")),
    *(f"consolidator.testing.{name}" for name in ("ledger_contract", "ledger_queue_contract", "chat_contract")),
)

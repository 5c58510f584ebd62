"""GraphQL over HTTP, server-sent events and WebSocket for any strawberry schema (contract.md, rules 10-15)."""

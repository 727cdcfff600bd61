"""The simulated Kite Connect v3: REST, WebSocket and postbacks (docs/brokersim.md)."""

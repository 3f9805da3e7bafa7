"""What the service runs for its clients: whole rollouts, and environments that they lease.

POST /v2/rollouts/submit    -> an attempt, sampled through our own gateway  -> GET /v2/trace/{id}
POST /runtime/sessions      -> an environment process on a loopback port
WS   /runtime/tunnels/{id}  -> one connection to it, byte for byte
"""

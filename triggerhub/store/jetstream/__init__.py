"""The store of several machines: streams of NATS JetStream."""

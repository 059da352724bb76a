"""A connection to NATS servers that is made again for ever: the connector's and the store's."""

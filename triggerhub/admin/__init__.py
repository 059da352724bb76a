"""How an operator looks in: the admin API, metrics, health."""

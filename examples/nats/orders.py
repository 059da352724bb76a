"""Handles one order. The same order may come twice: its id tells."""

done: set[str] = set()  # in earnest: a unique key in a database


def handle(event, context):
    if event.id in done:
        return "handled before"
    order = event.data
    if not isinstance(order, dict) or order.get("count", 0) < 1:
        return 422, "expected an order with a count of at least 1"  # a dead letter, at once
    number = event.subject.rpartition(".")[2]
    context.logger.info("order %s: %d %s", number, order["count"], order["item"])
    done.add(event.id)
    return None  # 204: accepted

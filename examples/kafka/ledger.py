"""Writes down every record, in the order of its partition."""


def handle(event, context):
    context.logger.info("%s %s", event.id, event.data)

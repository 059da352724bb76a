"""Sends the report of a point in time. It has a hiccup, and it has a bug."""


def handle(event, context):
    second = event.time.second
    if second % 6 == 0 and event.attempt == 1:
        raise RuntimeError("the printer is jammed")  # a hiccup: the next attempt works
    if second % 10 == 8:
        return 422, f"no report for second {second}"  # a bug: rejected, and never tried again
    return f"the report of {event.time:%H:%M:%S} is out"

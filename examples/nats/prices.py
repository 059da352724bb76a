"""Answers what something costs."""

PRICES = {"tea": 4, "coffee": 7}


def tell(event, context):
    item = event.subject.rpartition(".")[2]
    if item not in PRICES:
        return 404, f"nobody sells {item}"  # who asks gets this, as an error
    return {"item": item, "price": PRICES[item]}

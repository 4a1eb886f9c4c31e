def drive(submission, table, smallest, largest, eta):
    """Column b of the table holds the losses of all candidates with the budget b + 1."""
    asked = []

    def loss(candidate, budget):
        if budget < 1:
            raise ValueError("a budget below 1 was asked for")
        asked.append((candidate, budget))
        return table[candidate, budget - 1].item()

    result = submission.successive_halving(loss, len(table), smallest, largest, eta)
    return {"result": result, "asked": asked}

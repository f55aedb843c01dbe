"""`python -m quantlab`: the grid. The work is imported inside, since every cell's process imports this file again."""

if __name__ == "__main__":
    from quantlab.util.entry import enter

    enter("quantlab.cli.run")

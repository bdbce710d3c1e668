"""One module per command. At import they know typer and nothing heavy, so that ``--help`` is quick."""

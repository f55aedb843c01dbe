"""What every package may use: errors, files, the machine, the terminal. Imports nothing else of quantlab."""

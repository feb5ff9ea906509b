"""An aggregator that runs for ever: what it listens on, what it counts, what it writes down."""

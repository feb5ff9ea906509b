"""The `edvit-tf` command: parse, call one function, print. One file a verb."""

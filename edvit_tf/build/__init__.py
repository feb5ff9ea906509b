"""The workstation: from a teacher and a data set to a bundle."""

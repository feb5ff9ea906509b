"""The teachers that ship with the package."""

"""Published and house systems, one YAML file each."""

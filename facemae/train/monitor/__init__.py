"""How good the features are while a run goes on."""

"""From a dataset's windows to what the network is trained on."""

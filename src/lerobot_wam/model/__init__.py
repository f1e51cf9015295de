"""The network: pure torch, official tensor names, one definition of who may attend to whom."""

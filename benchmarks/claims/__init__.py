"""The paper's four claims, tried at a size that anyone can run."""
